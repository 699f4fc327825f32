//! What a change of the cluster opens and closes beside what was asked: an exact comparison of all connections.

use std::net::IpAddr;

use palisade_policy::{Cluster, Direction, Family, PortSet, Protocol, Traffic};

use super::question::Asked;
use crate::{
    connections::Connections,
    end::ConnectionEnd,
    families::{Families, index},
    matching::{MatchedEnd, matched},
    query::ConnectionsOptions,
    traffics::Cell,
};

/// What a change opens and closes beside the question, each sorted by ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// The connections that were denied before.
    pub opens: Vec<PairChange>,
    /// The connections that were allowed before.
    pub closes: Vec<PairChange>,
}

/// Some traffic between two ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PairChange {
    /// The client.
    pub from: ConnectionEnd,
    /// The server.
    pub to: ConnectionEnd,
    /// The IP families.
    pub families: Families,
    /// The traffic.
    pub traffic: Traffic,
}

impl Effect {
    /// Returns whether nothing but the question changes.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.opens.is_empty() && self.closes.is_empty()
    }

    /// Returns the number of changes.
    pub(crate) fn len(&self) -> usize {
        self.opens.len() + self.closes.len()
    }
}

/// The connections of a cluster, to compare edited clusters with.
pub(crate) struct Effects {
    before: Connections,
}

impl Effects {
    /// Computes the connections of a cluster; see [`Connections::new`] for the cost.
    pub(crate) fn new(cluster: &Cluster) -> Self {
        Self { before: Connections::new(cluster, &options()) }
    }

    /// Returns what an edited cluster opens and closes beside the question. `O(ends²)` and the connections of the edited
    /// cluster.
    pub(crate) fn of(&self, after: &Cluster, asked: &Asked) -> Effect {
        let after = Connections::new(after, &options());
        let sides = [&self.before, &after];
        let ends = matched(sides[0], sides[1]);
        let mut effect = Effect::default();
        for (i, from) in ends.iter().enumerate() {
            for (j, to) in ends.iter().enumerate() {
                if !(i == j && from.part.is_some_and(|pods| pods < 2)) {
                    compare(sides, from, to, asked, &mut effect);
                }
            }
        }
        effect.opens.sort_unstable();
        effect.closes.sort_unstable();
        effect
    }
}

fn options() -> ConnectionsOptions {
    ConnectionsOptions { nodes: true, ..ConnectionsOptions::default() }
}

fn compare(sides: [&Connections; 2], from: &MatchedEnd, to: &MatchedEnd, asked: &Asked, effect: &mut Effect) {
    let cell = |side: usize| sides[side].ids(from.at[side]?, to.at[side]?);
    let (Some(before), Some(after)) = (cell(0), cell(1)) else { return };
    let mut found: Vec<(Families, [Traffic; 2])> = Vec::new();
    for family in Family::BOTH {
        let at = |side: usize, cells: [Cell; 2]| {
            let [certain, possible] = cells.map(|cell| cell[index(family)]);
            let of = |id: u32| &sides[side].sets()[id as usize];
            Some([of(certain?), of(possible?)])
        };
        let (Some(a), Some(b)) = (at(0, before), at(1, after)) else { continue };
        if a == b {
            continue;
        }
        let families = Families { v4: family == Family::V4, v6: family == Family::V6 };
        // No rule can name port 0, and no program listens on it.
        let visible = |traffic: Traffic| traffic.difference(&port_zero());
        // What is certain now, or possible now, and was not before.
        let gained = |b: [&Traffic; 2], a: [&Traffic; 2]| b[0].difference(a[0]).union(&b[1].difference(a[1]));
        let change = [visible(gained(b, a)), visible(gained(a, b))];
        match found.last_mut() {
            Some((families, same)) if *same == change => families.v6 = true,
            _ => found.push((families, change)),
        }
    }
    for (families, [opened, closed]) in found {
        for (traffic, list) in [(opened, &mut effect.opens), (closed, &mut effect.closes)] {
            if !traffic.is_none() {
                let rest = asked.rest(&from.end, &to.end, &traffic).into_iter();
                // What is left of a node may be addresses of the other family.
                let rest =
                    rest.filter(|(from, to, _)| has_address(from, families) && has_address(to, families));
                list.extend(rest.map(|(from, to, traffic)| PairChange { from, to, families, traffic }));
            }
        }
    }
}

/// Whether a node has an address in one of the families; other ends have.
fn has_address(end: &ConnectionEnd, families: Families) -> bool {
    let (ConnectionEnd::Nodes(nodes) | ConnectionEnd::OwnNode(nodes)) = end else { return true };
    let is_of = |address: &IpAddr| match Family::of(*address) {
        Family::V4 => families.v4,
        Family::V6 => families.v6,
    };
    nodes.iter().flat_map(|node| &node.addresses).any(is_of)
}

fn port_zero() -> Traffic {
    let zero = || PortSet::range(0, 0);
    Protocol::WITH_PORTS.into_iter().fold(Traffic::none(), |sum, p| sum.union(&Traffic::of(p, zero())))
}

/// Returns the cluster without the rules of the other direction, so that what one direction newly allows is visible even
/// if the other one denies it.
pub(crate) fn one_direction(cluster: &Cluster, direction: Direction) -> Cluster {
    let mut out = cluster.clone();
    for policy in out.policies.values_mut() {
        let other = match direction {
            Direction::Ingress => &policy.egress,
            Direction::Egress => &policy.ingress,
        };
        if other.is_some() {
            let policy = std::sync::Arc::make_mut(policy);
            match direction {
                Direction::Ingress => policy.egress = None,
                Direction::Egress => policy.ingress = None,
            }
        }
    }
    out
}

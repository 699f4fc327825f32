//! Changes that depend on addresses that are not known.

use std::net::IpAddr;

use palisade_policy::{Direction, Endpoint, Family, Traffic, address::union};

use super::compare::Comparison;
use crate::{
    end::ConnectionEnd,
    families::Families,
    judge::{AddressQuestion, Questions},
    matching::MatchedEnd,
    regions::rule_ranges,
    space::AddressSpace,
};

/// A pair of ends of which it is not known whether some of its traffic was opened or closed, since this depends on an
/// address that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndecidedChange {
    /// The client.
    pub from: ConnectionEnd,
    /// The server.
    pub to: ConnectionEnd,
    /// The IP families.
    pub families: Families,
    /// The traffic.
    pub traffic: Traffic,
    /// The rules of both sides that ask for the address.
    pub questions: Vec<AddressQuestion>,
}

impl Comparison<'_> {
    /// Returns the pairs of which some traffic may have been opened or closed, sorted by ends.
    pub(super) fn undecided_changes(&self) -> Vec<UndecidedChange> {
        let mut out = Vec::new();
        if !self.answers.iter().any(|answer| answer.reach.has_unknown_places()) {
            return out;
        }
        // The rules of other pairs are the same on both sides, and so is what they allow at every address.
        for (from, to) in self.touched_pairs() {
            self.undecided(from, to, &mut out);
        }
        out.sort_by_cached_key(|u| (u.from.clone(), u.to.clone(), u.families));
        out
    }

    /// Returns the traffic of a pair by family that is allowed for some possible values of unknown addresses.
    pub(super) fn possible(&self, side: usize, from: &MatchedEnd, to: &MatchedEnd) -> [Traffic; 2] {
        let mut out: [Traffic; 2] = Default::default();
        let (Some(from_at), Some(to_at)) = (from.at[side], to.at[side]) else { return out };
        let certain = self.exchanged(side, from, to).unwrap_or_default();
        for (sum, certain) in out.iter_mut().zip(certain) {
            *sum = certain.cloned().unwrap_or_default();
        }
        for edge in self.answers[side].undecided_between(from_at, to_at) {
            for (sum, family) in out.iter_mut().zip(Family::BOTH) {
                if edge.families.contains(family) {
                    *sum = sum.union(&edge.traffic);
                }
            }
        }
        out
    }

    /// Adds the traffic of a pair that may have been opened or closed. A pair is left out if the rules of both sides treat
    /// every possible address alike.
    fn undecided(&self, from: &MatchedEnd, to: &MatchedEnd, out: &mut Vec<UndecidedChange>) {
        let certain = [0, 1].map(|side| self.exchanged(side, from, to).unwrap_or_default());
        let possible = [0, 1].map(|side| self.possible(side, from, to));
        let mut found: Vec<UndecidedChange> = Vec::new();
        for (family, place) in Family::BOTH.into_iter().zip(0..) {
            let nothing = Traffic::none();
            let [a, b] = certain.each_ref().map(|traffic| traffic[place].unwrap_or(&nothing));
            let [maybe_a, maybe_b] = possible.each_ref().map(|traffic| &traffic[place]);
            if a == maybe_a && b == maybe_b {
                continue;
            }
            let decided = b.difference(maybe_a).union(&a.difference(maybe_b));
            let traffic = maybe_b.difference(a).union(&maybe_a.difference(b)).difference(&decided);
            if traffic.is_none() || self.treats_alike(from, to, family) {
                continue;
            }
            match found.last_mut() {
                Some(other) if other.traffic == traffic => other.families.v6 = true,
                _ => {
                    let families = Families { v4: family == Family::V4, v6: family == Family::V6 };
                    let (from, to) = (from.end.clone(), to.end.clone());
                    found.push(UndecidedChange { from, to, families, traffic, questions: Vec::new() });
                }
            }
        }
        if !found.is_empty() {
            let questions = self.questions(from, to);
            found.iter_mut().for_each(|change| change.questions.clone_from(&questions));
            out.append(&mut found);
        }
    }

    /// Returns the rules of both sides that ask for addresses of a pair.
    fn questions(&self, from: &MatchedEnd, to: &MatchedEnd) -> Vec<AddressQuestion> {
        let mut found = Vec::new();
        for (side, answer) in self.answers.iter().enumerate() {
            let (Some(from), Some(to)) = (from.at[side], to.at[side]) else { continue };
            let mut asking = Questions::new(self.finder.clusters[side], answer);
            for edge in answer.undecided_between(from, to) {
                for question in asking.of(&edge) {
                    if !found.contains(&question) {
                        found.push(question);
                    }
                }
            }
        }
        found
    }

    /// Returns whether the rules of both sides allow the same between two ends, at every address that one of them may
    /// have.
    fn treats_alike(&self, from: &MatchedEnd, to: &MatchedEnd, family: Family) -> bool {
        let pair = |side: usize| self.finder.representatives[side].pair(&from.end, &to.end, family);
        let (Some(before), Some(after)) = (pair(0), pair(1)) else { return false };
        Direction::BOTH.into_iter().all(|direction| {
            let peer = |(source, target): &(Endpoint, Endpoint)| {
                if direction == Direction::Egress { target.address() } else { source.address() }
            };
            let unknown = |side: usize, pair: &(Endpoint, Endpoint)| {
                self.finder.clusters[side].addressing.is_placeholder(peer(pair))
            };
            if unknown(0, &before) != unknown(1, &after) {
                return false;
            }
            let addresses: Vec<Option<IpAddr>> = if unknown(0, &before) {
                self.regions([&before, &after], direction).into_iter().map(Some).collect()
            } else {
                vec![None]
            };
            addresses.into_iter().all(|address| {
                let allowed = |side: usize, (source, target): &(Endpoint, Endpoint)| {
                    let (source, target) = match address {
                        Some(address) => crate::judge::moved(source, target, direction, address),
                        None => (source.clone(), target.clone()),
                    };
                    self.finder.representatives[side]
                        .walk(&source, &target, direction, &Traffic::all())
                        .allowed()
                };
                allowed(0, &before) == allowed(1, &after)
            })
        })
    }

    /// Returns an address of each region that the rules of either side distinguish among the possible addresses of the
    /// subject's peer.
    fn regions(&self, pairs: [&(Endpoint, Endpoint); 2], direction: Direction) -> Vec<IpAddr> {
        let (mut blocks, mut possible) = (Vec::new(), Vec::new());
        for (cluster, (source, target)) in self.finder.clusters.into_iter().zip(pairs) {
            let (subject, peer) =
                if direction == Direction::Egress { (source, target) } else { (target, source) };
            if let Endpoint::Pod { key, .. } = subject
                && let Some(pod) = cluster.pods.get(key)
            {
                blocks.extend(rule_ranges(cluster, pod, direction));
            }
            possible.extend(
                cluster.addressing.possible(peer.address()).into_iter().flat_map(|p| p.iter().copied()),
            );
        }
        AddressSpace::new(blocks).samples_in(&union(possible))
    }
}

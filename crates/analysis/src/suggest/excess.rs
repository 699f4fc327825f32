//! What a suggestion allows apart from what was seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::{Cluster, IpRange, ObjectKey, PortSet, Protocol, Traffic, address::to_number};

use super::{Excess, ExcessEdge, ExcessEnd, MAX_EXCESS, SeenEnd, SeenPods, demand::Demands, groups::Groups};
use crate::{
    connections::{Connections, Edge},
    end::ConnectionEnd,
    query::ConnectionsOptions,
};

/// Compares what a cluster with suggested policies allows with what was seen. Connections of nodes don't count.
pub(super) fn excess(today: &Cluster, after: &Cluster, demands: &Demands, groups: &Groups<'_>) -> Excess {
    let counted = Counted { demands, groups, seen: seen_pairs(demands), outside: outside(demands) };
    let before = Connections::new(today, &ConnectionsOptions::default());
    let mut out = Excess { today: counted.pairs(&before).len() as u64, ..Excess::default() };
    drop(before);
    let connections = Connections::new(after, &ConnectionsOptions::default());
    let mut workloads: BTreeMap<&SeenPods, usize> = BTreeMap::new();
    for (number, end) in connections.ends().enumerate() {
        if let Some(pods) = counted.pods(end) {
            *workloads.entry(pods).or_default() += connections.pods(number);
        }
    }
    let is_own = |(pods, _): &(&&SeenPods, &usize)| demands.namespaces.contains(pods.namespace());
    let own = workloads.iter().filter(is_own).count() as u64;
    // A single pod has no other of its workload to connect to.
    let lone = workloads.iter().filter(is_own).filter(|(_, pods)| **pods < 2).count() as u64;
    let all = workloads.len() as u64;
    out.pairs = all * all - (all - own) * (all - own) - lone;
    out.seen = counted.seen.len() as u64;
    let mut suggested = BTreeSet::new();
    let mut sums = Sums::default();
    for edge in connections.edges() {
        let (from, to) = (connections.end(edge.from), connections.end(edge.to));
        let Some(more) = counted.more(from, to, &edge) else { continue };
        if let (Some(from), Some(to)) = (counted.pods(from), counted.pods(to)) {
            suggested.insert((from, to));
        }
        if !more.is_none() {
            sums.add(counted.end(from), counted.end(to), more);
        }
    }
    out.more_total = sums.total();
    out.more = sums.edges();
    out.suggested = suggested.len() as u64;
    out
}

/// Returns the pairs of different pods that were seen, DNS apart.
fn seen_pairs(demands: &Demands) -> BTreeSet<(&SeenPods, &SeenPods)> {
    let pairs = demands.pairs.keys().filter_map(|(from, to)| match (from, to) {
        (SeenEnd::Pods(from), SeenEnd::Pods(to)) => Some((from, to)),
        _ => None,
    });
    pairs.collect()
}

/// What is allowed between ends. Pods of a workload that policies could tell apart are one end.
#[derive(Default)]
struct Sums {
    first: BTreeMap<(ExcessEnd, ExcessEnd), Traffic>,
    /// How many there was no room for.
    others: u64,
}

impl Sums {
    fn add(&mut self, from: ExcessEnd, to: ExcessEnd, traffic: Traffic) {
        let ends = (from, to);
        if let Some(sum) = self.first.get_mut(&ends) {
            *sum = sum.union(&traffic);
        } else if self.first.len() < MAX_EXCESS {
            self.first.insert(ends, traffic);
        } else {
            self.others += 1;
        }
    }

    fn total(&self) -> u64 {
        self.first.len() as u64 + self.others
    }

    fn edges(self) -> Vec<ExcessEdge> {
        self.first.into_iter().map(|((from, to), traffic)| ExcessEdge { from, to, traffic }).collect()
    }
}

struct Counted<'a> {
    demands: &'a Demands,
    groups: &'a Groups<'a>,
    seen: BTreeSet<(&'a SeenPods, &'a SeenPods)>,
    outside: Outside<'a>,
}

/// What pods exchanged with outside addresses, by direction: whether the pods are the client.
type Outside<'a> = BTreeMap<(&'a SeenPods, bool), BTreeMap<IpAddr, Traffic>>;

fn outside(demands: &Demands) -> Outside<'_> {
    let mut out = Outside::new();
    for (ends, ports) in &demands.pairs {
        let (pods, is_client, address) = match ends {
            (SeenEnd::Pods(pods), SeenEnd::Address(address)) => (pods, true, address),
            (SeenEnd::Address(address), SeenEnd::Pods(pods)) => (pods, false, address),
            _ => continue,
        };
        out.entry((pods, is_client)).or_default().insert(*address, traffic(ports));
    }
    out
}

fn traffic(ports: &BTreeSet<(Protocol, u16)>) -> Traffic {
    ports.iter().fold(Traffic::none(), |sum, &(protocol, port)| {
        sum.union(&Traffic::of(protocol, PortSet::range(port, port)))
    })
}

impl<'a> Counted<'a> {
    /// Returns the pods of an end.
    fn pods(&self, end: &ConnectionEnd) -> Option<&'a SeenPods> {
        let ConnectionEnd::Workload(workload) = end else { return None };
        let first = workload.pods.first()?;
        self.groups.pods_of(&ObjectKey::new(workload.namespace.clone(), first.clone()))
    }

    fn end(&self, end: &ConnectionEnd) -> ExcessEnd {
        self.pods(end).map_or_else(|| ExcessEnd::Other(end.clone()), |pods| ExcessEnd::Pods(pods.clone()))
    }

    fn concerns(&self, end: &ConnectionEnd) -> bool {
        end.namespace().is_some_and(|name| self.demands.namespaces.contains(name))
    }

    /// Returns the pairs of workloads that may connect.
    fn pairs(&self, connections: &Connections) -> BTreeSet<(&'a SeenPods, &'a SeenPods)> {
        let edges = connections.edges().filter_map(|edge| {
            let (from, to) = (connections.end(edge.from), connections.end(edge.to));
            let concerns = self.concerns(from) || self.concerns(to);
            concerns.then(|| Some((self.pods(from)?, self.pods(to)?)))?
        });
        edges.collect()
    }

    /// Returns what an edge allows though it was not seen. `None` if the edge doesn't count: none of its ends has suggested
    /// policies, or it is DNS alone.
    fn more(&self, from: &ConnectionEnd, to: &ConnectionEnd, edge: &Edge<'_>) -> Option<Traffic> {
        if !self.concerns(from) && !self.concerns(to) {
            return None;
        }
        let traffic = edge.traffic.difference(&self.dns(to));
        if traffic.is_none() {
            return None;
        }
        match (from, to) {
            (ConnectionEnd::External(outside), inside) => {
                Some(self.outside(inside, &outside.ranges, &traffic, false))
            }
            (inside, ConnectionEnd::External(outside)) => {
                Some(self.outside(inside, &outside.ranges, &traffic, true))
            }
            _ => {
                let (from, to) = (self.pods(from)?, self.pods(to)?);
                let ends = (SeenEnd::Pods(from.clone()), SeenEnd::Pods(to.clone()));
                let seen = self.demands.pairs.get(&ends).map_or_else(Traffic::none, self::traffic);
                Some(traffic.difference(&seen))
            }
        }
    }

    /// Returns the traffic of DNS, if the pods are servers.
    fn dns(&self, to: &ConnectionEnd) -> Traffic {
        let dns = &self.demands.dns;
        if !dns.servers.iter().any(|key| to.holds_pod(key)) {
            return Traffic::none();
        }
        let ports = PortSet::of_ranges(dns.ports.iter().map(|port| (*port, *port)));
        Traffic::of(Protocol::Udp, ports.clone()).union(&Traffic::of(Protocol::Tcp, ports))
    }

    /// Returns what pods may exchange with outside addresses though it was not seen of each of them.
    fn outside(
        &self,
        inside: &ConnectionEnd,
        ranges: &[IpRange],
        traffic: &Traffic,
        egress: bool,
    ) -> Traffic {
        let Some(pods) = self.pods(inside) else { return traffic.clone() };
        let mut common: Option<Traffic> = None;
        let mut found: u128 = 0;
        for (_, seen) in self
            .outside
            .get(&(pods, egress))
            .into_iter()
            .flatten()
            .filter(|(address, _)| ranges.iter().any(|range| range.contains(**address)))
        {
            found += 1;
            common = Some(common.map_or_else(|| seen.clone(), |sum| sum.intersection(seen)));
        }
        let size = ranges.iter().map(|range| to_number(range.last) - to_number(range.first));
        let size = size.fold(0_u128, |sum, more| sum.saturating_add(more).saturating_add(1));
        match common {
            Some(common) if found == size => traffic.difference(&common),
            _ => traffic.clone(),
        }
    }
}

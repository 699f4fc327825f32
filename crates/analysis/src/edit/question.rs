//! What a question asks about, and what of a change lies outside of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use palisade_policy::{
    Cluster, Direction, Endpoint, IpRange, ObjectKey, Traffic, Verdict,
    address::{union, without},
    walk::{Walk, walk},
};

use crate::{
    end::{ConnectionEnd, ExternalRanges, NodeAddresses, WorkloadPods},
    judge,
};

/// A source, a destination, and the traffic that is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The client.
    pub source: Endpoint,
    /// The server.
    pub destination: Endpoint,
    /// Whether the connection passes through a service.
    pub through_service: bool,
    /// The traffic.
    pub traffic: Traffic,
    /// The part of the internet that the external end represents. Empty: its address alone.
    pub ranges: Vec<IpRange>,
    /// The ranges that were asked about, of which these are a part. Empty: the internet.
    pub asked_ranges: Vec<IpRange>,
    /// All sources for which [`Self::source`] stands, because no policy distinguishes them; itself included.
    pub sources: Vec<Endpoint>,
    /// All destinations for which [`Self::destination`] stands, itself included.
    pub destinations: Vec<Endpoint>,
}

/// A question: all pairs should get the same verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The pairs. Every source is asked with every destination that shares its IP family.
    pub pairs: Vec<Pair>,
}

impl Pair {
    /// Makes a pair that stands for itself alone.
    #[must_use]
    pub fn new(source: Endpoint, destination: Endpoint, through_service: bool, traffic: Traffic) -> Self {
        let (sources, destinations) = (vec![source.clone()], vec![destination.clone()]);
        Self {
            source,
            destination,
            through_service,
            traffic,
            ranges: Vec::new(),
            asked_ranges: Vec::new(),
            sources,
            destinations,
        }
    }

    /// Returns all ends for which [`Self::subject`] stands.
    pub(crate) fn subjects(&self, direction: Direction) -> &[Endpoint] {
        if direction == Direction::Ingress { &self.destinations } else { &self.sources }
    }

    /// Returns all ends for which [`Self::other`] stands.
    pub(crate) fn others(&self, direction: Direction) -> &[Endpoint] {
        if direction == Direction::Ingress { &self.sources } else { &self.destinations }
    }

    /// Walks the policies of one direction, at one of the possible values of addresses that are not known: edits are
    /// searched for what is decided.
    pub(crate) fn walk(&self, cluster: &Cluster, direction: Direction) -> Walk {
        let Self { source, destination, through_service, traffic, .. } = self;
        let [source, destination] = [source, destination].map(|end| judge::somewhere(cluster, end));
        walk(cluster, &source, &destination, *through_service, direction, traffic)
    }

    /// Returns the pod whose policies apply in a direction, or else the other kind of end.
    pub(crate) fn subject(&self, direction: Direction) -> &Endpoint {
        if direction == Direction::Ingress { &self.destination } else { &self.source }
    }

    /// Returns the end that the rules of a direction name as a peer.
    pub(crate) fn other(&self, direction: Direction) -> &Endpoint {
        if direction == Direction::Ingress { &self.source } else { &self.destination }
    }
}

/// The most addresses of the internet for which an edit is verified.
const SAMPLES: usize = 64;

impl Question {
    /// Returns whether a cluster gives this verdict for all traffic of every pair. For a part of the internet, the first
    /// and last address of its ranges are asked. `O(pairs × policies × rules)`.
    #[must_use]
    pub fn has_verdict(&self, cluster: &Cluster, verdict: Verdict) -> bool {
        self.pairs.iter().all(|pair| {
            let ends = pair.ranges.iter().flat_map(|r| [r.first, r.last]).take(SAMPLES);
            let samples = ends.map(|address| pair.with_external(address)).chain([pair.clone()]);
            samples.into_iter().all(|pair| {
                let allowed = |d| pair.walk(cluster, d).allowed();
                let both = allowed(Direction::Egress).intersection(&allowed(Direction::Ingress));
                if verdict.is_allow() { both == pair.traffic } else { both.is_none() }
            })
        })
    }

    /// Returns the ends and the traffic, for comparisons.
    pub(crate) fn asked(&self) -> Asked {
        let mut from = AskedEnds::default();
        let mut targets: BTreeMap<&Endpoint, (Traffic, &[IpRange])> = BTreeMap::new();
        for pair in &self.pairs {
            pair.sources.iter().for_each(|source| from.add(source, &pair.ranges));
            for destination in &pair.destinations {
                let target = targets.entry(destination).or_insert((Traffic::none(), &pair.ranges));
                target.0 = target.0.union(&pair.traffic);
            }
        }
        let mut to: Vec<(AskedEnds, Traffic)> = Vec::new();
        for (end, (traffic, ranges)) in targets {
            match to.iter_mut().find(|(_, t)| *t == traffic) {
                Some((ends, _)) => ends.add(end, ranges),
                None => {
                    let mut ends = AskedEnds::default();
                    ends.add(end, ranges);
                    to.push((ends, traffic));
                }
            }
        }
        from.ranges = union(std::mem::take(&mut from.ranges));
        to.iter_mut().for_each(|(ends, _)| ends.ranges = union(std::mem::take(&mut ends.ranges)));
        let destinations = to.iter().flat_map(|(ends, _)| ends.pods.iter().cloned()).collect();
        Asked { from, to, destinations }
    }
}

impl Pair {
    fn with_external(&self, address: IpAddr) -> Self {
        let mut out = self.clone();
        for end in [&mut out.source, &mut out.destination] {
            if matches!(end, Endpoint::External(_)) {
                *end = Endpoint::External(address);
            }
        }
        out
    }
}

/// Pods, node addresses and external addresses.
#[derive(Clone, Debug, Default)]
struct AskedEnds {
    pods: BTreeSet<ObjectKey>,
    nodes: BTreeSet<IpAddr>,
    ranges: Vec<IpRange>,
}

impl AskedEnds {
    fn add(&mut self, end: &Endpoint, ranges: &[IpRange]) {
        match end {
            Endpoint::Pod { key, .. } => drop(self.pods.insert(key.clone())),
            Endpoint::Node { address, .. } => {
                self.nodes.insert(*address);
                // A block that holds the address also holds it as one outside of the cluster.
                self.ranges.push(IpRange { first: *address, last: *address });
            }
            Endpoint::External(address) if ranges.is_empty() => {
                self.ranges.push(IpRange { first: *address, last: *address });
            }
            Endpoint::External(_) => self.ranges.extend(ranges),
        }
    }

    /// Divides an end into what is among these ends and what is not.
    fn divide(&self, end: &ConnectionEnd) -> (Option<ConnectionEnd>, Option<ConnectionEnd>) {
        match end {
            ConnectionEnd::Workload(w) => {
                let is_asked = |name: &&palisade_policy::Name| {
                    self.pods.contains(&ObjectKey { namespace: w.namespace.clone(), name: (*name).clone() })
                };
                let (asked, rest): (Vec<_>, Vec<_>) = w.pods.iter().partition(is_asked);
                let part = |pods: Vec<&palisade_policy::Name>| {
                    let whole = w.whole && pods.len() == w.pods.len();
                    let pods: Vec<_> = pods.into_iter().cloned().collect();
                    (!pods.is_empty())
                        .then(|| ConnectionEnd::Workload(WorkloadPods { pods, whole, ..w.clone() }))
                };
                (part(asked), part(rest))
            }
            ConnectionEnd::Nodes(nodes) | ConnectionEnd::OwnNode(nodes) => {
                let is_own = matches!(end, ConnectionEnd::OwnNode(_));
                let part = |asked: bool| {
                    let of = |node: &NodeAddresses| {
                        let addresses: Vec<IpAddr> = node
                            .addresses
                            .iter()
                            .copied()
                            .filter(|a| self.nodes.contains(a) == asked)
                            .collect();
                        let whole = node.whole && addresses.len() == node.addresses.len();
                        (!addresses.is_empty()).then(|| NodeAddresses {
                            name: node.name.clone(),
                            addresses,
                            whole,
                        })
                    };
                    let nodes: Vec<NodeAddresses> = nodes.iter().filter_map(of).collect();
                    let end = if is_own { ConnectionEnd::OwnNode } else { ConnectionEnd::Nodes };
                    (!nodes.is_empty()).then(|| end(nodes))
                };
                (part(true), part(false))
            }
            ConnectionEnd::External(external) => {
                let family = external.family;
                let outside = |ranges: &[IpRange], of: &[IpRange]| -> Vec<IpRange> {
                    ranges.iter().flat_map(|r| without(*r, of.iter().copied())).collect()
                };
                let divided = |ranges: &[IpRange]| {
                    let rest = outside(ranges, &self.ranges);
                    (outside(ranges, &rest), rest)
                };
                let (asked, rest) = divided(&external.ranges);
                let (asked_spanned, rest_spanned) = divided(&external.spanned);
                let part = |ranges: Vec<IpRange>, spanned: Vec<IpRange>| {
                    let end = ExternalRanges { family, ranges, spanned };
                    (!end.ranges.is_empty()).then_some(ConnectionEnd::External(end))
                };
                (part(asked, asked_spanned), part(rest, rest_spanned))
            }
            other => (None, Some(other.clone())),
        }
    }
}

/// The ends and the traffic of a question.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    from: AskedEnds,
    to: Vec<(AskedEnds, Traffic)>,
    /// The pods among the destinations.
    destinations: BTreeSet<ObjectKey>,
}

impl Asked {
    /// Returns the pods whose policies apply in a direction.
    pub(crate) fn pods(&self, direction: Direction) -> &BTreeSet<ObjectKey> {
        if direction == Direction::Egress { &self.from.pods } else { &self.destinations }
    }

    /// Returns what of some traffic between two ends was not asked about.
    pub(crate) fn rest(
        &self,
        from: &ConnectionEnd,
        to: &ConnectionEnd,
        traffic: &Traffic,
    ) -> Vec<(ConnectionEnd, ConnectionEnd, Traffic)> {
        let mut out = Vec::new();
        let (asked, other) = self.from.divide(from);
        out.extend(other.map(|from| (from, to.clone(), traffic.clone())));
        let Some(from) = asked else { return out };
        let mut left = Some(to.clone());
        for (ends, asked) in &self.to {
            let Some(to) = left.take() else { break };
            let (inside, rest) = ends.divide(&to);
            let more = traffic.difference(asked);
            if let (Some(to), false) = (inside, more.is_none()) {
                out.push((from.clone(), to, more));
            }
            left = rest;
        }
        out.extend(left.map(|to| (from, to, traffic.clone())));
        out
    }
}

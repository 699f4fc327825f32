//! What keeps a question from being allowed: one direction of some of its pairs.

use std::collections::BTreeSet;

use ipnet::IpNet;
use palisade_policy::{
    Action, Cluster, Direction, Endpoint, Family, IpBlock, ObjectKey, Peer, PeerEntry, PortEntry, PortMatch,
    Protocol, Rule, Traffic, Workload, walk::Walk,
};

use super::{
    question::{Pair, Question},
    select::Selectors,
};
use crate::{
    public::{internet, internet_block},
    shape::cidrs,
};

/// Pairs with the same kind of ends whose traffic one direction denies, or allows if it should be denied.
pub(crate) struct Gap<'q> {
    pub(crate) direction: Direction,
    /// The pods whose policies decide: of one workload.
    pub(crate) subjects: BTreeSet<ObjectKey>,
    /// The pairs. The first one represents them.
    pub(crate) pairs: Vec<&'q Pair>,
    /// The traffic that has the wrong verdict.
    pub(crate) traffic: Traffic,
    /// The walk of the first pair.
    pub(crate) walk: Walk,
}

/// What the pairs of a gap have in common.
#[derive(PartialEq, Eq)]
enum Kind {
    Workload(palisade_policy::Name, Option<Workload>),
    Node,
    External,
}

fn kind(cluster: &Cluster, end: &Endpoint) -> Kind {
    match end {
        Endpoint::Pod { key, .. } => {
            let workload = cluster.pods.get(key).and_then(|pod| pod.workload.clone());
            let bare = || Workload { kind: "Pod".into(), name: key.name.clone() };
            Kind::Workload(key.namespace.clone(), Some(workload.unwrap_or_else(bare)))
        }
        Endpoint::Node { .. } => Kind::Node,
        Endpoint::External(_) => Kind::External,
    }
}

/// Returns the first gap of a question that should be allowed. `None`: it is.
pub(crate) fn denied<'q>(cluster: &Cluster, question: &'q Question) -> Option<Gap<'q>> {
    Direction::BOTH.into_iter().find_map(|direction| {
        question.pairs.iter().find_map(|pair| {
            let walk = pair.walk(cluster, direction);
            let missing = pair.traffic.difference(&walk.allowed());
            (!missing.is_none()).then(|| gap(cluster, question, direction, pair, walk, missing))
        })
    })
}

/// Returns the pairs of a question with ends of the same kind as those of `first`.
pub(crate) fn gap<'q>(
    cluster: &Cluster,
    question: &'q Question,
    direction: Direction,
    first: &'q Pair,
    walk: Walk,
    traffic: Traffic,
) -> Gap<'q> {
    let kinds = |pair: &Pair| [kind(cluster, pair.subject(direction)), kind(cluster, pair.other(direction))];
    let same = kinds(first);
    let pairs: Vec<&Pair> = question.pairs.iter().filter(|pair| kinds(pair) == same).collect();
    let subjects = pairs.iter().flat_map(|pair| pair.subjects(direction)).filter_map(|end| match end {
        Endpoint::Pod { key, .. } => Some(key.clone()),
        Endpoint::Node { .. } | Endpoint::External(_) => None,
    });
    Gap { direction, subjects: subjects.collect(), pairs, traffic, walk }
}

impl Gap<'_> {
    /// Returns the pods at the other end.
    pub(crate) fn other_pods(&self) -> BTreeSet<ObjectKey> {
        let others = self.pairs.iter().flat_map(|pair| pair.others(self.direction));
        let others = others.filter_map(|end| match end {
            Endpoint::Pod { key, .. } => Some(key.clone()),
            Endpoint::Node { .. } | Endpoint::External(_) => None,
        });
        others.collect()
    }

    /// Returns the peers that match the other end in a policy of this namespace, which is empty for a cluster-wide
    /// policy.
    pub(crate) fn peers(&self, selectors: Selectors<'_>, home: &str) -> Vec<Peer> {
        let pods = self.other_pods();
        if let Some(pods) = selectors.pods(&pods, home) {
            return vec![Peer::Pods(pods)];
        }
        let mut out = BTreeSet::new();
        for pair in &self.pairs {
            let whole = |cidr| IpBlock { cidr, except: [].into() };
            for address in pair.others(self.direction).iter().map(Endpoint::address) {
                out.extend(match (pair.ranges.is_empty(), &pair.asked_ranges[..]) {
                    (true, _) => vec![whole(IpNet::from(address))],
                    // Cluster-wide policies have no exceptions.
                    (false, []) if home.is_empty() => {
                        cidrs(&internet(Family::of(address))).into_iter().map(whole).collect()
                    }
                    (false, []) => vec![internet_block(Family::of(address))],
                    (false, asked) => cidrs(asked).into_iter().map(whole).collect(),
                });
            }
        }
        out.into_iter().map(Peer::Block).collect()
    }

    /// Returns the ports of the traffic as a rule specifies them. `None`: only a rule for every port matches it.
    pub(crate) fn ports(&self) -> Option<Vec<PortMatch>> {
        if self.traffic.other {
            return None;
        }
        let of = |protocol: Protocol| {
            let ports = self.traffic.ports(protocol);
            let ranges: Vec<(u16, u16)> = ports.ranges().to_vec();
            ranges.into_iter().map(move |(first, last)| PortMatch::Numbers { protocol, first, last })
        };
        Some(Protocol::WITH_PORTS.into_iter().flat_map(of).collect())
    }

    /// Returns a rule for exactly this traffic of the other end, in a policy of this namespace.
    pub(crate) fn rule(&self, selectors: Selectors<'_>, action: Action, home: &str) -> Rule {
        let peers = self.peers(selectors, home).into_iter().map(|peer| PeerEntry { peer, origin: None });
        let ports = self.ports().map(|ports| {
            ports.into_iter().map(|port| PortEntry { port, origin: None }).collect::<Vec<PortEntry>>()
        });
        Rule { name: None, action, peers: Some(peers.collect()), ports, origin: None }
    }

    /// Returns the traffic that this direction of the pairs has in a cluster: allowed by all, and allowed by any.
    pub(crate) fn is_closed(&self, cluster: &Cluster) -> bool {
        self.pairs.iter().all(|pair| {
            let missing = pair.traffic.intersection(&self.traffic);
            missing.difference(&pair.walk(cluster, self.direction).allowed()).is_none()
        })
    }
}

//! Whether everything that one rule matches, another one matches too: now, and for any pod that could exist.
//!
//! The answer is never wrong where it is yes. It may be no where two other rules together match everything.

use palisade_policy::{
    DomainPattern, IpRange, LabelSet, LabelValues, NAMESPACE_NAME_LABEL, NamespaceMatch, Peer, PodMatch,
    PortMatch, Protocol, Rule, Selector, Traffic, address::without,
};

/// The pods that a match selects, as sets of labels. `None`: it can't match.
#[derive(Clone, Debug)]
pub(crate) struct PodCover(Option<(LabelSet, LabelSet)>);

impl PodCover {
    pub(crate) fn new(choice: &PodMatch) -> Self {
        let namespaces = match &choice.namespaces {
            NamespaceMatch::Named(name) => {
                let only = LabelValues::OneOf([name.clone()].into());
                Some(LabelSet::with_one(&NAMESPACE_NAME_LABEL.into(), only))
            }
            NamespaceMatch::Selected(selector) => LabelSet::of(selector),
        };
        Self(namespaces.zip(LabelSet::of(&choice.pods)))
    }

    /// Returns whether every pod of `self` is one of `other`.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, _) => true,
            (_, None) => false,
            (Some((namespaces, pods)), Some((other_namespaces, other_pods))) => {
                namespaces.is_subset(other_namespaces) && pods.is_subset(other_pods)
            }
        }
    }
}

/// What the peer of a rule matches.
#[derive(Clone, Debug)]
enum PeerCover {
    Pods(PodCover),
    Block(Vec<IpRange>),
    Nodes(Selector),
    DomainName(DomainPattern),
}

impl PeerCover {
    fn new(peer: &Peer) -> Self {
        match peer {
            Peer::Pods(choice) => Self::Pods(PodCover::new(choice)),
            Peer::Block(block) => Self::Block(block.ranges()),
            Peer::Nodes(selector) => Self::Nodes(selector.clone()),
            Peer::DomainName(pattern) => Self::DomainName(pattern.clone()),
        }
    }

    fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pods(own), Self::Pods(other)) => own.is_within(other),
            (Self::Block(own), Self::Block(other)) => {
                own.iter().all(|range| without(*range, other.iter().copied()).is_empty())
            }
            (Self::Nodes(own), Self::Nodes(other)) => match (LabelSet::of(own), LabelSet::of(other)) {
                (None, _) => true,
                (_, None) => false,
                (Some(own), Some(other)) => own.is_subset(&other),
            },
            (Self::DomainName(own), Self::DomainName(other)) => own.is_within(other),
            _ => false,
        }
    }
}

/// What a rule matches. `None`: everything.
#[derive(Clone, Debug)]
pub(crate) struct RuleCover {
    peers: Option<Vec<PeerCover>>,
    ports: Option<(Traffic, Vec<PortMatch>)>,
}

impl RuleCover {
    pub(crate) fn new(rule: &Rule) -> Self {
        let peers = rule.peers.as_ref();
        let ports = rule.ports.as_ref().map(|entries| {
            let numbers = entries.iter().fold(Traffic::none(), |sum, e| sum.union(&e.port.traffic(None)));
            let is_named = |port: &PortMatch| matches!(port, PortMatch::Named { .. });
            (numbers, entries.iter().map(|e| e.port.clone()).filter(is_named).collect())
        });
        Self { peers: peers.map(|all| all.iter().map(|e| PeerCover::new(&e.peer)).collect()), ports }
    }

    /// Returns whether `other` matches everything that `self` matches.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        self.ports_are_within(other) && self.peers_are_within(other)
    }

    fn peers_are_within(&self, other: &Self) -> bool {
        match (&self.peers, &other.peers) {
            (_, None) => true,
            (None, _) => false,
            (Some(own), Some(other)) => own.iter().all(|peer| other.iter().any(|o| peer.is_within(o))),
        }
    }

    fn ports_are_within(&self, other: &Self) -> bool {
        let (own, other) = match (&self.ports, &other.ports) {
            (_, None) => return true,
            (None, _) => return false,
            (Some(own), Some(other)) => (own, other),
        };
        own.0.difference(&other.0).is_none() && own.1.iter().all(|name| has_name(other, name))
    }
}

/// Whether ports contain those with a name, whatever their numbers.
fn has_name((numbers, names): &(Traffic, Vec<PortMatch>), port: &PortMatch) -> bool {
    let PortMatch::Named { protocol, name } = port else { return false };
    let protocols: &[Protocol] = protocol.as_ref().map_or(&Protocol::WITH_PORTS, std::slice::from_ref);
    let same = |other: &PortMatch| match other {
        PortMatch::Named { protocol: of, name: other } => other == name && (of.is_none() || of == protocol),
        PortMatch::Numbers { .. } => false,
    };
    names.iter().any(same) || protocols.iter().all(|protocol| numbers.ports(*protocol).is_all())
}

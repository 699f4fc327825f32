//! Short names for policies, rules, peers and ports.

use ipnet::IpNet;
use palisade_policy::{
    Action, Direction, IpBlock, Name, NamespaceMatch, Peer, PeerEntry, PodMatch, Policy, PolicyKey,
    PortEntry, PortMatch, Protocol, Requirement, Rule, Selector, Test, Tier,
};

/// Builds a policy of namespace x for the pods with these labels.
pub(crate) fn policy(name: &str, pods: &[(&str, &str)]) -> Policy {
    policy_in("x", name, pods)
}

pub(crate) fn policy_in(namespace: &str, name: &str, pods: &[(&str, &str)]) -> Policy {
    Policy {
        key: PolicyKey::network_policy(namespace, name),
        tier: Tier::Developer,
        priority: 0,
        mode: None,
        subject: PodMatch {
            namespaces: NamespaceMatch::Named(namespace.into()),
            pods: Selector::of_labels(pods.iter().copied()),
        },
        ingress: None,
        egress: None,
        origin: None,
    }
}

pub(crate) trait Rules {
    fn ingress(self, rules: impl IntoIterator<Item = Rule>) -> Self;
    fn egress(self, rules: impl IntoIterator<Item = Rule>) -> Self;
}

impl Rules for Policy {
    fn ingress(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.ingress = Some(rules.into_iter().collect());
        self
    }

    fn egress(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.egress = Some(rules.into_iter().collect());
        self
    }
}

/// A rule. No peers or no ports means any, as in the API.
pub(crate) fn rule<const P: usize, const Q: usize>(peers: [Peer; P], ports: [PortMatch; Q]) -> Rule {
    let peers = peers.map(|peer| PeerEntry { peer, origin: None });
    let ports = ports.map(|port| PortEntry { port, origin: None });
    Rule {
        name: None,
        action: Action::Accept,
        peers: (P > 0).then(|| peers.into()),
        ports: (Q > 0).then(|| ports.into()),
        origin: None,
    }
}

pub(crate) fn own(pods: Selector) -> Peer {
    Peer::Pods(PodMatch { namespaces: NamespaceMatch::Named("x".into()), pods })
}

pub(crate) fn both(namespaces: Selector, pods: Selector) -> Peer {
    Peer::Pods(PodMatch { namespaces: NamespaceMatch::Selected(namespaces), pods })
}

pub(crate) fn all_of(namespaces: Selector) -> Peer {
    both(namespaces, Selector::everything())
}

pub(crate) fn block(cidr: IpNet, except: &[IpNet]) -> Peer {
    Peer::Block(IpBlock { cidr, except: except.into() })
}

pub(crate) fn one(key: &str, value: &str) -> Selector {
    Selector::of_labels([(key, value)])
}

pub(crate) fn values(values: &[&str]) -> std::collections::BTreeSet<Name> {
    values.iter().map(|v| Name::from(*v)).collect()
}

pub(crate) fn any_of(key: &str, list: &[&str]) -> Selector {
    Selector::new([Requirement { key: key.into(), test: Test::In(values(list)) }])
}

pub(crate) fn none_of(key: &str, list: &[&str]) -> Selector {
    Selector::new([Requirement { key: key.into(), test: Test::NotIn(values(list)) }])
}

pub(crate) fn number(protocol: Protocol, port: u16) -> PortMatch {
    PortMatch::Numbers { protocol, first: port, last: port }
}

/// A named port with the protocol omitted, which means TCP (A5).
pub(crate) fn named(name: &str) -> PortMatch {
    PortMatch::Named { protocol: Some(Protocol::Tcp), name: name.into() }
}

/// A protocol with the port omitted.
pub(crate) fn any_port(protocol: Protocol) -> PortMatch {
    PortMatch::Numbers { protocol, first: 0, last: u16::MAX }
}

pub(crate) fn deny(name: &str, pods: &[(&str, &str)], directions: &[Direction]) -> Policy {
    let mut policy = policy(name, pods);
    policy.ingress = directions.contains(&Direction::Ingress).then(Vec::new);
    policy.egress = directions.contains(&Direction::Egress).then(Vec::new);
    policy
}

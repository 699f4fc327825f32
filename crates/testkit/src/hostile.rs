//! Hostile policies: shapes that may cost more than their size.
//!
//! Each selects the pods of one namespace, is a valid NetworkPolicy, and fits, with a few thousand rules, into an
//! object of the API server. The benchmark `hostile` measures them, and tests hold them to the budget.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use palisade_policy::{
    Action, IpBlock, Name, NamespaceMatch, Peer, PeerEntry, Pod, PodMatch, Policy, PolicyKey, PortEntry,
    PortMatch, Protocol, Requirement, Rule, Selector, Test, Tier,
};

/// A shape: makes a policy of `n` parts for the namespace of a pod.
pub type Hostile = fn(&Pod, usize) -> Policy;

/// All shapes by name.
pub const SHAPES: [(&str, Hostile); 13] = [
    ("excepts", excepts),
    ("excepts-of-adjacent-ports", excepts_of_adjacent_ports),
    ("excepts-ipv6", excepts_ipv6),
    ("excepts-under-everything", excepts_under_everything),
    ("comb", comb),
    ("overlapping-ports", overlapping_ports),
    ("overlapping-ports-of-peers", overlapping_ports_of_peers),
    ("ports", ports),
    ("named-ports", named_ports),
    ("blocks", blocks),
    ("rows", rows),
    ("selectors", selectors),
    ("namespaces", namespaces),
];

/// Each rule has the same block with one address excepted, and its own port. No two ports touch.
#[must_use]
pub fn excepts(pod: &Pod, n: usize) -> Policy {
    ingress(pod, (0..n).map(|i| rule([block("20.0.0.0/8", [v4(i)])], [port(2 * i, 2 * i)])))
}

/// The same with ports that touch, so that each row has two ranges.
#[must_use]
pub fn excepts_of_adjacent_ports(pod: &Pod, n: usize) -> Policy {
    ingress(pod, (0..n).map(|i| rule([block("20.0.0.0/8", [v4(i)])], [port(i, i)])))
}

/// The same with IPv6.
#[must_use]
pub fn excepts_ipv6(pod: &Pod, n: usize) -> Policy {
    ingress(pod, (0..n).map(|i| rule([block("2001::/16", [v6(i)])], [port(2 * i, 2 * i)])))
}

/// The same, but every peer may use every port: all rows are one, and the work is wasted.
#[must_use]
pub fn excepts_under_everything(pod: &Pod, n: usize) -> Policy {
    let mut out = excepts(pod, n);
    let everything = Rule { peers: None, ..rule([], [port(0, 65_535)]) };
    out.ingress.iter_mut().for_each(|rules| rules.push(everything.clone()));
    out
}

/// One rule with many exceptions and many ports, which begins and ends as often as others do.
#[must_use]
pub fn comb(pod: &Pod, n: usize) -> Policy {
    let holes = rule([block("20.0.0.0/8", (0..n).map(v4))], (0..n).map(|i| port(2 * i, 2 * i)));
    let others = (0..n).map(|i| rule([block("20.0.0.0/8", [v4(2 * i)])], [port(2 * i + 1, 2 * i + 1)]));
    ingress(pod, [holes].into_iter().chain(others))
}

/// Nested ranges of ports, for nested blocks.
#[must_use]
pub fn overlapping_ports(pod: &Pod, n: usize) -> Policy {
    let range = |i: usize| port(i % 30_000, 65_535 - i % 30_000);
    ingress(pod, (0..n).map(|i| rule([block("20.0.0.0/8", [v4(3 * i), v4(3 * i + 1)])], [range(i)])))
}

/// The same for peers selected by labels: each row of a class is a union of many ranges.
#[must_use]
pub fn overlapping_ports_of_peers(pod: &Pod, n: usize) -> Policy {
    let peer = |i: usize| pods_everywhere(Test::NotIn(names([format!("v{i}")])));
    ingress(pod, (0..n).map(|i| rule([peer(i)], [port(2 * i % 60_000, 2 * i % 60_000)])))
}

/// One rule with many ports that don't touch, for every peer.
#[must_use]
pub fn ports(pod: &Pod, n: usize) -> Policy {
    let all = (0..n).rev().map(|i| port(7 * i % 65_536, 7 * i % 65_536));
    ingress(pod, [Rule { peers: None, ..rule([], all) }])
}

/// Port names that the peers resolve.
#[must_use]
pub fn named_ports(pod: &Pod, n: usize) -> Policy {
    let name = |i: usize| PortMatch::Named { protocol: Some(Protocol::Tcp), name: format!("p{i}").into() };
    let rules = (0..n).map(|i| rule([pods_everywhere(Test::Exists)], [name(i)]));
    let mut out = ingress(pod, rules);
    out.egress = out.ingress.take();
    out
}

/// One rule with many blocks.
#[must_use]
pub fn blocks(pod: &Pod, n: usize) -> Policy {
    ingress(pod, [rule((0..n).map(|i| block(&format!("{}/32", v4(2 * i).addr()), [])), [port(80, 80)])])
}

/// Blocks of one address each, each with its own port: many rows with few ports.
#[must_use]
pub fn rows(pod: &Pod, n: usize) -> Policy {
    let one = |i: usize| block(&format!("{}/32", v4(2 * i).addr()), []);
    ingress(pod, (0..n).map(|i| rule([one(i)], [port(2 * i, 2 * i)])))
}

/// Many selectors that match all pods.
#[must_use]
pub fn selectors(pod: &Pod, n: usize) -> Policy {
    let peer = |i: usize| pods_everywhere(Test::NotIn(names([format!("v{i}")])));
    ingress(pod, [rule((0..n).map(peer), [port(80, 80)])])
}

/// Many selectors that match all namespaces.
#[must_use]
pub fn namespaces(pod: &Pod, n: usize) -> Policy {
    let peer = |i: usize| {
        let test = Test::NotIn(names([format!("ns-{i}")]));
        Peer::Pods(PodMatch {
            namespaces: NamespaceMatch::Selected(Selector::new([Requirement { key: "team".into(), test }])),
            pods: Selector::everything(),
        })
    };
    ingress(pod, (0..n).map(|i| rule([peer(i)], [port(i, i)])))
}

fn ingress(pod: &Pod, rules: impl IntoIterator<Item = Rule>) -> Policy {
    let namespace = pod.key.namespace.clone();
    Policy {
        key: PolicyKey::network_policy(namespace.clone(), "hostile"),
        tier: Tier::Developer,
        priority: 0,
        mode: None,
        subject: PodMatch { namespaces: NamespaceMatch::Named(namespace), pods: Selector::everything() },
        ingress: Some(rules.into_iter().collect()),
        egress: None,
        origin: None,
    }
}

fn rule(peers: impl IntoIterator<Item = Peer>, ports: impl IntoIterator<Item = PortMatch>) -> Rule {
    Rule {
        name: None,
        action: Action::Accept,
        peers: Some(peers.into_iter().map(|peer| PeerEntry { peer, origin: None }).collect()),
        ports: Some(ports.into_iter().map(|port| PortEntry { port, origin: None }).collect()),
        origin: None,
    }
}

fn port(first: usize, last: usize) -> PortMatch {
    let of = |n: usize| (n % 65_536) as u16;
    PortMatch::Numbers { protocol: Protocol::Tcp, first: of(first), last: of(last) }
}

fn block(cidr: &str, except: impl IntoIterator<Item = IpNet>) -> Peer {
    let cidr = cidr.parse().unwrap_or_else(|_| IpNet::from(IpAddr::from([0, 0, 0, 0])));
    // Sorted, as in domain values.
    let except: BTreeSet<IpNet> = except.into_iter().collect();
    Peer::Block(IpBlock { cidr, except: except.into_iter().collect::<Arc<[IpNet]>>() })
}

/// Returns the address with this number in 20.0.0.0/8, not next to that of the next number.
fn v4(i: usize) -> IpNet {
    let [_, b, c, d] = (2 * i as u32).to_be_bytes();
    IpNet::from(IpAddr::from([20, b, c, d]))
}

/// Returns the same in 2001::/16.
fn v6(i: usize) -> IpNet {
    let [a, b, c, d] = (2 * i as u32).to_be_bytes();
    IpNet::from(IpAddr::from([0x20, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]))
}

fn pods_everywhere(test: Test) -> Peer {
    Peer::Pods(PodMatch {
        namespaces: NamespaceMatch::Selected(Selector::everything()),
        pods: Selector::new([Requirement { key: "app".into(), test }]),
    })
}

fn names(all: impl IntoIterator<Item = String>) -> BTreeSet<Name> {
    all.into_iter().map(Name::from).collect()
}

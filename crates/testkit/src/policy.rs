//! Random policies and selectors.

use std::{collections::BTreeSet, net::IpAddr};

use fastrand::Rng;
use ipnet::IpNet;

use super::{
    Style, learned,
    vocabulary::{
        ADDRESSES_PER_NODE, EXTERNALS, LABEL_KEYS, NAMESPACES, PORT_NAMES, PORT_NUMBERS, SELECTED_VALUES,
        UNDECLARED, UNKNOWN_PORT_NAME, namespace_name, node_address, one_in, pick, pod_address,
    },
};
use palisade_policy::{
    Action, Cluster, Direction, Family, IpBlock, NAMESPACE_NAME_LABEL, Name, NamespaceMatch, Peer, PeerEntry,
    PodMatch, Policy, PolicyKey, PortEntry, PortMatch, Protocol, Requirement, Rule, Selector, Test, Tier,
    address::{from_number, max_number, to_number},
};

/// Returns the policy with this number.
pub(super) fn policy(rng: &mut Rng, style: Style, cluster: &Cluster, index: usize) -> Policy {
    let mut policy = if style.is_tiered() && rng.bool() {
        cluster_wide(rng, index)
    } else {
        namespaced(rng, cluster, index)
    };
    let directions = rng.usize(..8);
    let scope = |direction| Scope { cluster, policy: &policy, direction };
    let ingress = (directions < 5).then(|| rules(rng, scope(Direction::Ingress)));
    let egress = (directions > 2).then(|| rules(rng, scope(Direction::Egress)));
    (policy.ingress, policy.egress) = (ingress, egress);
    policy
}

/// A NetworkPolicy without rules.
fn namespaced(rng: &mut Rng, cluster: &Cluster, index: usize) -> Policy {
    let namespace = namespace_name(rng, cluster.namespaces.len());
    Policy {
        key: PolicyKey::network_policy(namespace.clone(), format!("np{index}")),
        tier: Tier::Developer,
        priority: 0,
        mode: None,
        subject: PodMatch { namespaces: NamespaceMatch::Named(namespace), pods: selector(rng, false) },
        ingress: None,
        egress: None,
        origin: None,
    }
}

/// A cluster-wide policy without rules, of either generation of the API. There are few priorities, so that ties occur
/// (SEMANTICS G-11, G-14).
fn cluster_wide(rng: &mut Rng, index: usize) -> Policy {
    let (namespaces, pods) = (NamespaceMatch::Selected(selector(rng, true)), selector(rng, false));
    let (kind, name, tier, priority) = match rng.usize(..8) {
        0..=4 => {
            let tier = pick(rng, &[Tier::Admin, Tier::Baseline]);
            // On either side of `anp…`, so that names don't resolve all ties between the two kinds.
            let name = format!("{}{index}", pick(rng, &["cnp", "acnp"]));
            ("ClusterNetworkPolicy", name, tier, rng.i32(0..3))
        }
        5..=6 => ("AdminNetworkPolicy", format!("anp{index}"), Tier::Admin, rng.i32(0..3)),
        // A cluster has at most one, with this name; it comes last (G-14).
        _ => ("BaselineAdminNetworkPolicy", "default".to_owned(), Tier::Baseline, i32::MAX),
    };
    Policy {
        key: PolicyKey { kind: kind.into(), namespace: "".into(), name: name.into() },
        tier,
        mode: None,
        priority,
        subject: PodMatch { namespaces, pods },
        ingress: None,
        egress: None,
        origin: None,
    }
}

/// Where a rule is; this restricts what it may contain.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) policy: &'a Policy,
    pub(super) direction: Direction,
}

impl Scope<'_> {
    fn is_cluster_wide(&self) -> bool {
        self.policy.tier != Tier::Developer
    }
}

/// The rules of one direction; none at all with probability 1/5.
pub(super) fn rules(rng: &mut Rng, scope: Scope<'_>) -> Vec<Rule> {
    let count = if one_in(rng, 5) { 0 } else { rng.usize(1..=3) };
    (0..count).map(|_| rule(rng, scope)).collect()
}

pub(super) fn rule(rng: &mut Rng, scope: Scope<'_>) -> Rule {
    let wide = scope.is_cluster_wide();
    if wide && one_in(rng, 16) {
        // What remains of an unusable rule (SEMANTICS C23).
        return Rule { name: None, action: Action::Deny, peers: None, ports: None, origin: None };
    }
    let peers = (wide || !one_in(rng, 6)).then(|| {
        let count = rng.usize(1..=3);
        (0..count).map(|_| PeerEntry { peer: peer(rng, scope), origin: None }).collect()
    });
    let ports = (!one_in(rng, 3)).then(|| {
        let count = rng.usize(1..=3);
        (0..count).map(|_| PortEntry { port: port(rng, wide), origin: None }).collect()
    });
    let action = if wide { pick(rng, &[Action::Accept, Action::Deny, Action::Pass]) } else { Action::Accept };
    Rule { name: None, action, peers, ports, origin: None }
}

/// Only NetworkPolicy has "the policy's own namespace", and only cluster-wide egress rules have nodes and domain names
/// (which the API restricts to the action Accept, as the engine does not); cluster-wide
/// ingress rules have no blocks (SEMANTICS C7).
fn peer(rng: &mut Rng, scope: Scope<'_>) -> Peer {
    let selected = |rng: &mut Rng| NamespaceMatch::Selected(selector(rng, true));
    let names = !scope.cluster.learned.is_empty() && scope.is_cluster_wide();
    if names && scope.direction == Direction::Egress && one_in(rng, 3) {
        return Peer::DomainName(learned::pattern(rng));
    }
    let (namespaces, pods) = match rng.usize(..10) {
        0..=2 if !scope.is_cluster_wide() => {
            (NamespaceMatch::Named(scope.policy.key.namespace.clone()), selector(rng, false))
        }
        3..=4 => (selected(rng), Selector::everything()),
        5..=6 if scope.is_cluster_wide() && scope.direction == Direction::Egress => {
            return Peer::Nodes(selector(rng, false));
        }
        7.. if !scope.is_cluster_wide() || scope.direction == Direction::Egress => {
            return Peer::Block(block(rng, scope.cluster));
        }
        _ => (selected(rng), selector(rng, false)),
    };
    Peer::Pods(PodMatch { namespaces, pods })
}

/// A selector for namespaces or for pods: with probability 1/4 everything, rarely a contradiction.
pub(super) fn selector(rng: &mut Rng, namespaces: bool) -> Selector {
    if one_in(rng, 4) {
        return Selector::everything();
    }
    if one_in(rng, 16) {
        let key: Name = pick(rng, &LABEL_KEYS).into();
        let tests = if rng.bool() {
            let values = BTreeSet::from([Name::from(pick(rng, &SELECTED_VALUES))]);
            [Test::In(values.clone()), Test::NotIn(values)]
        } else {
            [Test::Exists, Test::DoesNotExist]
        };
        return Selector::new(tests.map(|test| Requirement { key: key.clone(), test }));
    }
    let count = if rng.bool() { 1 } else { rng.usize(1..=3) };
    Selector::new((0..count).map(|_| requirement(rng, namespaces)))
}

fn requirement(rng: &mut Rng, namespaces: bool) -> Requirement {
    let by_name = namespaces && one_in(rng, 3);
    let count = rng.usize(1..=2);
    let values: BTreeSet<Name> = (0..count)
        .map(|_| match by_name {
            true if one_in(rng, 6) => UNDECLARED.into(),
            true => pick(rng, &NAMESPACES[..3]).into(),
            false => pick(rng, &SELECTED_VALUES).into(),
        })
        .collect();
    let key = if by_name { NAMESPACE_NAME_LABEL } else { pick(rng, &LABEL_KEYS) };
    let test = match rng.usize(..7) {
        0..=2 => Test::In(values),
        3..=4 => Test::NotIn(values),
        5 => Test::Exists,
        _ => Test::DoesNotExist,
    };
    Requirement { key: key.into(), test }
}

/// A port match. Cluster-wide policies have names without protocol (SEMANTICS C15).
fn port(rng: &mut Rng, any_protocol: bool) -> PortMatch {
    let protocol = if rng.bool() { Protocol::Tcp } else { pick(rng, &Protocol::WITH_PORTS) };
    let numbers = |first, last| PortMatch::Numbers { protocol, first, last };
    match rng.usize(..10) {
        0..=2 => {
            let name = if one_in(rng, 8) { UNKNOWN_PORT_NAME } else { pick(rng, &PORT_NAMES) };
            PortMatch::Named { protocol: (!any_protocol).then_some(protocol), name: name.into() }
        }
        3 => numbers(0, u16::MAX),
        4..=6 => {
            let port = pick(rng, &PORT_NUMBERS);
            numbers(port, port)
        }
        7 => numbers(1, pick(rng, &PORT_NUMBERS)),
        8 => numbers(pick(rng, &PORT_NUMBERS), u16::MAX),
        _ => {
            let (a, b) = (pick(rng, &PORT_NUMBERS), pick(rng, &PORT_NUMBERS));
            numbers(a.min(b), a.max(b).saturating_add(rng.u16(..2)))
        }
    }
}

/// An address of a pod, a node or an outside host.
fn anchor(rng: &mut Rng, cluster: &Cluster) -> IpAddr {
    let nodes = cluster.nodes.len().max(1);
    let family = if one_in(rng, 3) { Family::V6 } else { Family::V4 };
    match rng.usize(..10) {
        0..=3 if !cluster.pods.is_empty() => {
            let pod = cluster.pods.values().nth(rng.usize(..cluster.pods.len()));
            pod.and_then(|p| p.addresses.first().copied()).unwrap_or_else(|| node_address(0, family))
        }
        0..=6 => pod_address(rng.usize(..nodes), rng.usize(..ADDRESSES_PER_NODE), family),
        7 => node_address(rng.usize(..nodes), family),
        _ => pick(rng, &EXTERNALS),
    }
}

/// A block around an address, with up to three exceptions within it.
fn block(rng: &mut Rng, cluster: &Cluster) -> IpBlock {
    let at = anchor(rng, cluster);
    let lengths: &[u8] = match Family::of(at) {
        Family::V4 => &[0, 1, 8, 16, 23, 24, 28, 30, 31, 32, 32],
        Family::V6 => &[0, 1, 16, 32, 63, 64, 112, 124, 127, 128, 128],
    };
    let cidr = net(at, pick(rng, lengths));
    let count = if one_in(rng, 2) { 0 } else { rng.usize(1..=3) };
    let mut except: Vec<IpNet> = Vec::new();
    for _ in 0..count {
        let inside = match rng.usize(..4) {
            0 => cidr.network(),
            1 => cidr.broadcast(),
            _ => anchor(rng, cluster),
        };
        let longer: Vec<u8> = lengths.iter().copied().filter(|l| *l > cidr.prefix_len()).collect();
        if cidr.contains(&inside) && !longer.is_empty() {
            except.push(net(inside, pick(rng, &longer)));
        }
    }
    except.sort_unstable();
    IpBlock { cidr, except: except.into() }
}

/// The CIDR of this length around an address, host bits masked.
fn net(address: IpAddr, length: u8) -> IpNet {
    let family = Family::of(address);
    let host_bits = if family == Family::V4 { 32 } else { 128 } - u32::from(length);
    let mask = max_number(family).checked_shr(host_bits).map_or(0, |ones| ones << host_bits);
    IpNet::new_assert(from_number(family, to_number(address) & mask), length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nets_are_masked() {
        let v4 = IpAddr::from([10, 244, 1, 9]);
        assert_eq!(net(v4, 24).to_string(), "10.244.1.0/24");
        assert_eq!(net(v4, 0).to_string(), "0.0.0.0/0");
        assert_eq!(net(v4, 32).to_string(), "10.244.1.9/32");
        let v6: IpAddr = "fd00:10::9".parse().unwrap();
        assert_eq!(net(v6, 0).to_string(), "::/0");
        assert_eq!(net(v6, 124).to_string(), "fd00:10::/124");
        assert_eq!(net(v6, 128).to_string(), "fd00:10::9/128");
    }

    #[test]
    fn exceptions_are_strict_subsets_as_validation_demands() {
        let mut rng = Rng::with_seed(1);
        for _ in 0..2000 {
            let b = block(&mut rng, &Cluster::default());
            for e in b.except.iter() {
                assert!(b.cidr.contains(e) && e.prefix_len() > b.cidr.prefix_len(), "{b:?}");
            }
        }
    }
}

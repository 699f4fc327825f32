//! A second implementation of NetworkPolicy, straight from SEMANTICS A, which shares only the domain types with the
//! crate: no selector, CIDR or port code. It uses sets where the reference iterates: for a pod and a direction it
//! determines for each policy whether it allows the connection, with its own labels, masks and port names.

use std::collections::BTreeMap;

use palisade_policy::{
    Cluster, Direction, Endpoint, Flow, NamespaceMatch, Peer, Phase, Pod, Policy, PortMatch, Protocol, Rule,
    Selector, Test, Tier,
};

/// Returns whether egress and ingress each allow the connection.
pub(crate) fn decide(cluster: &Cluster, flow: &Flow) -> (bool, bool) {
    let (source, destination) = (pod(cluster, &flow.source), pod(cluster, &flow.destination));
    // A41, and G-6 for connections through a service.
    if source.is_some() && source.map(|p| &p.key) == destination.map(|p| &p.key) {
        return (true, true);
    }
    let egress = source.is_none_or(|subject| passes(cluster, flow, Direction::Egress, subject));
    let own_node = match (&flow.source, destination) {
        (Endpoint::Node { name, .. }, Some(pod)) => pod.node.as_deref() == Some(&**name), // A39
        _ => false,
    };
    let ingress =
        own_node || destination.is_none_or(|subject| passes(cluster, flow, Direction::Ingress, subject));
    (egress, ingress)
}

/// 0.3, A48, G-4: the pods to which policies apply.
fn pod<'a>(cluster: &'a Cluster, end: &Endpoint) -> Option<&'a Pod> {
    let Endpoint::Pod { key, address } = end else { return None };
    let pod = &cluster.pods[key];
    assert!(pod.addresses.contains(address), "{key} hasn't got {address}");
    let finished = pod.phase == Phase::Succeeded || pod.phase == Phase::Failed;
    if finished || pod.host_network { None } else { Some(pod) }
}

/// A33–A36: isolated by any policy that selects the pod for this direction, allowed by any of their rules.
fn passes(cluster: &Cluster, flow: &Flow, direction: Direction, subject: &Pod) -> bool {
    let selecting = |p: &&Policy| {
        assert_eq!(p.tier, Tier::Developer, "only NetworkPolicy is read here");
        p.key.namespace == subject.key.namespace && selects(&p.subject.pods, &map(subject))
    };
    let lists = |p: &'_ Policy| match direction {
        Direction::Ingress => p.ingress.clone(),
        Direction::Egress => p.egress.clone(),
    };
    let isolating: Vec<Vec<Rule>> =
        cluster.policies.values().map(|p| &**p).filter(selecting).filter_map(lists).collect();
    let peer = if direction == Direction::Ingress { &flow.source } else { &flow.destination };
    isolating.is_empty()
        || isolating.iter().flatten().any(|rule| {
            let from =
                rule.peers.as_ref().is_none_or(|all| all.iter().any(|e| is_peer(cluster, &e.peer, peer)));
            let on =
                rule.ports.as_ref().is_none_or(|all| all.iter().any(|e| is_port(cluster, &e.port, flow)));
            from && on // A24
        })
}

fn map(pod: &Pod) -> BTreeMap<String, String> {
    pod.labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

/// A9–A11.
fn selects(selector: &Selector, labels: &BTreeMap<String, String>) -> bool {
    selector.requirements().iter().all(|r| match (&r.test, labels.get(&*r.key)) {
        (Test::In(values), Some(value)) => values.iter().any(|v| **v == **value),
        (Test::In(_), None) => false,
        (Test::NotIn(values), Some(value)) => values.iter().all(|v| **v != **value),
        (Test::NotIn(_), None) => true,
        (Test::Exists, value) => value.is_some(),
        (Test::DoesNotExist, value) => value.is_none(),
    })
}

/// A14–A21, G-22.
fn is_peer(cluster: &Cluster, peer: &Peer, end: &Endpoint) -> bool {
    match peer {
        Peer::Nodes(_) | Peer::DomainName(_) => panic!("only NetworkPolicy is read here"),
        Peer::Pods(wanted) => pod(cluster, end).is_some_and(|pod| {
            let namespace = match &wanted.namespaces {
                NamespaceMatch::Named(name) => *name == pod.key.namespace,
                NamespaceMatch::Selected(selector) => {
                    cluster.namespaces.get(&pod.key.namespace).is_some_and(|n| {
                        selects(
                            selector,
                            &n.labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
                        )
                    })
                }
            };
            namespace && selects(&wanted.pods, &map(pod))
        }),
        Peer::Block(block) => {
            let bytes = |ip: std::net::IpAddr| match ip {
                std::net::IpAddr::V4(a) => a.octets().to_vec(),
                std::net::IpAddr::V6(a) => a.octets().to_vec(),
            };
            let at = bytes(end.address());
            let within = |net: &ipnet::IpNet| {
                let (base, length) = (bytes(net.addr()), usize::from(net.prefix_len()));
                let bit = |b: &[u8], i: usize| b[i / 8] >> (7 - i % 8) & 1;
                base.len() == at.len() && (0..length).all(|i| bit(&base, i) == bit(&at, i))
            };
            within(&block.cidr) && !block.except.iter().any(within)
        }
    }
}

/// A25–A28.
fn is_port(cluster: &Cluster, port: &PortMatch, flow: &Flow) -> bool {
    let same = |p: Protocol| p == flow.protocol;
    match port {
        PortMatch::Numbers { protocol, first, last } => {
            same(*protocol) && flow.port >= *first && flow.port <= *last
        }
        PortMatch::Named { protocol, name } => pod(cluster, &flow.destination).is_some_and(|pod| {
            pod.ports.iter().any(|declared| {
                declared.name.as_ref() == Some(name)
                    && same(declared.protocol)
                    && protocol.is_none_or(same)
                    && declared.port == flow.port
            })
        }),
    }
}

//! The endpoints, ports and flows at which verdicts may change.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use fastrand::Rng;

use super::vocabulary::EXTERNALS;
use palisade_policy::{
    Cluster, Direction, Endpoint, Family, Flow, IpRange, Peer, Pod, PortMatch, Protocol, Rule,
    address::{from_number, max_number, to_number},
};

/// Returns every relevant address with its owner: the running pods, each by the addresses that it owns (SEMANTICS
/// G-10), the nodes, a few outside hosts, learned addresses, and the addresses on both sides of every CIDR boundary.
#[must_use]
pub fn endpoints(cluster: &Cluster) -> Vec<Endpoint> {
    let mut owners: BTreeMap<IpAddr, &Pod> = BTreeMap::new();
    for pod in cluster.pods.values().filter(|p| p.is_running()) {
        for address in &pod.addresses {
            let owner = owners.entry(*address).or_insert(pod);
            if Pod::precedence(pod, owner).is_lt() {
                *owner = pod;
            }
        }
    }
    let mut out: Vec<Endpoint> =
        owners.iter().map(|(&address, pod)| Endpoint::Pod { key: pod.key.clone(), address }).collect();
    let mut known: BTreeSet<IpAddr> = owners.into_keys().collect();
    for node in cluster.nodes.values() {
        let new = node.addresses.iter().filter(|a| known.insert(**a));
        out.extend(new.map(|&address| Endpoint::Node { name: node.name.clone(), address }));
    }
    let learned = cluster.learned.values().flat_map(|learned| learned.addresses.iter());
    let outside = EXTERNALS.into_iter().chain(boundaries(cluster)).chain(learned);
    out.extend(outside.filter(|a| known.insert(*a)).map(Endpoint::External));
    out
}

fn rules(cluster: &Cluster) -> impl Iterator<Item = &Rule> {
    cluster.policies.values().flat_map(|p| Direction::BOTH.into_iter().filter_map(|d| p.rules(d))).flatten()
}

/// Returns the first and the last address of every CIDR and exception, and the adjacent addresses outside.
fn boundaries(cluster: &Cluster) -> BTreeSet<IpAddr> {
    let mut out = BTreeSet::new();
    for entry in rules(cluster).filter_map(|r| r.peers.as_ref()).flatten() {
        let Peer::Block(block) = &entry.peer else { continue };
        for net in std::iter::once(&block.cidr).chain(block.except.iter()) {
            let (family, range) = (Family::of_net(net), IpRange::of_net(net));
            let (first, last) = (to_number(range.first), to_number(range.last));
            out.extend([range.first, range.last]);
            out.extend(first.checked_sub(1).map(|n| from_number(family, n)));
            out.extend((last < max_number(family)).then(|| from_number(family, last + 1)));
        }
    }
    out
}

/// Returns every relevant protocol and port: declared container ports and both sides of every range boundary, for each
/// of the three protocols, and one protocol without ports (ICMP).
#[must_use]
pub fn traffic(cluster: &Cluster) -> Vec<(Protocol, u16)> {
    let mut ports: BTreeSet<u16> = BTreeSet::from([80]);
    ports.extend(cluster.pods.values().flat_map(|p| p.ports.iter().map(|c| c.port)));
    for entry in rules(cluster).filter_map(|r| r.ports.as_ref()).flatten() {
        if let PortMatch::Numbers { first, last, .. } = entry.port {
            ports.extend([first.saturating_sub(1), first, last, last.saturating_add(1)]);
        }
    }
    let with_ports = Protocol::WITH_PORTS.into_iter().flat_map(|p| ports.iter().map(move |n| (p, *n)));
    with_ports.chain([(Protocol::Other(1), 0)]).collect()
}

/// Returns `n` flows between [`endpoints`] of one family with [`traffic`] of the cluster; none if there are no
/// endpoints. A few go from a pod to itself, directly or through a service (SEMANTICS A41, G-6).
#[must_use]
pub fn flows(rng: &mut Rng, cluster: &Cluster, n: usize) -> Vec<Flow> {
    let (endpoints, traffic) = (endpoints(cluster), traffic(cluster));
    let families =
        Family::BOTH.map(|f| endpoints.iter().filter(|e| Family::of(e.address()) == f).collect::<Vec<_>>());
    if endpoints.is_empty() {
        return Vec::new();
    }
    (0..n)
        .map(|_| {
            let first = &endpoints[rng.usize(..endpoints.len())];
            let peers = &families[usize::from(first.address().is_ipv6())];
            let second = peers[rng.usize(..peers.len())];
            let (source, destination) = if rng.bool() { (first, second) } else { (second, first) };
            let destination = if rng.usize(..40) == 0 { source } else { destination };
            let (protocol, port) = traffic[rng.usize(..traffic.len())];
            Flow {
                source: source.clone(),
                destination: destination.clone(),
                protocol,
                port,
                through_service: rng.usize(..4) == 0,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Shape, cluster, seeds};

    #[test]
    fn flows_meet_every_kind_of_end() {
        let mut kinds = BTreeSet::new();
        for seed in seeds(0..20) {
            let rng = &mut Rng::with_seed(seed);
            let c = cluster(rng, &Shape::medium());
            for flow in flows(rng, &c, 200) {
                assert_eq!(Family::of(flow.source.address()), Family::of(flow.destination.address()));
                for (end, which) in [(&flow.source, "source"), (&flow.destination, "destination")] {
                    kinds.insert(match end {
                        Endpoint::Pod { key, address } => {
                            assert_eq!(c.pod_at(*address).map(|p| &p.key), Some(key), "seed {seed}");
                            (which, "pod")
                        }
                        Endpoint::Node { .. } => (which, "node"),
                        Endpoint::External(_) => (which, "external"),
                    });
                }
                if flow.source == flow.destination {
                    kinds.insert((
                        "itself",
                        if flow.through_service { "through a service" } else { "directly" },
                    ));
                }
            }
        }
        assert_eq!(kinds.len(), 8, "{kinds:?}");
    }
}

//! Property test of unknown addresses: what is certain, and what is undecided, equals the reference at every address that
//! the blocks of policies distinguish within the possible ranges.

mod support;

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use palisade_analysis::{ConnectionEnd, Connections, ConnectionsOptions, GroupBy, Judge, diff};
use palisade_policy::{
    Cluster, Direction, Endpoint, Family, Flow, IpRange, Name, ObjectKey, Peer, Traffic, Verdict,
    address::{from_number, max_number, to_number, union, without},
    walk::walk,
};
use palisade_testkit::{Rng, Shape, flows};
use support::{cases, hold};

/// The addresses at which some block begins or has ended, and the last one of each block.
fn edges(cluster: &Cluster) -> Vec<IpAddr> {
    let mut found = BTreeSet::new();
    for policy in cluster.policies.values() {
        let rules = Direction::BOTH.into_iter().filter_map(|d| policy.rules(d)).flatten();
        let peers = rules.flat_map(|rule| rule.peers.iter().flatten());
        let blocks = peers.filter_map(|entry| match &entry.peer {
            Peer::Block(block) => Some(block.ranges()),
            Peer::Pods(_) | Peer::Nodes(_) | Peer::DomainName(_) => None,
        });
        for range in blocks.flatten() {
            let family = Family::of(range.first);
            found.extend([range.first, range.last]);
            let next = to_number(range.last).checked_add(1).filter(|n| *n <= max_number(family));
            found.extend(next.map(|n| from_number(family, n)));
        }
    }
    found.into_iter().collect()
}

/// Some ranges between the edges, without the addresses of pods and nodes.
fn possible(rng: &mut Rng, cluster: &Cluster, edges: &[IpAddr], family: Family) -> Arc<[IpRange]> {
    let own: Vec<IpAddr> = edges.iter().copied().filter(|a| Family::of(*a) == family).collect();
    let mut ranges = Vec::new();
    for _ in 0..rng.u32(1..4) {
        let mut pick = || match own.is_empty() || rng.u32(0..4) == 0 {
            true => from_number(family, rng.u128(0..=max_number(family))),
            false => own[rng.usize(0..own.len())],
        };
        let (a, b) = (pick(), pick());
        ranges.push(IpRange { first: a.min(b), last: a.max(b) });
    }
    let held = cluster.pods.values().flat_map(|p| &p.addresses);
    let held = held.chain(cluster.nodes.values().flat_map(|n| &n.addresses));
    let held: Vec<IpRange> = held.map(|a| IpRange { first: *a, last: *a }).collect();
    let free: Vec<IpRange> =
        union(ranges).into_iter().flat_map(|r| without(r, held.iter().copied())).collect();
    if free.is_empty() { vec![IpRange::whole(family)].into() } else { free.into() }
}

/// Makes the addresses of some pods and nodes unknown.
fn forget(rng: &mut Rng, cluster: &Cluster) -> Cluster {
    let edges = edges(cluster);
    let mut out = cluster.clone();
    let mut number = 0;
    let pods: BTreeSet<ObjectKey> = cluster.pods.keys().filter(|_| rng.bool()).cloned().collect();
    let nodes: BTreeSet<Name> = cluster.nodes.keys().filter(|_| rng.u32(0..4) == 0).cloned().collect();
    let mut unknown = |address: &mut IpAddr, addressing: &mut palisade_policy::Addressing| {
        number += 1;
        let family = Family::of(*address);
        let first = if family == Family::V4 { 0 } else { 0x0100 << 112 };
        *address = from_number(family, first + number);
        addressing.add_placeholder(*address, possible(rng, cluster, &edges, family));
    };
    let addressing = &mut out.addressing;
    out.pods.edit(|pod| {
        if pods.contains(&pod.key) && !pod.host_network {
            pod.addresses.iter_mut().for_each(|address| unknown(address, addressing));
        }
    });
    for node in out.nodes.values_mut().filter(|node| nodes.contains(&node.name)) {
        node.addresses.iter_mut().for_each(|address| unknown(address, addressing));
    }
    out
}

/// Returns addresses of an endpoint that stand for all of its possible ones.
fn samples(cluster: &Cluster, edges: &[IpAddr], end: &Endpoint) -> Vec<Endpoint> {
    let possible = cluster.addressing.possible(end.address());
    let possible = possible.filter(|_| !matches!(end, Endpoint::External(_)));
    let Some(possible) = possible else { return vec![end.clone()] };
    let inside = edges.iter().copied().filter(|a| possible.iter().any(|range| range.contains(*a)));
    let addresses: BTreeSet<IpAddr> = possible.iter().map(|range| range.first).chain(inside).collect();
    let at = |address| match end {
        Endpoint::Pod { key, .. } => Endpoint::Pod { key: key.clone(), address },
        Endpoint::Node { name, .. } => Endpoint::Node { name: name.clone(), address },
        Endpoint::External(_) => Endpoint::External(address),
    };
    addresses.into_iter().map(at).collect()
}

/// The traffic that is allowed at all possible addresses, and at some.
fn bounds(cluster: &Cluster, edges: &[IpAddr], source: &Endpoint, target: &Endpoint) -> (Traffic, Traffic) {
    let side = |direction| {
        let (sources, targets) = match direction {
            Direction::Egress => (vec![source.clone()], samples(cluster, edges, target)),
            Direction::Ingress => (samples(cluster, edges, source), vec![target.clone()]),
        };
        let pairs = sources.iter().flat_map(|s| targets.iter().map(move |t| (s, t)));
        let allowed = pairs.map(|(s, t)| walk(cluster, s, t, false, direction, &Traffic::all()).allowed());
        allowed
            .fold((Traffic::all(), Traffic::none()), |(all, some), t| (all.intersection(&t), some.union(&t)))
    };
    let (sent, received) = (side(Direction::Egress), side(Direction::Ingress));
    (sent.0.intersection(&received.0), sent.1.intersection(&received.1))
}

#[test]
fn certain_and_undecided_traffic_equal_the_reference_at_every_address() {
    hold(cases(250), &Shape::tiered(), |cluster, rng| {
        let cluster = forget(rng, cluster);
        let edges = edges(&cluster);
        for only_denied in [false, true] {
            let options =
                ConnectionsOptions { group_by: GroupBy::Pod, only_denied, ..ConnectionsOptions::default() };
            let connections = Connections::new(&cluster, &options);
            let endpoint = |end: usize, family: Family| match connections.end(end) {
                ConnectionEnd::Pod { key, .. } => {
                    let address = cluster.pods.get(key)?.address(family)?;
                    Some(Endpoint::Pod { key: key.clone(), address })
                }
                ConnectionEnd::External(e) if e.family == family => {
                    Some(Endpoint::External(e.ranges.first()?.first))
                }
                _ => None,
            };
            let mut found: HashMap<(usize, usize, Family), [Traffic; 2]> = HashMap::new();
            for edge in connections.edges() {
                for family in Family::BOTH.into_iter().filter(|f| edge.families.contains(*f)) {
                    found.entry((edge.from, edge.to, family)).or_default()[0] = edge.traffic.clone();
                }
            }
            for edge in connections.undecided() {
                for family in Family::BOTH.into_iter().filter(|f| edge.families.contains(*f)) {
                    found.entry((edge.from, edge.to, family)).or_default()[1] = edge.traffic.clone();
                }
            }
            let count = connections.ends().len();
            for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
                let pods = [from, to].map(|end| connections.end(end).is_pods());
                if from == to || pods == [false, false] {
                    continue;
                }
                for family in Family::BOTH {
                    let (Some(source), Some(target)) = (endpoint(from, family), endpoint(to, family)) else {
                        continue;
                    };
                    let (certain, some) = bounds(&cluster, &edges, &source, &target);
                    let decided =
                        if only_denied { Traffic::all().difference(&some) } else { certain.clone() };
                    let expected = [decided, some.difference(&certain)];
                    let got = found.remove(&(from, to, family)).unwrap_or_default();
                    // An address of several pods belongs to one of them only.
                    let owned = |end: &Endpoint| match end {
                        Endpoint::Pod { key, address } => {
                            cluster.addressing.is_placeholder(*address)
                                || cluster.pod_at(*address).is_some_and(|pod| pod.key == *key)
                        }
                        _ => true,
                    };
                    if owned(&source) && owned(&target) && got != expected {
                        return Err(format!("{source} → {target}: {got:?} instead of {expected:?}"));
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn judgements_of_flows_equal_the_reference_at_every_address() {
    hold(cases(250), &Shape::tiered(), |cluster, rng| {
        let cluster = forget(rng, cluster);
        let edges = edges(&cluster);
        let judge = Judge::new(&cluster);
        for flow in flows(rng, &cluster, 12) {
            let mut verdicts = BTreeSet::new();
            for source in samples(&cluster, &edges, &flow.source) {
                for destination in samples(&cluster, &edges, &flow.destination) {
                    let at = Flow { source: source.clone(), destination, ..flow.clone() };
                    verdicts.insert(palisade_policy::reference::decide(&cluster, &at).verdict());
                }
            }
            let expected: Vec<Verdict> = verdicts.into_iter().collect();
            let judgement = judge.decide(&flow);
            match (&expected[..], judgement.verdict()) {
                ([only], Some(verdict)) if *only == verdict => {}
                ([_, _], None) if judgement.questions().next().is_some() => {}
                (_, got) => return Err(format!("{flow:?}: {got:?} instead of {expected:?}")),
            }
        }
        Ok(())
    });
}

/// A cluster has no differences with itself, even if much of it is undecided.
#[test]
fn equal_clusters_have_no_undecided_differences() {
    hold(cases(60), &Shape::tiered(), |cluster, rng| {
        let cluster = forget(rng, cluster);
        let found = diff(&cluster, &cluster);
        match found.changes.is_empty() && found.undecided.is_empty() {
            true => Ok(()),
            false => Err(format!("{:?} {:?}", found.changes, found.undecided)),
        }
    });
}

//! Property tests of connections: they equal the verdicts of the reference for every pair of ends.
//!
//! `PALISADE_CASES` sets the number of random clusters for each test.

#[path = "support/pairs.rs"]
mod ends;
mod support;

use std::collections::{BTreeMap, BTreeSet};

use ends::{is_allowed, on_its_own_node};
use palisade_analysis::{ConnectionEnd, Connections, ConnectionsOptions, EndFilter, Families, GroupBy};
use palisade_policy::{
    Cluster, Direction, Endpoint, Family, IpRange, Peer, Pod, Protocol, Traffic,
    address::{from_number, to_number, union, without},
};
use palisade_testkit::{Rng, Shape, Style, cluster, endpoints, flows, seeds, traffic};
use support::{cases, hold};

fn all(group_by: GroupBy) -> ConnectionsOptions {
    ConnectionsOptions { group_by, nodes: true, ..ConnectionsOptions::default() }
}

/// The traffic by ends and family.
fn traffic_by_pair(connections: &Connections) -> BTreeMap<(usize, usize, Family), Traffic> {
    let mut out = BTreeMap::new();
    for edge in connections.edges() {
        for family in Family::BOTH.into_iter().filter(|f| edge.families.contains(*f)) {
            let before = out.insert((edge.from, edge.to, family), edge.traffic.clone());
            assert!(before.is_none(), "two edges for one pair and family");
        }
    }
    out
}

/// Returns the only end that contains `at`, as the other end sees it.
fn end(connections: &Connections, at: &Endpoint, as_own_node: bool) -> Result<usize, String> {
    let found: Vec<usize> = connections
        .ends()
        .enumerate()
        .filter(|(_, e)| match at {
            Endpoint::Pod { key, .. } => e.holds_pod(key),
            Endpoint::Node { name, address } => {
                e.holds_node(name, *address) && matches!(e, ConnectionEnd::OwnNode(_)) == as_own_node
            }
            Endpoint::External(address) => e.holds_external(*address),
        })
        .map(|(i, _)| i)
        .collect();
    match found[..] {
        [one] => Ok(one),
        _ => Err(format!("{at} is in {} ends", found.len())),
    }
}

/// Every pair of different endpoints that share a family, of which at least one is a pod.
fn pairs(cluster: &Cluster) -> Vec<(Endpoint, Endpoint)> {
    let ends = endpoints(cluster);
    let pod = |at: &Endpoint| if let Endpoint::Pod { key, .. } = at { Some(key.clone()) } else { None };
    let mut out = Vec::new();
    for source in &ends {
        for target in ends.iter().filter(|t| Family::of(t.address()) == Family::of(source.address())) {
            if (pod(source).is_some() || pod(target).is_some()) && pod(source) != pod(target) {
                out.push((source.clone(), target.clone()));
            }
        }
    }
    out
}

fn agrees(cluster: &Cluster, group_by: GroupBy, rng: &mut Rng) -> Result<(), String> {
    let connections = Connections::new(cluster, &all(group_by));
    let (traffic_by_pair, ports) = (traffic_by_pair(&connections), traffic(cluster));
    for (source, target) in pairs(cluster) {
        let from = end(&connections, &source, on_its_own_node(cluster, &source, &target))?;
        let to = end(&connections, &target, false)?;
        let nothing = Traffic::none();
        let allowed = traffic_by_pair.get(&(from, to, Family::of(source.address()))).unwrap_or(&nothing);
        for _ in 0..5 {
            let (protocol, port) = ports[rng.usize(..ports.len())];
            let expected = is_allowed(cluster, &source, &target, protocol, port);
            if allowed.contains(protocol, port) != expected {
                return Err(format!(
                    "{source} to {target}, {protocol} {port}: reference {expected}, edge {allowed}"
                ));
            }
        }
    }
    Ok(())
}

#[test]
fn workloads_agree_with_the_reference_for_every_pair() {
    hold(cases(400), &Shape::strange(), |c, rng| agrees(c, GroupBy::Workload, rng));
    hold(cases(400), &Shape::tiered(), |c, rng| agrees(c, GroupBy::Workload, rng));
    hold(cases(200), &Shape::with_domain_names(), |c, rng| agrees(c, GroupBy::Workload, rng));
}

#[test]
fn pods_and_classes_agree_with_the_reference_for_every_pair() {
    hold(cases(200), &Shape::tiered(), |c, rng| agrees(c, GroupBy::Pod, rng));
    hold(cases(200), &Shape::tiered(), |c, rng| agrees(c, GroupBy::Class, rng));
    hold(cases(15), &Shape::medium(), |c, rng| agrees(c, GroupBy::Class, rng));
}

/// Tests sampled flows of a production-like cluster, which is too large for all pairs.
#[test]
fn a_production_cluster_agrees_with_the_reference() {
    let (mut allowed, mut denied) = (0, 0);
    for seed in seeds(0..3) {
        let rng = &mut Rng::with_seed(seed);
        let world = cluster(rng, &Shape::realistic(1_000, 250));
        let connections = Connections::new(&world, &all(GroupBy::Workload));
        assert!(connections.classes() < 200, "{} classes for 20 workloads", connections.classes());
        let traffic_by_pair = traffic_by_pair(&connections);
        for flow in flows(rng, &world, 800) {
            let (source, target) = (&flow.source, &flow.destination);
            let no_pod = ![source, target].iter().any(|e| matches!(e, Endpoint::Pod { .. }));
            if no_pod || source == target {
                continue;
            }
            let from = end(&connections, source, on_its_own_node(&world, source, target)).unwrap();
            let to = end(&connections, target, false).unwrap();
            let visible = traffic_by_pair.get(&(from, to, Family::of(source.address())));
            let visible = visible.is_some_and(|t| t.contains(flow.protocol, flow.port));
            assert_eq!(
                visible,
                is_allowed(&world, source, target, flow.protocol, flow.port),
                "seed {seed}: {flow:?}"
            );
            allowed += usize::from(visible);
            denied += usize::from(!visible);
        }
    }
    assert!(allowed > 10 && denied > 10, "{allowed} allowed, {denied} denied");
}

/// Pods to which no policy applies are listed once, and are no ends.
#[test]
fn unaffected_pods_are_listed() {
    let mut seen = 0;
    for seed in seeds(0..100) {
        let world = cluster(&mut Rng::with_seed(seed), &Shape::medium());
        let connections = Connections::new(&world, &all(GroupBy::Pod));
        for unaffected in connections.unaffected_pods() {
            let pod = &world.pods[&unaffected.pod];
            assert!(!pod.is_running() && !connections.ends().any(|e| e.holds_pod(&pod.key)));
            assert_eq!(unaffected.host_network_of.is_some(), pod.host_network && pod.node.is_some());
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn namespaces_have_the_traffic_of_some_pair_and_whether_all_pairs_have_it() {
    hold(cases(150), &Shape::tiered(), |cluster, rng| {
        let connections = Connections::new(cluster, &all(GroupBy::Namespace));
        let (traffic_by_pair, ports) = (traffic_by_pair(&connections), traffic(cluster));
        let exact: BTreeMap<_, _> = connections.edges().map(|e| ((e.from, e.to), e.exact)).collect();
        for _ in 0..4 {
            let (protocol, port) = ports[rng.usize(..ports.len())];
            let mut some: BTreeMap<(usize, usize, Family), BTreeSet<bool>> = BTreeMap::new();
            for (source, target) in pairs(cluster) {
                let from = end(&connections, &source, on_its_own_node(cluster, &source, &target))?;
                let to = end(&connections, &target, false)?;
                let family = Family::of(source.address());
                let expected = is_allowed(cluster, &source, &target, protocol, port);
                some.entry((from, to, family)).or_default().insert(expected);
            }
            for (key, expected) in some {
                let visible = traffic_by_pair.get(&key).is_some_and(|t| t.contains(protocol, port));
                if visible != expected.contains(&true) {
                    return Err(format!("{key:?} {protocol} {port}: visible {visible}, pairs {expected:?}"));
                }
                if expected.len() == 2 && exact.get(&(key.0, key.1)) != Some(&false) {
                    return Err(format!("{key:?} claims to hold for all pairs"));
                }
            }
        }
        Ok(())
    });
}

/// Denied traffic is the complement of allowed traffic, for the pairs that exist.
#[test]
fn denied_traffic_is_the_complement() {
    hold(cases(200), &Shape::tiered(), |cluster, _| {
        let allowed = Connections::new(cluster, &all(GroupBy::Workload));
        let denied =
            Connections::new(cluster, &ConnectionsOptions { only_denied: true, ..all(GroupBy::Workload) });
        let (yes, no) = (traffic_by_pair(&allowed), traffic_by_pair(&denied));
        let nothing = Traffic::none();
        for from in 0..allowed.ends().len() {
            for to in 0..allowed.ends().len() {
                for edge in allowed.between(from, to) {
                    for family in Family::BOTH.into_iter().filter(|f| edge.families.contains(*f)) {
                        let key = (from, to, family);
                        let (y, n) = (yes.get(&key).unwrap_or(&nothing), no.get(&key).unwrap_or(&nothing));
                        if !y.intersection(n).is_none() || !y.union(n).is_all() {
                            return Err(format!("{key:?}: allowed {y}, denied {n}"));
                        }
                    }
                }
            }
        }
        Ok(())
    });
}

fn boundaries(cluster: &Cluster) -> BTreeSet<std::net::IpAddr> {
    let mut out = BTreeSet::new();
    let rules =
        cluster.policies.values().flat_map(|p| Direction::BOTH.into_iter().filter_map(|d| p.rules(d)));
    for entry in rules.flatten().filter_map(|r| r.peers.as_ref()).flatten() {
        if let Peer::Block(block) = &entry.peer {
            for net in block.except.iter().chain([&block.cidr]) {
                let range = IpRange::of_net(net);
                out.extend([range.first, range.last]);
            }
        }
    }
    out
}

/// External ends contain each address once that no pod and no node has, and are only divided by policies.
#[test]
fn external_ranges_partition_the_addresses_outside() {
    hold(cases(400), &Shape::tiered(), |cluster, _| {
        let connections = Connections::new(cluster, &ConnectionsOptions::default());
        let cuts = boundaries(cluster);
        let running = cluster.pods.values().filter(|pod| pod.is_running() || pod.host_network);
        let inside = running.flat_map(|pod| &pod.addresses);
        let inside = inside.chain(cluster.nodes.values().flat_map(|node| &node.addresses));
        let inside: Vec<IpRange> = inside.map(|a| IpRange { first: *a, last: *a }).collect();
        for family in Family::BOTH {
            let externals = connections.ends().filter_map(|end| match end {
                ConnectionEnd::External(e) if e.family == family => Some(e),
                _ => None,
            });
            let externals: Vec<_> = externals.collect();
            let mut ranges: Vec<IpRange> = externals.iter().flat_map(|e| &e.ranges).copied().collect();
            ranges.sort_unstable();
            if ranges.windows(2).any(|pair| pair[0].last >= pair[1].first) {
                return Err(format!("two ends of {family} overlap"));
            }
            if union(ranges) != without(IpRange::whole(family), inside.iter().copied()) {
                return Err(format!("the ends of {family} are not what is outside"));
            }
            for range in externals.iter().flat_map(|e| &e.spanned) {
                let first = to_number(range.first);
                let cut_before = first == 0
                    || cuts.contains(&range.first)
                    || cuts.contains(&from_number(family, first - 1));
                if !cut_before {
                    return Err(format!("no policy has a boundary at {range}"));
                }
            }
        }
        Ok(())
    });
}

/// The same objects in files with other names, with rules, peers and ports in another order.
fn reordered(cluster: &Cluster, rng: &mut Rng) -> Cluster {
    let mut out = cluster.clone();
    for policy in out.policies.values_mut() {
        // The order of cluster-wide rules is significant.
        let ordered = policy.tier != palisade_policy::Tier::Developer;
        let policy = std::sync::Arc::make_mut(policy);
        for rules in [&mut policy.ingress, &mut policy.egress].into_iter().flatten() {
            if !ordered {
                rng.shuffle(rules);
            }
            for rule in rules {
                rule.peers.iter_mut().for_each(|p| rng.shuffle(p));
                rule.ports.iter_mut().for_each(|p| rng.shuffle(p));
            }
        }
    }
    out.pods.edit(|pod| {
        let mut ports = pod.ports.to_vec();
        rng.shuffle(&mut ports);
        pod.ports = ports.into();
        rng.shuffle(&mut pod.addresses);
    });
    out
}

#[test]
fn the_order_of_objects_does_not_matter() {
    let print = |c: &Cluster, group_by| {
        let connections = Connections::new(c, &all(group_by));
        let endpoints: Vec<String> = connections.ends().map(|e| format!("{e:?}")).collect();
        let edges: Vec<String> = connections.edges().map(|e| format!("{e:?}")).collect();
        (endpoints, edges)
    };
    for shape in [Shape::tiered(), Shape { style: Style::Buildable, ..Shape::medium() }] {
        hold(cases(120), &shape, |cluster, rng| {
            let other = reordered(cluster, rng);
            for group_by in [GroupBy::Workload, GroupBy::Pod, GroupBy::Namespace, GroupBy::Class] {
                if print(cluster, group_by) != print(&other, group_by) {
                    return Err(format!("{group_by:?} depends on the order"));
                }
            }
            Ok(())
        });
    }
}

/// A filter selects a part of the whole answer, and exactly the external addresses in its ranges.
#[test]
fn a_filter_selects_a_part_of_the_answer() {
    hold(cases(150), &Shape::tiered(), |cluster, rng| {
        let at = &palisade_testkit::EXTERNALS[rng.usize(..5)];
        let near = |n: u128| from_number(Family::of(*at), n);
        let range = IpRange { first: *at, last: near(to_number(*at) + 3) };
        let pods: BTreeSet<_> = cluster.pods.keys().take(2).cloned().collect();
        let chosen = EndFilter { pods: pods.clone(), ranges: vec![range], ..EndFilter::default() };
        let only = Traffic::of(Protocol::Tcp, palisade_policy::PortSet::range(80, 90));
        let options =
            ConnectionsOptions { from: Some(chosen), traffic: Some(only.clone()), ..all(GroupBy::Workload) };
        let (whole, part) =
            (Connections::new(cluster, &all(GroupBy::Workload)), Connections::new(cluster, &options));
        let whole_table = traffic_by_pair(&whole);
        for edge in part.edges() {
            match part.end(edge.from) {
                ConnectionEnd::Workload(w)
                    if pods.iter().any(|p| p.namespace == w.namespace && w.pods.contains(&p.name)) => {}
                ConnectionEnd::External(e)
                    if e.ranges.iter().all(|r| range.contains(r.first) && range.contains(r.last)) => {}
                other => return Err(format!("{other} was not requested")),
            }
            let same = |e: &ConnectionEnd| match e {
                ConnectionEnd::External(e) => end(&whole, &Endpoint::External(e.ranges[0].first), false),
                other => whole.ends().position(|o| o == other).ok_or_else(|| format!("{other} is new")),
            };
            let (from, to) = (same(part.end(edge.from))?, same(part.end(edge.to))?);
            for family in Family::BOTH.into_iter().filter(|f| edge.families.contains(*f)) {
                let expected = whole_table.get(&(from, to, family)).map(|t| t.intersection(&only));
                if expected.as_ref() != Some(edge.traffic) {
                    return Err(format!("{from} to {to}: {expected:?}, visible {}", edge.traffic));
                }
            }
        }
        Ok(())
    });
}

#[test]
fn families_have_separate_edges_if_their_traffic_differs() {
    let mut seen = BTreeSet::new();
    for seed in seeds(0..80) {
        let world = cluster(&mut Rng::with_seed(seed), &Shape::medium());
        seen.extend(Connections::new(&world, &ConnectionsOptions::default()).edges().map(|e| e.families));
    }
    let families = |v4, v6| Families { v4, v6 };
    assert_eq!(seen, BTreeSet::from([families(true, true), families(true, false), families(false, true)]));
}

#[test]
fn a_workload_with_different_pods_has_several_ends() {
    let mut split = 0;
    for seed in seeds(0..40) {
        let world = cluster(&mut Rng::with_seed(seed), &Shape::medium());
        let connections = Connections::new(&world, &ConnectionsOptions::default());
        let mut pods = BTreeSet::new();
        for endpoint in connections.ends() {
            if let ConnectionEnd::Workload(w) = endpoint {
                split += usize::from(!w.whole);
                for pod in &w.pods {
                    assert!(pods.insert((w.namespace.clone(), pod.clone())), "a pod is in two ends");
                }
            }
        }
        let owners =
            world.pods.values().filter(|p| p.is_running()).filter(|p: &&Pod| {
                p.addresses.iter().any(|a| world.pod_at(*a).is_some_and(|o| o.key == p.key))
            });
        assert_eq!(pods.len(), owners.count());
    }
    assert!(split > 40, "{split}");
}

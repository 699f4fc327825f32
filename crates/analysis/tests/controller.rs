//! Property tests of forwarded traffic: it equals what the reference allows to a pod like the controller, for each
//! port.

mod support;

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
};

use palisade_analysis::{ConnectionEnd, Connections, ConnectionsOptions, ControllerRoutes, GroupBy};
use palisade_names::{PortSpec, Route, RouteBackend, RoutePort, route_backends};
use palisade_policy::{
    Cluster, Endpoint, Family, Flow, Labels, Namespace, ObjectKey, Pod, PortSet, Protocol, Selector, Service,
    ServicePort, TargetPort, Traffic,
    address::{from_number, max_number},
    reference,
};
use palisade_testkit::{Rng, Shape, traffic};
use support::{cases, hold};

/// Adds services that select random labels, and routes to some of their ports.
fn with_routes(cluster: &Cluster, rng: &mut Rng) -> (Cluster, Vec<Route>) {
    let mut world = cluster.clone();
    let ports = traffic(cluster);
    let pods: Vec<&Pod> = cluster.pods.values().collect();
    let mut routes = Vec::new();
    for n in 0..rng.usize(1..5) {
        let Some(pod) = (!pods.is_empty()).then(|| pods[rng.usize(..pods.len())]) else { break };
        let labels: Vec<_> = pod.labels.iter().take(rng.usize(1..3)).collect();
        let selector = Selector::of_labels(labels.iter().map(|(k, v)| (&***k, &***v)));
        let key = ObjectKey::new(pod.key.namespace.clone(), format!("routed-{n}"));
        let tcp: Vec<u16> = ports.iter().filter(|(p, _)| *p == Protocol::Tcp).map(|(_, n)| *n).collect();
        let target = match pod.ports.iter().find_map(|p| p.name.clone()).filter(|_| rng.bool()) {
            Some(name) => TargetPort::Name(name),
            None => TargetPort::Number(*tcp.first().unwrap_or(&80)),
        };
        let port = ServicePort {
            name: Some("p".into()),
            protocol: Protocol::Tcp,
            port: 80,
            target,
            node_port: None,
        };
        let other = ServicePort {
            name: None,
            protocol: Protocol::Tcp,
            port: 81,
            target: TargetPort::Number(tcp[rng.usize(..tcp.len())].max(1)),
            node_port: None,
        };
        let service =
            Service { selector: Some(selector), ports: vec![port, other], ..Service::new(key.clone()) };
        world.services.insert(key.clone(), service);
        let port = match rng.usize(..3) {
            0 => RoutePort::Any,
            1 => RoutePort::Service(PortSpec::Number(81)),
            _ => RoutePort::Service(PortSpec::Name("p".into())),
        };
        let backend = RouteBackend { service: key.clone(), port, protocol: Protocol::Tcp };
        routes.push(Route {
            kind: "Ingress".into(),
            key,
            class: None,
            backends: vec![backend],
            origin: None,
        });
    }
    (world, routes)
}

/// Returns the ports of a pod that routes require, with the index of the route.
fn required(world: &Cluster, routes: &[Route], pod: &ObjectKey) -> Vec<(usize, u16)> {
    let mut out = Vec::new();
    for (number, route) in routes.iter().enumerate() {
        for backend in &route.backends {
            let found = route_backends(world, backend).into_iter().flatten();
            out.extend(found.filter(|b| b.pod.key == *pod).map(|b| (number, b.port)));
        }
    }
    out
}

/// A pod that no policy refers to, at an address in no block, if there is one: the last one of the family, or the first
/// that no policy mentions.
fn unknown_pod(world: &Cluster, address: std::net::IpAddr) -> (Cluster, Endpoint) {
    let mut world = world.clone();
    world.namespaces.insert("?".into(), Namespace::new("?", &Labels::default()));
    let key = ObjectKey::new("?", "?");
    let pod = Pod::new(key.clone(), Labels::default(), vec![address]);
    world.pods.insert(pod);
    (world, Endpoint::Pod { key, address })
}

/// Returns an address in no block of any policy; `None` if there is none.
fn free_address(world: &Cluster, family: Family, rng: &mut Rng) -> Option<std::net::IpAddr> {
    let blocks: Vec<_> = world
        .policies
        .values()
        .flat_map(|p| {
            [p.ingress.as_ref(), p.egress.as_ref()]
                .into_iter()
                .flatten()
                .flatten()
                .cloned()
                .collect::<Vec<_>>()
        })
        .flat_map(|rule| rule.peers.into_iter().flatten())
        .filter_map(|entry| match entry.peer {
            palisade_policy::Peer::Block(block) => Some(block),
            _ => None,
        })
        .collect();
    (0..200).find_map(|_| {
        let at = from_number(family, rng.u128(..) % max_number(family));
        let taken = world.pods.values().any(|p| p.addresses.contains(&at)) || world.node_at(at).is_some();
        (!taken && !blocks.iter().any(|b| b.contains(at))).then_some(at)
    })
}

fn agrees(
    cluster: &Cluster,
    group_by: GroupBy,
    rng: &mut Rng,
    seen: &[AtomicUsize; 3],
) -> Result<(), String> {
    let (world, routes) = with_routes(cluster, rng);
    let mut controller_routes = ControllerRoutes { routes: routes.clone(), ..ControllerRoutes::default() };
    let known = rng.bool();
    if known && let Some(pod) = world.pods.values().find(|p| p.is_running()) {
        controller_routes.controller = BTreeSet::from([pod.key.clone()]);
    }
    let options = ConnectionsOptions {
        group_by,
        controller_routes: controller_routes.clone(),
        ..ConnectionsOptions::default()
    };
    let denied = ConnectionsOptions { only_denied: true, ..options.clone() };
    let (allowed, denied) = (Connections::new(&world, &options), Connections::new(&world, &denied));
    for pod in world.pods.values().filter(|p| p.is_running()) {
        for address in pod.addresses.iter().filter(|a| world.pod_at(**a).is_some_and(|p| p.key == pod.key)) {
            let family = Family::of(*address);
            let (place, source) = match controller_routes.controller.first() {
                Some(key) if *key == pod.key => continue,
                Some(key) => {
                    let of = |a: &&std::net::IpAddr| {
                        Family::of(**a) == family && world.pod_at(**a).is_some_and(|p| p.key == *key)
                    };
                    let Some(own) = world.pods[key].addresses.iter().find(of) else { continue };
                    (world.clone(), Endpoint::Pod { key: key.clone(), address: *own })
                }
                None => match free_address(&world, family, rng) {
                    Some(free) => unknown_pod(&world, free),
                    None => continue,
                },
            };
            let required = required(&world, &routes, &pod.key);
            let mut expected = [Traffic::none(), Traffic::none()];
            let mut through: [BTreeSet<usize>; 2] = Default::default();
            for (route, port) in required {
                let flow = Flow {
                    source: source.clone(),
                    destination: Endpoint::Pod { key: pod.key.clone(), address: *address },
                    protocol: Protocol::Tcp,
                    port,
                    through_service: false,
                };
                let verdict = reference::decide(&place, &flow).verdict().is_allow();
                let one = Traffic::of(Protocol::Tcp, PortSet::range(port, port));
                let side = usize::from(!verdict);
                expected[side] = expected[side].union(&one);
                through[side].insert(route);
                seen[side].fetch_add(1, Ordering::Relaxed);
            }
            for (answer, (expected, through)) in
                [&allowed, &denied].into_iter().zip(expected.iter().zip(&through))
            {
                let edges: Vec<_> = answer
                    .edges()
                    .filter(|e| matches!(answer.end(e.from), ConnectionEnd::IngressController(_)))
                    .filter(|e| answer.end(e.to).holds_pod(&pod.key) && e.families.contains(family))
                    .collect();
                let found = edges.first().map_or_else(Traffic::none, |e| e.traffic.clone());
                if edges.len() > 1 || found != *expected {
                    return Err(format!(
                        "{} {family}: {found}, not {expected} ({} edges)",
                        pod.key,
                        edges.len()
                    ));
                }
                let by: BTreeSet<usize> = edges.iter().flat_map(|e| e.through.iter().copied()).collect();
                if !through.is_subset(&by) {
                    return Err(format!("{}: through {by:?}, not {through:?}", pod.key));
                }
                seen[2].fetch_add(usize::from(!edges.is_empty()), Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

#[test]
fn forwarded_traffic_equals_the_reference() {
    for group_by in [GroupBy::Workload, GroupBy::Pod, GroupBy::Class] {
        let seen: [AtomicUsize; 3] = Default::default();
        hold(cases(200), &Shape::strange(), |c, rng| agrees(c, group_by, rng, &seen));
        hold(cases(200), &Shape::tiered(), |c, rng| agrees(c, group_by, rng, &seen));
        assert!(seen.iter().all(|n| n.load(Ordering::Relaxed) > 100), "{seen:?}");
    }
}

/// Routes don't change other connections, except that pods with different routes become different ends.
#[test]
fn other_connections_are_unchanged() {
    hold(cases(200), &Shape::tiered(), |cluster, rng| {
        let (world, routes) = with_routes(cluster, rng);
        let by_pod = |controller_routes: ControllerRoutes| {
            let options = ConnectionsOptions {
                group_by: GroupBy::Pod,
                nodes: true,
                controller_routes,
                ..ConnectionsOptions::default()
            };
            let answer = Connections::new(&world, &options);
            let edges = answer.edges().filter(|e| e.through.is_empty());
            let edges = edges.map(|e| {
                (answer.end(e.from).to_string(), answer.end(e.to).to_string(), e.traffic.to_string())
            });
            edges.collect::<Vec<_>>()
        };
        let (without, with) = (
            by_pod(ControllerRoutes::default()),
            by_pod(ControllerRoutes { routes, ..ControllerRoutes::default() }),
        );
        if without == with { Ok(()) } else { Err("the routes changed other connections".to_owned()) }
    });
}

//! Property tests of names and services on random clusters.

use palisade_names::{EndpointKind, Named, PortSpec, Way, find, has_port, service_targets, services_at};
use palisade_policy::{Cluster, Endpoint, Name, Pod, TargetPort};
use palisade_testkit::{Rng, Shape, cluster, seeds};

fn each(mut check: impl FnMut(u64, &Cluster)) {
    for seed in seeds(0..200) {
        check(seed, &cluster(&mut Rng::with_seed(seed), &Shape::tiered()));
    }
}

/// Every object is found by the spelling that messages use.
#[test]
fn objects_are_found_by_their_own_spelling() {
    each(|seed, cluster| {
        for pod in cluster.pods.values() {
            let found = find(cluster, Some(EndpointKind::Pod), &pod.key.namespace, &pod.key.name).unwrap();
            assert_eq!(found, Named::Pod(pod), "seed {seed}");
            assert_eq!(found.to_string(), format!("{}/pod/{}", pod.key.namespace, pod.key.name));
        }
        for service in cluster.services.values() {
            let kind = Some(EndpointKind::Service);
            assert_eq!(
                find(cluster, kind, &service.key.namespace, &service.key.name),
                Ok(Named::Service(service))
            );
        }
    });
}

/// The endpoints of a service are the running pods that it selects, on its target port.
#[test]
fn endpoints_of_a_service_are_pods_that_it_selects() {
    let mut found = 0;
    each(|seed, cluster| {
        for service in cluster.services.values() {
            for address in &service.addresses {
                assert!(
                    services_at(cluster, *address)
                        .iter()
                        .any(|(s, way)| { s.key == service.key && *way == Way::ClusterIp })
                );
            }
            let Ok(behind) = service_targets(cluster, service, None, None) else { continue };
            for target in behind.targets {
                assert!(has_port(service, Some(target.protocol), &PortSpec::Number(target.service_port)));
                // Two protocols may have the same port, and other targets.
                let is_port = |p: &&palisade_policy::ServicePort| {
                    p.port == target.service_port && p.protocol == target.protocol
                };
                let leads = |pod: &Pod| {
                    service.ports.iter().filter(is_port).any(|port| match &port.target {
                        TargetPort::Number(number) => *number == target.port,
                        TargetPort::Name(name) => declares(pod, name, target.port),
                    })
                };
                let selects = |pod: &&Pod| {
                    pod.key.namespace == service.key.namespace
                        && service.selector.as_ref().is_some_and(|s| s.matches(&pod.labels))
                        && pod_is_at(pod, &target.end)
                        && leads(pod)
                };
                assert!(cluster.pods.values().any(|pod| selects(&pod)), "seed {seed}: {target:?}");
                found += 1;
            }
        }
    });
    assert!(found > 20, "{found}");
}

fn pod_is_at(pod: &Pod, end: &Endpoint) -> bool {
    match end {
        Endpoint::Pod { key, .. } => pod.key == *key,
        // The address says on which node a pod is, if nothing else does.
        Endpoint::Node { name, address } => {
            let is_there = pod.node.as_ref() == Some(name) || pod.addresses.contains(address);
            pod.host_network && is_there
        }
        Endpoint::External(address) => pod.host_network && pod.addresses.contains(address),
    }
}

fn declares(pod: &Pod, name: &Name, number: u16) -> bool {
    pod.named_ports(name, None).any(|(_, port)| port == number)
}

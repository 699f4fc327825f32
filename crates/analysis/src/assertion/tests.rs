//! Checks against pods that are tried one by one.

use std::net::IpAddr;

use palisade_policy::{
    Family, Labels, NamespaceMatch, ObjectKey, PodMatch, Selector, address::from_number, address::to_number,
    reference,
};
use palisade_testkit::{Rng, Shape, cluster, running_pod, seeds};

use super::*;

fn everything() -> PodSet {
    let all = NamespaceMatch::Selected(Selector::everything());
    PodSet::of(&PodMatch { namespaces: all, pods: Selector::everything() }).expect("a set")
}

fn existing(cluster: &Cluster, set: &PodSet) -> Vec<Endpoint> {
    let ends = set.existing(cluster).flat_map(|pod| {
        pod.addresses.iter().map(|address| Endpoint::Pod { key: pod.key.clone(), address: *address })
    });
    ends.collect()
}

fn ends(cluster: &Cluster, set: PodSet) -> AssertedEnds {
    AssertedEnds { endpoints: existing(cluster, &set), pods: vec![set], ranges: Vec::new() }
}

/// The sets that the subjects of policies are, and all pods.
fn sets(cluster: &Cluster) -> Vec<PodSet> {
    let subjects = cluster.policies.values().filter_map(|policy| PodSet::of(&policy.subject));
    subjects.chain([everything()]).collect()
}

/// Adds a pod with some labels, at an address that pods may have.
fn tried(cluster: &mut Cluster, namespace: &Name, labels: Labels, number: u128) -> Vec<Endpoint> {
    let key = ObjectKey::new(namespace.clone(), format!("tried{number}"));
    let ranges = witness::pod_ranges(cluster);
    let address = |family: Family| -> Option<IpAddr> {
        let range = ranges.iter().find(|range| Family::of(range.first) == family)?;
        Some(from_number(family, to_number(range.last) - number))
    };
    let addresses: Vec<IpAddr> = Family::BOTH.into_iter().filter_map(address).collect();
    let pod = Pod { labels, addresses: addresses.clone(), key: key.clone(), ..running_pod("x", "y") };
    cluster.pods.insert(pod);
    addresses.into_iter().map(|address| Endpoint::Pod { key: key.clone(), address }).collect()
}

/// All label sets over the labels that selectors of the cluster mention, up to some count.
fn label_sets(rng: &mut Rng, cluster: &Cluster) -> Vec<Labels> {
    let mut known: Vec<(Name, Name)> = Vec::new();
    for pod in cluster.pods.values() {
        known.extend(pod.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    known.sort();
    known.dedup();
    let some = (0..12).map(|_| {
        let all = known.iter().filter(|_| rng.bool());
        all.map(|(key, value)| (key.clone(), value.clone())).collect()
    });
    some.collect()
}

/// No pod that is tried breaks an assertion that holds.
#[test]
fn what_holds_holds_for_every_pod() {
    let (mut held, mut failed) = (0, 0);
    for seed in seeds(0..60) {
        let mut rng = Rng::with_seed(seed);
        let cluster = cluster(&mut rng, &Shape::tiered());
        let sets = sets(&cluster);
        for expect in [Expectation::Deny, Expectation::Allow, Expectation::Only] {
            let (from, to) = (sets[rng.usize(0..sets.len())].clone(), sets[rng.usize(0..sets.len())].clone());
            let port = [80_u16, 443, 8080][rng.usize(0..3)];
            let numbers = Traffic::of(Protocol::Tcp, palisade_policy::PortSet::range(port, port));
            let asked = AskedTraffic { numbers, names: Default::default() };
            let assertion = Assertion {
                from: ends(&cluster, from.clone()),
                to: ends(&cluster, to.clone()),
                asked,
                expect,
            };
            let checked = check(&cluster, &assertion);
            if !checked.counterexamples.is_empty() || checked.too_many {
                failed += 1;
                continue;
            }
            held += usize::from(checked.judged > 0);
            let mut with_pods = cluster.clone();
            let namespaces: Vec<Name> = cluster.namespaces.keys().cloned().collect();
            let mut pods = Vec::new();
            for (number, labels) in (1..).zip(label_sets(&mut rng, &cluster)) {
                pods.extend(tried(
                    &mut with_pods,
                    &namespaces[rng.usize(0..namespaces.len())],
                    labels,
                    number,
                ));
            }
            pods.extend(existing(&cluster, &everything()));
            let within = |end: &Endpoint, set: &PodSet| {
                let Endpoint::Pod { key, .. } = end else { return false };
                let labels = with_pods.namespaces.get(&key.namespace).map(|n| &n.labels);
                with_pods.pods.get(key).is_some_and(|pod| set.contains(pod, labels))
            };
            for source in &pods {
                for destination in pods.iter().filter(|end| within(end, &to)) {
                    let inside = within(source, &from);
                    let meant = if expect == Expectation::Only { !inside } else { inside };
                    let family = |end: &Endpoint| Family::of(end.address());
                    let itself = matches!((source, destination),
                        (Endpoint::Pod { key: a, .. }, Endpoint::Pod { key: b, .. }) if a == b);
                    if !meant || itself || family(source) != family(destination) {
                        continue;
                    }
                    let flow = palisade_policy::Flow {
                        source: source.clone(),
                        destination: destination.clone(),
                        protocol: Protocol::Tcp,
                        port,
                        through_service: false,
                    };
                    let allowed = reference::decide(&with_pods, &flow).verdict().is_allow();
                    assert_eq!(
                        allowed,
                        expect == Expectation::Allow,
                        "seed {seed}: {expect:?} {source} {destination} {port} {:?}",
                        with_pods.pods.get(match source {
                            Endpoint::Pod { key, .. } => key,
                            _ => continue,
                        })
                    );
                }
            }
        }
    }
    assert!(held >= 10 && failed >= 10, "{held} {failed}");
}

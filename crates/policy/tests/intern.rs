//! What is interned is shared, equal and forgotten with its last holder.

use std::sync::Arc;

use palisade_policy::{Interner, Labels, Pod};
use palisade_testkit::{Rng, Shape, cluster, seeds};

/// Whether two label sets are one in memory: their keys are at the same addresses.
fn same_labels(a: &Labels, b: &Labels) -> bool {
    let keys = |labels: &Labels| labels.iter().map(|(key, _)| std::ptr::from_ref(key)).collect::<Vec<_>>();
    keys(a) == keys(b)
}

#[test]
fn two_that_know_one_value_do_not_keep_it_for_each_other() {
    let (source, compiler) = (Interner::default(), Interner::default());
    let labels = source.labels([("app", "web"), ("pod-template-hash", "1")]);
    let name = {
        let pods = cluster(&mut Rng::with_seed(1), &Shape::realistic(1, 0)).pods;
        let pod = Pod { labels, ..pods.into_values().next().unwrap() };
        let pod = compiler.pod(source.pod(pod));
        Arc::downgrade(pod.labels.iter().next().unwrap().1)
    };
    assert!(name.upgrade().is_none(), "the pod is gone");
}

#[test]
fn what_is_interned_is_equal_to_what_was_read() {
    for seed in seeds(0..200) {
        let world = cluster(&mut Rng::with_seed(seed), &Shape::tiered());
        let interner = Interner::default();
        for pod in world.pods.values() {
            assert_eq!(*pod, interner.pod(pod.clone()));
        }
        for policy in world.policies.values() {
            // A policy of its own, which is shared in place.
            assert_eq!(*policy, interner.policy(Arc::new((**policy).clone())));
        }
    }
}

#[test]
fn pods_of_one_workload_hold_the_same_labels_and_ports() {
    let interner = Interner::default();
    let world = cluster(&mut Rng::with_seed(1), &Shape::realistic(50, 1));
    let mut pods = world.pods.values().map(|pod| {
        // As a watch delivers them: nothing shared.
        let labels = pod.labels.iter().map(|(k, v)| (&**k, &**v)).collect();
        interner.pod(Pod { labels, ports: pod.ports.iter().cloned().collect(), ..pod.clone() })
    });
    let first = pods.next().unwrap();
    assert!(pods.all(|pod| same_labels(&pod.labels, &first.labels) && Arc::ptr_eq(&pod.ports, &first.ports)));
}

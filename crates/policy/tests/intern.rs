//! Interned values are shared, equal to the originals, and forgotten with their last user.

use std::sync::Arc;

use palisade_policy::{Interner, Labels, Pod};
use palisade_testkit::{Rng, Shape, cluster, seeds};

/// Returns whether two label sets share their allocation: their keys have the same addresses.
fn same_labels(a: &Labels, b: &Labels) -> bool {
    let keys = |labels: &Labels| labels.iter().map(|(key, _)| std::ptr::from_ref(key)).collect::<Vec<_>>();
    keys(a) == keys(b)
}

#[test]
fn two_interners_do_not_keep_a_value_for_each_other() {
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
fn interned_values_are_equal_to_the_originals() {
    for seed in seeds(0..200) {
        let world = cluster(&mut Rng::with_seed(seed), &Shape::tiered());
        let interner = Interner::default();
        for pod in world.pods.values() {
            assert_eq!(*pod, interner.pod(pod.clone()));
        }
        for policy in world.policies.values() {
            // A policy that only this test holds, so it is shared in place.
            assert_eq!(*policy, interner.policy(Arc::new((**policy).clone())));
        }
    }
}

#[test]
fn pods_of_one_workload_share_labels_and_ports() {
    let interner = Interner::default();
    let world = cluster(&mut Rng::with_seed(1), &Shape::realistic(50, 1));
    let mut pods = world.pods.values().map(|pod| {
        // As from a watch: nothing is shared.
        let labels = pod.labels.iter().map(|(k, v)| (&**k, &**v)).collect();
        interner.pod(Pod { labels, ports: pod.ports.iter().cloned().collect(), ..pod.clone() })
    });
    let first = pods.next().unwrap();
    assert!(pods.all(|pod| same_labels(&pod.labels, &first.labels) && Arc::ptr_eq(&pod.ports, &first.ports)));
}

//! Shared by the benchmarks: the sizes, and the node that is compiled for.

use palisade_policy::Cluster;
use palisade_testkit::{Rng, Shape, cluster};

/// Numbers of pods and policies of the measured clusters.
pub(crate) const SIZES: [(usize, usize); 9] = [
    (1_000, 100),
    (1_000, 1_000),
    (1_000, 10_000),
    (10_000, 100),
    (10_000, 1_000),
    (10_000, 10_000),
    (100_000, 100),
    (100_000, 1_000),
    (100_000, 10_000),
];

/// The node that is compiled for: it has a hundred local pods.
pub(crate) const NODE: &str = "n1";

/// The cluster of one size; the same in every run.
pub(crate) fn world(pods: usize, policies: usize) -> Cluster {
    let world = cluster(&mut Rng::with_seed(1), &Shape::realistic(pods, policies));
    let local = world.pods.values().filter(|p| p.node.as_deref() == Some(NODE)).count();
    assert_eq!((world.pods.len(), world.policies.len(), local), (pods, policies, 100));
    world
}

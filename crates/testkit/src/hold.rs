//! Property tests over random clusters.

use palisade_policy::Cluster;

use crate::{Rng, Shape, cluster, describe, seeds::seeds, shrink};

/// Checks a property on `n` random clusters of a shape, and on one with a fresh seed. `law` gets the cluster and its
/// own random numbers, and returns what is wrong. A cluster that violates it is shrunk with the same random numbers and
/// printed with its seed.
///
/// # Panics
/// If the property doesn't hold.
pub fn hold(n: u64, shape: &Shape, law: impl Fn(&Cluster, &mut Rng) -> Result<(), String>) {
    for seed in seeds(0..n) {
        let world = cluster(&mut Rng::with_seed(seed), shape);
        let check = |c: &Cluster| {
            let run = std::panic::AssertUnwindSafe(|| law(c, &mut Rng::with_seed(!seed)));
            std::panic::catch_unwind(run).unwrap_or_else(|_| Err("it panicked".to_owned()))
        };
        let Err(wrong) = check(&world) else { continue };
        let smallest = shrink(&world, |c| check(c).is_err());
        let still = check(&smallest).expect_err("shrinking keeps the fault");
        panic!("seed {seed}: {wrong}\n--- smallest cluster:\n{}--- in it: {still}", describe(&smallest));
    }
}

//! What the laws of this crate share.

use palisade_policy::{
    Cluster,
    random::{Rng, Shape, cluster, describe, shrink},
};

/// How many random clusters a law runs: `PALISADE_CASES`, else `default`.
pub(crate) fn cases(default: u64) -> u64 {
    match std::env::var("PALISADE_CASES") {
        Ok(text) => text.parse().expect("PALISADE_CASES must be a number"),
        Err(_) => default,
    }
}

/// Holds a law on `n` random clusters of a shape; one that breaks it is shrunk and printed with its seed.
pub(crate) fn hold(n: u64, shape: &Shape, law: impl Fn(&Cluster, &mut Rng) -> Result<(), String>) {
    for seed in 0..n {
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

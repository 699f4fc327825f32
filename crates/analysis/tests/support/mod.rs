//! What the laws of this crate share.

use palisade_policy::{
    Cluster, Endpoint as At, Flow, Protocol,
    random::{Rng, Shape, cluster, describe, shrink},
    reference,
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

pub(crate) fn on_its_own_node(cluster: &Cluster, source: &At, target: &At) -> bool {
    let (At::Node { name, .. }, At::Pod { key, .. }) = (source, target) else { return false };
    cluster.pods[key].node.as_ref() == Some(name)
}

pub(crate) fn says(cluster: &Cluster, source: &At, target: &At, protocol: Protocol, port: u16) -> bool {
    let (source, destination) = (source.clone(), target.clone());
    let flow = Flow { source, destination, protocol, port, through_service: false };
    reference::decide(cluster, &flow).verdict().is_allow()
}

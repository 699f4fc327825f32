//! Computes the difference that one edited policy makes in a production-like cluster, compared with the two answers
//! that it is made of.
//!
//! The baseline consists of both answers and a visit of all pairs of their ends, measured in the same run.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use palisade_analysis::{Connections, ConnectionsOptions, diff};
use palisade_policy::Cluster;
use palisade_testkit::{Rng, Shape, cluster};

/// The number of pods, workloads and policies.
const SIZES: [(usize, usize, usize); 2] = [(10_000, 500, 500), (100_000, 2_000, 1_000)];
/// The number of measurements, of which the fastest counts.
const TIMES: usize = 3;

fn world((pods, workloads, policies): (usize, usize, usize)) -> Cluster {
    let shape = Shape { namespaces: 50..=50, ..Shape::realistic(workloads * 50, policies) };
    let mut world = cluster(&mut Rng::with_seed(1), &shape);
    let per_workload = pods / workloads;
    let mut count = std::collections::HashMap::new();
    world.pods.retain(|pod| {
        let of = count.entry((pod.key.namespace.clone(), pod.workload.clone())).or_insert(0);
        *of += 1;
        *of <= per_workload
    });
    assert_eq!((world.pods.len(), world.policies.len()), (pods, policies));
    world
}

fn fastest<T>(work: impl Fn() -> T) -> (Duration, T) {
    let mut best: Option<(Duration, T)> = None;
    for _ in 0..TIMES {
        let start = Instant::now();
        let done = black_box(work());
        let took = start.elapsed();
        if best.as_ref().is_none_or(|(before, _)| took < *before) {
            best = Some((took, done));
        }
    }
    best.expect("there is at least one measurement")
}

fn main() {
    for size in SIZES {
        let before = world(size);
        let edited = |name: &str, starts: bool| {
            let mut after = before.clone();
            let key = after.policies.keys().find(|k| k.name.starts_with(name) == starts).cloned();
            after.policies.remove(&key.expect("there is one"));
            after
        };
        let baseline = || {
            let answers = [
                Connections::new(&before, &ConnectionsOptions::default()),
                Connections::new(&before, &ConnectionsOptions::default()),
            ];
            answers.iter().map(|a| a.edges().count()).sum::<usize>()
        };
        let (pods, workloads, policies) = size;
        let (base, _) = fastest(baseline);
        eprintln!(
            "{pods} pods, {workloads} workloads, {policies} policies: two answers and a walk over each {base:.0?}"
        );
        for (what, after) in [
            ("nothing", before.clone()),
            ("one policy", edited("default-deny", false)),
            ("a default deny", edited("default-deny", true)),
        ] {
            let (took, found) = fastest(|| diff(&before, &after));
            let ratio = took.as_secs_f64() / base.as_secs_f64();
            eprintln!("  {what} gone: {} changes, {took:.0?}, {ratio:.1} times that", found.changes.len());
        }
    }
}

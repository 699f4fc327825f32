//! Compiles the plan of a node with a hundred local pods: from scratch (the baseline), and one change at a time.
//!
//! A new pod should cost the same for any number of policies, and almost nothing compared with compiling from scratch.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{
    BenchmarkGroup, Criterion, SamplingMode, criterion_group, criterion_main, measurement::WallTime,
};
use palisade_policy::{
    Change, Cluster, Compiler, Labels, NAMESPACE_NAME_LABEL, Namespace, Pod, Policy, PortMatch,
};
use palisade_testkit::{Rng, workload_pod};

mod ground;

/// The number of different changes of one kind, used in turn.
const EDITS: usize = 64;

fn compile(c: &mut Criterion) {
    let mut table = vec!["pods policies  from scratch | median of one change: added, added here, relabelled, policy, namespace".to_owned()];
    for (pods, policies) in ground::SIZES {
        let world = ground::world(pods, policies);
        let mut group = c.benchmark_group(format!("compile/{pods}-pods-{policies}-policies"));
        group
            .sample_size(10)
            .sampling_mode(SamplingMode::Flat)
            .warm_up_time(Duration::from_millis(50))
            .measurement_time(Duration::from_millis(400));
        let mut whole = Vec::new();
        group.bench_function("from-scratch", |b| {
            b.iter_custom(|times| {
                (0..times)
                    .map(|_| {
                        let start = Instant::now();
                        let compiler = Compiler::from_cluster(ground::NODE.into(), black_box(&world));
                        whole.push(start.elapsed());
                        drop(compiler);
                        whole.last().copied().unwrap_or_default()
                    })
                    .sum()
            });
        });
        let mut compiler = Compiler::from_cluster(ground::NODE.into(), &world);
        let mut line = format!("{pods:>6} {policies:>6}  {:>10.2?} |", median(&mut whole));
        for (name, edits) in [
            ("pod-added", pods_added(&world, &compiler, 1)),
            ("pod-added-here", pods_added(&world, &compiler, 0)),
            ("pod-relabelled", pods_relabelled(&world)),
            ("policy-edited", policies_edited(&world)),
            ("namespace-label-edited", namespaces_relabelled(&world)),
        ] {
            let one = incremental(&mut group, name, &mut compiler, &edits);
            line += &format!(" {one:>9.1?}");
        }
        group.finish();
        table.push(line);
    }
    eprintln!("\n{}\n", table.join("\n"));
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Measures each change, and undoes it without measuring.
fn incremental(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    compiler: &mut Compiler,
    edits: &[(Change, Change)],
) -> Duration {
    let mut turn = edits.iter().cycle();
    let mut all = Vec::new();
    group.bench_function(name, |b| {
        b.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            for (edit, undo) in turn.by_ref().take(times as usize) {
                let edit = edit.clone();
                let start = Instant::now();
                let delta = compiler.apply(edit);
                all.push(start.elapsed());
                spent += all.last().copied().unwrap_or_default();
                black_box(delta);
                compiler.apply(undo.clone());
            }
            spent
        });
    });
    median(&mut all)
}

/// Pods of known workloads, on the node with this number; 0 is the node that is compiled for. On other nodes only pods
/// that join a peer set of its plan are used, if there are any: the others cost nothing.
fn pods_added(world: &Cluster, compiler: &Compiler, node: usize) -> Vec<(Change, Change)> {
    let (rng, pods) = (&mut Rng::with_seed(3), world.pods.len());
    let mut compiler = compiler.clone();
    let candidates = (0..16 * EDITS).map(|i| {
        let pod = workload_pod(world, rng.usize(..pods / 50), pods + i, node);
        let undo = Change::RemovePod(pod.key.clone());
        let matters = !compiler.apply(Change::SetPod(pod.clone())).is_empty();
        compiler.apply(undo.clone());
        (matters, (Change::SetPod(pod), undo))
    });
    let (matter, others): (Vec<_>, Vec<_>) = candidates.partition(|(matters, _)| *matters);
    matter.into_iter().chain(others).map(|(_, edit)| edit).take(EDITS).collect()
}

fn some<T>(rng: &mut Rng, all: impl ExactSizeIterator<Item = T>) -> impl Iterator<Item = T> {
    let step = (all.len() / EDITS).max(1);
    all.skip(rng.usize(..step)).step_by(step).take(EDITS)
}

fn pods_relabelled(world: &Cluster) -> Vec<(Change, Change)> {
    some(&mut Rng::with_seed(4), world.pods.values())
        .map(|old| {
            let labels =
                old.labels.with("tier", if old.labels.get("tier") == Some("web") { "api" } else { "web" });
            (Change::SetPod(Pod { labels, ..old.clone() }), Change::SetPod(old.clone()))
        })
        .collect()
}

/// Changes one port of one rule.
fn policies_edited(world: &Cluster) -> Vec<(Change, Change)> {
    some(&mut Rng::with_seed(5), world.policies.values())
        .map(|old| {
            let mut new = Policy::clone(old);
            let rules = new.ingress.iter_mut().chain(new.egress.iter_mut()).flatten();
            for entry in rules.filter_map(|rule| rule.ports.as_mut()).flatten() {
                entry.port =
                    PortMatch::Numbers { protocol: palisade_policy::Protocol::Tcp, first: 7, last: 7 };
            }
            (Change::SetPolicy(Arc::new(new)), Change::SetPolicy(Arc::clone(old)))
        })
        .collect()
}

fn namespaces_relabelled(world: &Cluster) -> Vec<(Change, Change)> {
    some(&mut Rng::with_seed(6), world.namespaces.values())
        .map(|old| {
            let labels: Labels = old.labels.project(|k| k != NAMESPACE_NAME_LABEL).with("team", "t5");
            (
                Change::SetNamespace(Namespace::new(old.name.clone(), &labels)),
                Change::SetNamespace(old.clone()),
            )
        })
        .collect()
}

criterion_group!(benches, compile);
criterion_main!(benches);

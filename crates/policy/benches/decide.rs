//! One decision: by the reference, and by the plan as the kernel would look it up (the baseline).

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use palisade_policy::{Compiler, Direction, Endpoint, Flow, Protocol, reference};
use palisade_testkit::{Rng, endpoints};

mod ground;

fn decide(c: &mut Criterion) {
    for (pods, policies) in ground::SIZES {
        let world = ground::world(pods, policies);
        let compiler = Compiler::from_cluster(ground::NODE.into(), &world);
        let flows = flows_to_local_pods(&world);
        let mut group = c.benchmark_group(format!("decide/{pods}-pods-{policies}-policies"));
        group
            .sample_size(20)
            .warm_up_time(Duration::from_millis(100))
            .measurement_time(Duration::from_millis(600));
        let mut next = flows.iter().cycle();
        group.bench_function("plan", |b| {
            b.iter(|| {
                let Some(f) = next.next() else { return };
                let (from, to) = (f.source.address(), f.destination.address());
                black_box(compiler.plan().decide(Direction::Ingress, from, to, f.protocol, f.port));
            });
        });
        let mut next = flows.iter().cycle();
        group.bench_function("reference", |b| {
            b.iter(|| black_box(next.next().map(|f| reference::decide(&world, f))));
        });
        group.finish();
    }
}

/// Flows from any address to the pods of the node, on the ports that pods and policies mention.
fn flows_to_local_pods(world: &palisade_policy::Cluster) -> Vec<Flow> {
    let rng = &mut Rng::with_seed(2);
    let ends = endpoints(world);
    let is_local = |end: &&Endpoint| match end {
        Endpoint::Pod { key, .. } => {
            world.pods.get(key).and_then(|p| p.node.as_deref()) == Some(ground::NODE)
        }
        _ => false,
    };
    let local: Vec<&Endpoint> = ends.iter().filter(is_local).collect();
    (0..1000)
        .map(|_| Flow {
            source: ends[rng.usize(..ends.len())].clone(),
            destination: local[rng.usize(..local.len())].clone(),
            protocol: Protocol::Tcp,
            port: [8000, 8001, 8002, 8003, 9090][rng.usize(..5)],
            through_service: false,
        })
        .collect()
}

criterion_group!(benches, decide);
criterion_main!(benches);

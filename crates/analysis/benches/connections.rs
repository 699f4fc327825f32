//! Computes all connections of a production-like cluster, compared with evaluating each pair with the reference.
//!
//! The baseline is measured in the same run on a sample of pairs with one flow per pair, and extrapolated. It computes
//! no exact sets of ports, so it is a lower bound for a walk over all pairs.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use palisade_analysis::{
    Connections, ConnectionsOptions, EdgeLabels, FoldSelection, Reasoner, describe::IdleFinder, diff,
};
use palisade_policy::{
    Action, Cluster, Endpoint, Flow, NamespaceMatch, Peer, PeerEntry, Pod, PodMatch, Policy, PolicyKey,
    PortEntry, PortMatch, Protocol, Rule, Selector, Tier, reference,
};
use palisade_testkit::{Rng, Shape, cluster, running_pod};

/// The number of pods, workloads and policies.
const SIZES: [(usize, usize, usize); 2] = [(10_000, 500, 1_000), (100_000, 2_000, 4_000)];
/// The number of pairs in the sample for the baseline.
const SAMPLE: usize = 200;

/// A realistic cluster of `pods` pods in `workloads` workloads in 50 namespaces.
fn world(pods: usize, workloads: usize, policies: usize) -> Cluster {
    // The generator gives each workload fifty pods. The surplus is removed.
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

/// Visits every edge, as a renderer does.
fn walk(connections: &Connections) -> (usize, usize) {
    connections.edges().fold((0, 0), |(edges, ranges), edge| {
        (edges + 1, ranges + edge.traffic.tcp.ranges().len() + edge.traffic.udp.ranges().len())
    })
}

fn baseline(world: &Cluster) -> Duration {
    let pods: Vec<&Pod> = world.pods.values().collect();
    let rng = &mut Rng::with_seed(2);
    let end = |pod: &Pod| Endpoint::Pod { key: pod.key.clone(), address: pod.addresses[0] };
    let flows: Vec<Flow> = (0..SAMPLE)
        .map(|_| Flow {
            source: end(pods[rng.usize(..pods.len())]),
            destination: end(pods[rng.usize(..pods.len())]),
            protocol: Protocol::Tcp,
            port: 8000,
            through_service: false,
        })
        .collect();
    let start = Instant::now();
    for flow in &flows {
        black_box(reference::decide(world, flow));
    }
    start.elapsed() / SAMPLE as u32
}

fn connections(c: &mut Criterion) {
    let mut lines = Vec::new();
    for (pods, workloads, policies) in SIZES {
        let world = world(pods, workloads, policies);
        let mut group = c.benchmark_group(format!("connections/{pods}-pods-{workloads}-workloads"));
        group.sample_size(10).sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(3));
        let mut times = Vec::new();
        group.bench_function("all-pairs", |b| {
            b.iter_custom(|n| {
                let start = Instant::now();
                for _ in 0..n {
                    let one = Instant::now();
                    black_box(walk(&Connections::new(black_box(&world), &ConnectionsOptions::default())));
                    times.push(one.elapsed());
                }
                start.elapsed()
            });
        });
        group.finish();
        times.sort_unstable();
        let connections = Connections::new(&world, &ConnectionsOptions::default());
        let (edges, _) = walk(&connections);
        let (ends, per_pair) = (connections.ends().len(), baseline(&world));
        let pairs = pods * (pods - 1);
        // The policy whose removal allows most: a default deny.
        let mut open = world.clone();
        open.policies.retain(|key, _| !(&*key.name == "default-deny" && &*key.namespace == "ns-0"));
        let start = Instant::now();
        let changes = diff(&world, &open).changes.len();
        let comparing = start.elapsed();
        lines.push(format!(
            "{pods} pods, {workloads} workloads, {policies} policies: {} classes, {pairs} pairs of pods, {ends} ends, \
             {edges} edges, {:?} (median of {}); one pair by the reference {per_pair:?}, all pairs {:.0?}; \
             a default deny gone: {changes} changes, {comparing:.0?}",
            connections.classes(),
            times[times.len() / 2],
            times.len(),
            per_pair.mul_f64(pairs as f64),
        ));
    }
    eprintln!("\n{}\n", lines.join("\n"));
}

/// A cluster in which each of 2,000 workloads has labels, a policy and peers of its own. Nothing is alike.
fn all_different() -> Cluster {
    const COUNT: usize = 2_000;
    let name = |number: usize| format!("app-{number:04}");
    let mut world = Cluster::default();
    for number in 0..COUNT {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + number as u32);
        let mut pod = running_pod("shop", &name(number));
        pod.labels = [("app", name(number))].into_iter().collect();
        pod.addresses = vec![address.into()];
        world.pods.insert(pod);
        let peers = [3, 17, 101, 333, 777]
            .map(|step| PeerEntry { peer: Peer::Pods(of_app(&name((number + step) % COUNT))), origin: None });
        let ports = PortEntry {
            port: PortMatch::Numbers {
                protocol: Protocol::Tcp,
                first: 8000 + number as u16,
                last: 8000 + number as u16,
            },
            origin: None,
        };
        let rule = Rule {
            name: None,
            action: Action::Accept,
            peers: Some(peers.into()),
            ports: Some(vec![ports]),
            origin: None,
        };
        let policy = Policy {
            key: PolicyKey::network_policy("shop", name(number)),
            tier: Tier::Developer,
            priority: 0,
            mode: None,
            subject: of_app(&name(number)),
            ingress: Some(vec![rule]),
            egress: None,
            origin: None,
        };
        world.policies.insert(policy.key.clone(), Arc::new(policy));
    }
    world
}

fn of_app(app: &str) -> PodMatch {
    PodMatch { namespaces: NamespaceMatch::Named("shop".into()), pods: Selector::of_labels([("app", app)]) }
}

/// Compares folding with a visit of every pair, in the same run.
fn folding(_: &mut Criterion) {
    let world = all_different();
    for only_denied in [false, true] {
        let start = Instant::now();
        let answer = Connections::new(&world, &ConnectionsOptions { only_denied, ..Default::default() });
        let computed = start.elapsed();
        let start = Instant::now();
        let (edges, _) = black_box(walk(&answer));
        let flat = start.elapsed();
        let start = Instant::now();
        let folded = black_box(answer.folded(&FoldSelection::default()));
        let took = start.elapsed();
        let members: usize = folded.sets.iter().map(Vec::len).sum();
        eprintln!(
            "2,000 different workloads, {}: computed in {computed:.0?}, {edges} edges visited in {flat:.0?}; folded to {} edges \
             and {members} members in {took:.0?}, {:.2} of the visit",
            if only_denied { "denied" } else { "allowed" },
            folded.edges.len(),
            took.as_secs_f64() / flat.as_secs_f64(),
        );
    }
}

/// Compares folding with reasons to folding without, and one finder of idle parts for all policies to one for each
/// policy, in the same run. A report needs both of all workloads.
fn report(_: &mut Criterion) {
    let world = all_different();
    for only_denied in [false, true] {
        let answer = Connections::new(&world, &ConnectionsOptions { only_denied, ..Default::default() });
        let start = Instant::now();
        black_box(answer.folded(&FoldSelection::default()));
        let plain = start.elapsed();
        let start = Instant::now();
        let reasoner = Reasoner::new(&world, &answer, only_denied);
        let selection =
            FoldSelection { labels: Some(&reasoner as &dyn EdgeLabels), ..FoldSelection::default() };
        let edges = black_box(answer.folded(&selection)).edges.len();
        let took = start.elapsed();
        eprintln!(
            "2,000 different workloads, {}: folded to {edges} edges with reasons in {took:.0?}, {:.1} times the {plain:.0?} \
             without",
            if only_denied { "denied" } else { "allowed" },
            took.as_secs_f64() / plain.as_secs_f64(),
        );
    }
    let start = Instant::now();
    let finder = IdleFinder::new(&world);
    let parts: usize = world.policies.values().map(|policy| black_box(finder.of(policy)).len()).sum();
    let shared = start.elapsed();
    let sample = world.policies.values().take(SAMPLE);
    let start = Instant::now();
    sample.for_each(|policy| _ = black_box(IdleFinder::new(&world).of(policy)));
    let alone = start.elapsed().mul_f64(world.policies.len() as f64 / SAMPLE as f64);
    eprintln!(
        "{parts} idle parts of 2,000 policies in {shared:.0?}, {:.3} of the {alone:.0?} with a finder for each policy",
        shared.as_secs_f64() / alone.as_secs_f64(),
    );
}

criterion_group!(benches, connections, folding, report);
criterion_main!(benches);

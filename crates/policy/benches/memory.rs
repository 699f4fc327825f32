//! Resident memory of a compiler that holds a cluster of 100,000 pods and 10,000 policies and the full plan of a node
//! with a hundred local pods in it. Beside it: what the cluster alone takes.

use std::time::Instant;

use palisade_policy::{Change, Cluster, Family, compile::Compiler};

mod ground;

fn main() {
    let (pods, policies) = ground::SIZES[8];
    let empty = resident();
    let world = ground::world(pods, policies);
    let cluster = resident();
    let start = Instant::now();
    let mut compiler = Compiler::new(ground::NODE.into());
    compiler.apply_all(changes(world));
    let spent = start.elapsed();
    let (plan, after) = (compiler.plan(), resident());
    eprintln!("{pods} pods, {policies} policies, full plan in {spent:.0?}: {after} MiB resident at the end");
    eprintln!("before anything {empty} MiB; with the cluster alone {cluster} MiB");
    eprintln!(
        "plan: {} tables, {} groups, {} elements",
        plan.tables.len(),
        plan.groups.len(),
        Family::BOTH.map(|family| plan.elements(family)).iter().sum::<usize>()
    );
}

/// Moves a cluster's objects out of it one by one, as a watch delivers them.
fn changes(world: Cluster) -> impl Iterator<Item = Change> {
    let namespaces = world.namespaces.into_values().map(Change::SetNamespace);
    let nodes = world.nodes.into_values().map(Change::SetNode);
    let pods = world.pods.into_values().map(Change::SetPod);
    namespaces.chain(nodes).chain(pods).chain(world.policies.into_values().map(Change::SetPolicy))
}

/// Resident memory of this process in MiB: the second field of `/proc/self/statm`, in pages of 4 KiB.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("this figure is read from /proc of Linux");
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("statm has numbers");
    pages * 4096 / (1 << 20)
}

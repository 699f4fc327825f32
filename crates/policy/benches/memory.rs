//! Resident memory of a compiler with a cluster of 100,000 pods and 10,000 policies and the plan of a node with a
//! hundred local pods, and that of the cluster alone.

use std::time::Instant;

use palisade_policy::{Compiler, Family};

mod ground;

fn main() {
    let (pods, policies) = ground::SIZES[8];
    let empty = resident();
    let world = ground::world(pods, policies);
    let cluster = resident();
    let start = Instant::now();
    let mut compiler = Compiler::new(ground::NODE.into());
    compiler.apply_all(world.into_changes());
    let spent = start.elapsed();
    let (plan, after) = (compiler.plan(), resident());
    eprintln!("{pods} pods, {policies} policies, full plan in {spent:.0?}: {after} MiB resident at the end");
    eprintln!("before anything {empty} MiB; with the cluster alone {cluster} MiB");
    eprintln!(
        "plan: {} tables, {} groups, {} elements",
        plan.tables.len(),
        plan.peer_sets.len(),
        Family::BOTH.map(|family| plan.elements(family)).iter().sum::<usize>()
    );
}

/// Resident memory of this process in MiB: the second field of `/proc/self/statm`, in pages of 4 KiB.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("this figure is read from /proc of Linux");
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("statm has numbers");
    pages * 4096 / (1 << 20)
}

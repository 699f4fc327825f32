//! One node with about a hundred local pods in a cluster of 100,000, from objects to the kernel's tables.
//!
//! Measures with 100, 1,000 and 10,000 policies: the first plan, resident memory, and changes of single pods. The first
//! line is the baseline: the cost of one pod must not grow with the number of policies. A removal also reviews established
//! connections, for which the kernel walks its whole connection-tracking table.
//!
//! Runs in its own user and network namespace, without root.

use std::{fs, time::Instant};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getgid, getuid},
};
use palisade_agent::{NftDataPlane, NodeAgent, Report};
use palisade_policy::{Change, Cluster, Compiler, Pod};
use palisade_testkit::{Rng, Shape, cluster, workload_pod};

const PODS: usize = 100_000;
const NODE: &str = "n1";
/// The number of pods that are added and removed in each cluster.
const EDITS: usize = 200;

fn main() {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).expect("user and network namespaces");
    fs::write("/proc/self/setgroups", "deny").expect("setgroups");
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).expect("uid_map");
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).expect("gid_map");

    // Each cluster has its own process, so that memory kept by the allocator doesn't count for the next.
    if let Some(policies) = std::env::args().skip_while(|a| a != "--policies").nth(1) {
        return measure(policies.parse().expect("a number"));
    }
    eprintln!(
        "policies | first full plan: compile, kernel | resident | elements | pod added: median, p99 | removed: median"
    );
    for policies in ["100", "1000", "10000"] {
        let this = std::env::current_exe().expect("the path of this program");
        let status = std::process::Command::new(this).args(["--policies", policies]).status();
        assert!(status.expect("this program again").success());
    }
}

fn measure(policies: usize) {
    let mut agent = NodeAgent::new(NODE.into(), NftDataPlane::open().expect("nftables"));
    let world = cluster(&mut Rng::with_seed(1), &Shape::realistic(PODS, policies));
    let first = checked(agent.snapshot(world));
    let resident = resident();
    let elements: usize = first.commits.iter().map(|c| c.elements).sum();

    let world = cluster(&mut Rng::with_seed(1), &Shape::realistic(PODS, policies));
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    for pod in joining_pods(&world) {
        let key = pod.key.clone();
        for (change, spent) in [(Change::SetPod(pod), &mut added), (Change::RemovePod(key), &mut removed)] {
            let begin = Instant::now();
            let report = checked(agent.apply(vec![change]));
            spent.push(begin.elapsed());
            assert_eq!(report.commits.len(), 1, "the pod joins a peer set, so there is something to commit");
        }
    }
    added.sort_unstable();
    removed.sort_unstable();
    eprintln!(
        "{policies:>8} | {:>16.0?} {:>16.0?} | {resident:>4} MiB | {elements:>8} | {:>14.0?} {:>8.0?} | {:>15.0?}",
        first.compile,
        first.commit,
        added[added.len() / 2],
        added[added.len() * 99 / 100],
        removed[removed.len() / 2],
    );
}

fn checked(report: Report) -> Report {
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    report
}

/// Pods of known workloads on other nodes that join a peer set of this node.
fn joining_pods(world: &Cluster) -> Vec<Pod> {
    let mut compiler = Compiler::from_cluster(NODE.into(), world);
    let rng = &mut Rng::with_seed(3);
    let pods: Vec<Pod> = (0..)
        .map(|i| workload_pod(world, rng.usize(..PODS / 50), PODS + i, 2))
        .filter(|pod| {
            let joins = !compiler.apply(Change::SetPod(pod.clone())).is_empty();
            compiler.apply(Change::RemovePod(pod.key.clone()));
            joins
        })
        .take(EDITS)
        .collect();
    pods
}

/// Returns the resident memory of this process in MiB: the second field of `/proc/self/statm`, in pages of 4 KiB.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("this figure is read from /proc");
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("statm has numbers");
    pages * 4096 / (1 << 20)
}

//! One node's agent in a cluster of 150,000 pods, 10,000 policies and 5,000 nodes.
//!
//! Measures the first snapshot with a real kernel, resident memory, and a steady rate of 1,000 pod events per second.
//! Clusters of a tenth and a third of the size are the baseline, which shows what grows with the cluster. Each has its own
//! process, so that memory kept by the allocator doesn't count for the next.
//!
//! `cargo bench -p palisade-agent --bench scale [-- --seconds N] [--rate N]`. Runs in its own user and network namespace,
//! without root.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getgid, getuid},
};
use palisade_agent::{NftDataPlane, NodeAgent, Report};
use palisade_policy::{Change, Cluster};

use stream::{Events, NODE, Size, cpu_time, memory};

mod stream;

/// The number of events in a burst.
const BURST: usize = 5_000;

fn main() {
    let argument = |name: &str| {
        let given = std::env::args().skip_while(|a| *a != format!("--{name}")).nth(1)?;
        Some(given.parse::<usize>().expect("a number"))
    };
    let seconds = argument("seconds").unwrap_or(20);
    let rate = argument("rate").unwrap_or(1_000);
    if let Some(part) = argument("part") {
        return measure(Size::full_by(part), seconds, rate);
    }
    for part in ["10", "3", "1"] {
        let this = std::env::current_exe().expect("the path of this program");
        let arguments = ["--part", part, "--seconds", &seconds.to_string(), "--rate", &rate.to_string()];
        let status = std::process::Command::new(this).args(arguments).status();
        assert!(status.expect("this program again").success());
    }
}

fn measure(size: Size, seconds: usize, rate: usize) {
    enter_sandbox();
    let empty = memory();
    let mut agent = NodeAgent::new(NODE.into(), NftDataPlane::open().expect("nftables"));
    let interner = agent.interner().clone();
    let Size { pods, policies, nodes, .. } = size;
    let mut cluster = stream::frame(&size);
    // Generating pods requires the namespaces only. The agent owns the policies.
    let frame = Cluster { namespaces: cluster.namespaces.clone(), ..Cluster::default() };
    cluster.pods.extend(stream::pods(&frame, &size, &interner));
    let local = cluster.pods.values().filter(|pod| pod.node.as_deref() == Some(NODE)).count();
    let delivered = memory();
    let begin = Instant::now();
    let first = checked(agent.snapshot(cluster));
    let started = begin.elapsed();
    let after = memory();
    eprintln!("{pods} pods, {policies} policies, {nodes} nodes; {local} pods on this one");
    eprintln!(
        "  first plan: {started:.0?} (compiled {:.0?}, kernel {:.0?}, connections {:.0?}); {} elements in {} transactions",
        first.compile,
        first.commit,
        first.review,
        first.commits.iter().map(|c| c.elements).sum::<usize>(),
        first.commits.iter().map(|c| c.transactions).sum::<usize>(),
    );
    eprintln!("  resident: {empty} at first, {delivered} with the cluster, {after} with the plan programmed");

    let mut events = Events::new(&frame, size, interner);
    // Until pods are removed at the same rate as they are added.
    apply_and_review(&mut agent, events.by_ref().take(3_000).collect());
    steady(&mut agent, &mut events, seconds, rate);
    let begin = Instant::now();
    let report = checked(agent.apply(events.by_ref().take(BURST).collect()));
    eprintln!(
        "  burst: {BURST} events at once in {:.0?}, {} transaction(s)",
        begin.elapsed(),
        report.commits.iter().map(|c| c.transactions).sum::<usize>(),
    );
    eprintln!("  resident at the end: {}", memory());
}

/// Moves this process to its own user and network namespace.
fn enter_sandbox() {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).expect("user and network namespaces");
    fs::write("/proc/self/setgroups", "deny").expect("setgroups");
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).expect("uid_map");
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).expect("gid_map");
}

/// Returns the report, which must have no errors.
fn checked(report: Report) -> Report {
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    report
}

/// Applies events and performs the reviews of connections that become due.
fn apply_and_review(agent: &mut NodeAgent<NftDataPlane>, events: Vec<Change>) {
    let mut report = checked(agent.apply(events));
    while let Some(due) = report.review_due {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        report = checked(agent.tick());
    }
}

/// Applies events at a fixed rate. Those that arrive while the agent is busy are applied together, as with a watch.
fn steady(agent: &mut NodeAgent<NftDataPlane>, events: &mut Events<'_>, seconds: usize, rate: usize) {
    let interval = Duration::from_secs(1) / rate as u32;
    let count = seconds * rate;
    let mut lags = Vec::with_capacity(count);
    let (mut commits, mut reviews, mut applies) = (0, 0, 0);
    let mut review_due = None;
    let (begin, cpu) = (Instant::now(), cpu_time());
    while lags.len() < count {
        let next = begin + interval * lags.len() as u32;
        let now = Instant::now();
        let arrived = (now.saturating_duration_since(begin).as_nanos() / interval.as_nanos()) as usize + 1;
        let arrived = arrived.min(count) - lags.len();
        let report = if now >= next {
            applies += 1;
            checked(agent.apply(events.by_ref().take(arrived).collect()))
        } else if review_due.is_some_and(|due| now >= due) {
            checked(agent.tick())
        } else {
            thread::sleep(review_due.map_or(next, |due| next.min(due)).saturating_duration_since(now));
            continue;
        };
        commits += report.commits.len();
        reviews += usize::from(!report.review.is_zero());
        review_due = report.review_due;
        if now >= next {
            let done = Instant::now();
            let first = lags.len();
            lags.extend(
                (first..first + arrived).map(|i| done.saturating_duration_since(begin + interval * i as u32)),
            );
        }
    }
    let (elapsed, cpu) = (begin.elapsed(), cpu_time() - cpu);
    eprintln!(
        "  {rate} events/s for {seconds} s: {:.0} % of a core; {applies} batches, {commits} commits, {reviews} reviews of connections",
        100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64()
    );
    stream::lags("lag", &lags);
}

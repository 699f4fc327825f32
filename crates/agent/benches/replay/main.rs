//! The whole path at full size: 150,000 pods, 10,000 policies and 5,000 nodes as JSON from an API server, through the
//! agent's watches and the compiler to the kernel. Then pod events at a fixed rate.
//!
//! A tenth of the size is the baseline. The server is a separate process on loopback.
//!
//! `cargo bench -p palisade-agent --bench replay [-- --seconds N] [--rate N]`. Runs in its own user and network namespace,
//! without root.

#![expect(clippy::print_stdout, reason = "the server prints its port for the process that started it")]

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getgid, getuid},
};
use palisade_agent::{NftDataPlane, NodeAgent, Report};
use palisade_api::{Client, Event, WatchOptions, watch};
use palisade_policy::Change;
use server::{MARKER, Script, serve};
use stream::{NODE, Size, cpu_time, memory};
use tokio::sync::mpsc::Receiver;

mod json;
mod server;
#[path = "../stream/mod.rs"]
mod stream;

fn main() {
    let argument = |name: &str| {
        let given = std::env::args().skip_while(|a| *a != format!("--{name}")).nth(1)?;
        Some(given.parse::<usize>().expect("a number"))
    };
    let (seconds, rate) = (argument("seconds").unwrap_or(20), argument("rate").unwrap_or(1_000));
    if let Some(part) = argument("serve") {
        serve(Script { size: Size::full_by(part), seconds, rate });
    }
    let own = |role: &str, part: &str| {
        let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
        command.args([role, part, "--seconds", &seconds.to_string(), "--rate", &rate.to_string()]);
        command
    };
    if let Some(part) = argument("part") {
        let mut server = own("--serve", &part.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server");
        let mut port = String::new();
        let output = server.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut port).expect("its port");
        let go = server.stdin.take().expect("its input");
        follow(port.trim(), go, Size::full_by(part), seconds, rate);
        server.kill().expect("the server is a child process");
        server.wait().expect("the server is a child process");
        return;
    }
    for part in ["10", "1"] {
        assert!(own("--part", part).status().expect("this program again").success());
    }
}

/// Opens the data plane in a new network namespace. This thread stays in the server's.
fn data_plane() -> NftDataPlane {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER).expect("a user namespace");
    std::fs::write("/proc/self/setgroups", "deny").expect("setgroups");
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).expect("uid_map");
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).expect("gid_map");
    let open = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        NftDataPlane::open().expect("nftables")
    };
    thread::spawn(open).join().expect("the thread has opened it")
}

fn follow(port: &str, go: impl Write, size: Size, seconds: usize, rate: usize) {
    let plane = data_plane();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = kube::Config::new(format!("http://127.0.0.1:{port}").parse().expect("a URL"));
        let client = Client::try_from(config).expect("a client");
        let mut agent = NodeAgent::new(NODE.into(), plane);
        let Size { pods, policies, nodes, .. } = size;
        eprintln!("{pods} pods, {policies} policies, {nodes} nodes");
        let (begin, cpu) = (Instant::now(), cpu_time());
        let mut events = watch(client, WatchOptions::default());
        let cluster = loop {
            match events.recv().await.expect("the watch continues") {
                Event::Snapshot(cluster) => break cluster,
                Event::Watch { .. } | Event::Changes { .. } => {}
                Event::Findings { object, findings } => assert!(findings.is_empty(), "{object}: {findings:?}"),
            }
        };
        assert_eq!((cluster.pods.len(), cluster.policies.len(), cluster.nodes.len()), (pods, policies, nodes));
        let (listed, delivered) = (begin.elapsed(), memory());
        let report = checked(agent.snapshot(*cluster));
        eprintln!(
            "  from the start to programmed: {:.1?} (listed and decoded in {listed:.1?}, compiled {:.0?}, kernel {:.0?}); {:.1} s of CPU time",
            begin.elapsed(),
            report.compile,
            report.commit,
            (cpu_time() - cpu).as_secs_f64()
        );
        eprintln!("  resident: {delivered} with the cluster, {} with the plan programmed", memory());
        steady(&mut agent, &mut events, go, seconds, rate).await;
        eprintln!("  resident at the end: {}", memory());
    });
}

/// Returns the report, which must have no errors.
fn checked(report: Report) -> Report {
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    report
}

/// Starts the server's events, and applies them until the last marked pod.
async fn steady(
    agent: &mut NodeAgent<NftDataPlane>,
    events: &mut Receiver<Event>,
    mut go: impl Write,
    seconds: usize,
    rate: usize,
) {
    let expected = seconds * rate / 100;
    let (mut lags, mut changed, mut commits, mut reviews) = (Vec::with_capacity(expected), 0, 0, 0);
    let mut review_due: Option<Instant> = None;
    go.write_all(b"go\n").expect("the server listens");
    let (begin, cpu) = (Instant::now(), cpu_time());
    while lags.len() < expected {
        let due = review_due.unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
        let report = tokio::select! {
            event = events.recv() => match event.expect("the watch continues") {
                Event::Changes { changes, .. } => {
                    changed += changes.len();
                    let sent: Vec<Duration> = changes.iter().filter_map(sent_at).collect();
                    let report = checked(agent.apply(changes));
                    let now = since_epoch();
                    lags.extend(sent.into_iter().map(|at| now.saturating_sub(at)));
                    report
                }
                _ => continue,
            },
            () = tokio::time::sleep_until(due.into()) => checked(agent.tick()),
        };
        commits += report.commits.len();
        reviews += usize::from(!report.review.is_zero());
        review_due = report.review_due;
    }
    let (elapsed, cpu) = (begin.elapsed(), cpu_time() - cpu);
    eprintln!(
        "  {rate} events/s for {seconds} s: {:.0} % of a core; {changed} of the events changed something, {commits} commits, {reviews} reviews of connections",
        100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64()
    );
    stream::lags("from sent to programmed", &lags);
}

/// Returns when a marked pod was sent.
fn sent_at(change: &Change) -> Option<Duration> {
    let Change::SetPod(pod) = change else { return None };
    pod.key.name.strip_prefix(MARKER)?.parse().ok().map(Duration::from_micros)
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock")
}

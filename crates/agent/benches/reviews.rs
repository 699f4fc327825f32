//! How long a change waits while connections that another change denies are revoked, compared with the same change at rest, which is the
//! baseline.
//!
//! Runs in a new user and network namespace, without root. The entries are created by request, not by traffic.

#![expect(clippy::unwrap_used, reason = "a benchmark that panics has failed")]

#[path = "../../nft/tests/kernel/entries.rs"]
mod entries;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use entries::Entry;
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getgid, getuid},
};
use palisade_agent::{NftDataPlane, NodeAgent, Report};
use palisade_policy::{
    Change, Labels, NamespaceMatch, ObjectKey, Pod, PodMatch, Policy, PolicyKey, Selector, Tier,
};

const NODE: &str = "n1";
const CHANGES: usize = 60;

fn main() {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).unwrap();
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
    eprintln!(
        "connections | policy of another pod at rest: median, max | while they are revoked: median, max, ratio of medians | longest step, for which a change waits too | review"
    );
    for connections in [1000, 10_000, 34_000] {
        measure(connections);
    }
}

fn measure(connections: u32) {
    let mut agent = NodeAgent::new(NODE.into(), NftDataPlane::open().unwrap());
    // The entries of the measurement before still exist.
    let address = |n: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + (connections << 4) + n));
    let pods = (0..2).map(|n| Change::SetPod(pod(&format!("p{n}"), address(n))));
    let mut cluster = palisade_policy::Cluster::default();
    pods.for_each(|change| cluster.apply(change));
    checked(agent.snapshot(cluster));
    finish(&mut agent);
    entries::create((0..connections).map(|n| {
        let client = Ipv4Addr::from_bits(0x0b00_0000 + n).into();
        Entry::plain([client, address(0)], [40_000, 80])
    }));
    let mut rest: Vec<Duration> = (0..CHANGES).map(|n| change(&mut agent, n)).collect();
    finish(&mut agent);

    let begin = Instant::now();
    checked(agent.apply(vec![isolate("first", "p0")]));
    // A pause after the reviews of the changes before it, and the listing.
    while agent.review_state().left.is_none() {
        checked(agent.tick());
    }
    let (mut busy, mut longest) = (Vec::new(), Duration::ZERO);
    while agent.review_state().is_running && busy.len() < CHANGES {
        busy.push(change(&mut agent, busy.len()));
        // One in some milliseconds, as from a watch.
        let pause = Instant::now() + Duration::from_millis(2);
        while agent.review_state().is_running && Instant::now() < pause {
            let begin = Instant::now();
            checked(agent.tick());
            longest = longest.max(begin.elapsed());
        }
    }
    let revoked = finish(&mut agent);
    let review = begin.elapsed();
    let entries = palisade_nft::conntrack::list_revoked(&mut palisade_nft::Kernel::open().unwrap()).unwrap();
    assert_eq!(entries.len(), connections as usize, "all are revoked ({revoked} in the last reviews)");
    let (rest, busy) = (sorted(&mut rest), sorted(&mut busy));
    let ratio = busy.0.as_secs_f64() / rest.0.as_secs_f64();
    eprintln!(
        "{connections:>11} | {:>8.2?} {:>8.2?} | {:>8.2?} {:>8.2?} {ratio:>5.1} | {longest:>8.2?} | {review:.0?}",
        rest.0, rest.1, busy.0, busy.1
    );
    checked(agent.snapshot(palisade_policy::Cluster::default()));
    finish(&mut agent);
    palisade_nft::remove(&mut palisade_nft::Kernel::open().unwrap()).unwrap();
}

/// Isolates the other pod, or ends its isolation. Returns how long that took until the commit in the kernel.
fn change(agent: &mut NodeAgent<NftDataPlane>, n: usize) -> Duration {
    let change = match n % 2 {
        0 => isolate("second", "p1"),
        _ => Change::RemovePolicy(PolicyKey::network_policy("shop", "second")),
    };
    let begin = Instant::now();
    let report = checked(agent.apply(vec![change]));
    report.committed.unwrap().saturating_duration_since(begin)
}

fn finish(agent: &mut NodeAgent<NftDataPlane>) -> usize {
    let mut revoked = 0;
    loop {
        let report = checked(agent.tick());
        revoked += report.revoked;
        let Some(due) = report.review_due else { return revoked };
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn sorted(times: &mut [Duration]) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], *times.last().unwrap())
}

/// Returns the report, which must have no errors.
fn checked(report: Report) -> Report {
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    report
}

fn pod(name: &str, address: IpAddr) -> Pod {
    Pod {
        node: Some(NODE.into()),
        ..Pod::new(ObjectKey::new("shop", name), Labels::default().with("app", name), vec![address])
    }
}

fn isolate(name: &str, app: &str) -> Change {
    Change::SetPolicy(Arc::new(Policy {
        key: PolicyKey::network_policy("shop", name),
        tier: Tier::Developer,
        priority: 0,
        mode: None,
        subject: PodMatch {
            namespaces: NamespaceMatch::Named("shop".into()),
            pods: Selector::of_labels([("app", app)]),
        },
        ingress: Some(Vec::new()),
        egress: None,
        origin: None,
    }))
}

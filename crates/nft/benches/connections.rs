//! The cost of finding the connections of an address among 200,000 entries: filtered by the kernel, or from a full listing,
//! which is the baseline. Medians of ten.
//!
//! Runs in a new user and network namespace, without root. The entries are created by request, not by traffic.

#[path = "../tests/kernel/entries.rs"]
mod entries;

use std::{
    collections::BTreeSet,
    fs,
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getgid, getuid},
};
use palisade_nft::{
    Kernel,
    conntrack::{self, MAX_FILTERED},
};

use crate::entries::Entry;

const ENTRIES: u32 = 200_000;
/// The pods, which have equally many connections.
const PODS: u32 = 1000;
const ROUNDS: usize = 10;

fn main() {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).expect("user and network namespaces");
    fs::write("/proc/self/setgroups", "deny").expect("setgroups");
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).expect("uid_map");
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).expect("gid_map");

    entries::create((0..ENTRIES).map(|n| {
        let client = Ipv4Addr::from_bits(0x0b00_0000 + n).into();
        Entry::plain([client, pod(n % PODS)], [40_000, 80])
    }));
    let mut kernel = Kernel::open().expect("kernel");
    let full = median(&mut kernel, MAX_FILTERED + 1);
    eprintln!("connections of | found | time | full listing / time");
    for addresses in [1, 2, MAX_FILTERED, MAX_FILTERED + 1, 100] {
        let (found, time) = median(&mut kernel, addresses);
        eprintln!(
            "{addresses:>3} addresses  | {found:>6} | {time:>9.2?} | {:.1}",
            full.1.as_secs_f64() / time.as_secs_f64()
        );
    }
}

fn pod(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

fn median(kernel: &mut Kernel, addresses: usize) -> (usize, Duration) {
    let ends: BTreeSet<IpAddr> = (0..addresses as u32).map(pod).collect();
    let mut found = 0;
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            found = black_box(conntrack::list(kernel, &ends).expect("a listing")).len();
            begin.elapsed()
        })
        .collect();
    assert_eq!(found, addresses * (ENTRIES / PODS) as usize);
    times.sort_unstable();
    (found, times[ROUNDS / 2])
}

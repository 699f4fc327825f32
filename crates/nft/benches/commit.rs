//! The cost of a commit, from the delta to the last reply read.
//!
//! Each figure has a baseline from the same run: a plain round trip to the kernel, and the same change in a small plan. The
//! cost should depend on the change: for one pod, a large plan should cost little more than a small one; a full plan should
//! grow with its addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    hint::black_box,
    net::IpAddr,
};

use criterion::{BatchSize, BenchmarkGroup, Criterion, measurement::WallTime};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getgid, getuid},
};
use palisade_nft::{Enforcer, Kernel};
use palisade_policy::{
    AddressChanges, AddressSet, Delta, Direction, Family, MemberChanges, NodePlan, PeerSet, PeerSetId,
    PolicyTable, PolicyTableId, PortSet, Protocol, Traffic, address::from_number,
};

fn main() {
    enter_namespace();
    let mut criterion = Criterion::default().sample_size(30).configure_from_args();
    one_pod(&mut criterion);
    local_pod(&mut criterion);
    full_plan(&mut criterion);
    criterion.final_summary();
}

/// Keeps the privileges of root (a large send buffer), or becomes root of a user namespace. Called before the first thread.
fn enter_namespace() {
    if unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        return;
    }
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).expect("a user namespace");
    fs::write("/proc/self/setgroups", "deny").expect("setgroups");
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).expect("uid_map");
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).expect("gid_map");
}

const GROUPS: u8 = 10;

/// Returns `pods` local pods, each with a separate table of all peer sets, which share `addresses`.
fn plan(pods: u8, addresses: u32) -> NodePlan {
    let row = |n: u8| Traffic::of(Protocol::Tcp, PortSet::range(8000 + u16::from(n), 8000 + u16::from(n)));
    let mut plan = NodePlan::default();
    for group in 0..GROUPS {
        let members: AddressSet = (0..addresses)
            .filter(|n| n % u32::from(GROUPS) == u32::from(group))
            .map(|n| from_number(Family::V4, 0x0a10_0000 + u128::from(n)))
            .collect();
        plan.peer_sets.insert(PeerSetId([group; 16]), PeerSet::Addresses(members));
    }
    for pod in 0..pods {
        let table = PolicyTable {
            direction: Direction::Ingress,
            exact: (0..GROUPS).map(|group| (PeerSetId([group; 16]), row(group))).collect(),
            ranges: BTreeMap::new(),
            rest: row(100 + pod),
        };
        plan.tables.insert(PolicyTableId([pod; 16]), table);
        plan.ingress.insert(IpAddr::from([10, 0, 0, pod]), PolicyTableId([pod; 16]));
    }
    plan
}

/// Commits two deltas alternately that undo each other.
fn to_and_fro(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, plan: &NodePlan, deltas: &[Delta; 2]) {
    let (mut enforcer, _) = Enforcer::start(Kernel::open().expect("kernel"), plan).expect("start");
    let mut next = 0;
    group.bench_function(name, |b| {
        b.iter(|| {
            enforcer.commit(&deltas[next]).expect("commit");
            next = 1 - next;
        });
    });
    enforcer.remove().expect("remove");
}

/// A pod that joins all peer sets, and leaves them.
fn one_pod(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one pod joins or leaves 10 peer sets");
    let pod = IpAddr::from([192, 0, 2, 1]);
    let change = |comes: bool| {
        let one = BTreeSet::from([pod]);
        let change = if comes {
            MemberChanges { added: one, ..MemberChanges::default() }
        } else {
            MemberChanges { removed: one, ..MemberChanges::default() }
        };
        let members = (0..GROUPS).map(|g| (PeerSetId([g; 16]), change.clone())).collect();
        Delta { members, ..Delta::default() }
    };
    let deltas = [change(true), change(false)];
    let mut kernel = Kernel::open().expect("kernel");
    group.bench_function("baseline: round trip", |b| b.iter(|| black_box(kernel.kernel_generation())));
    for (name, plan) in [
        ("baseline: 1 table, 100 addresses", plan(1, 100)),
        ("100 tables, 100,000 addresses", plan(100, 100_000)),
    ] {
        to_and_fro(&mut group, name, &plan, &deltas);
    }
    group.finish();
}

/// A local pod that becomes isolated, and is no longer isolated. The kernel checks all chains at each such change.
fn local_pod(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one local pod is isolated or not");
    let pod = IpAddr::from([10, 0, 1, 1]);
    let comes =
        AddressChanges { set: BTreeMap::from([(pod, PolicyTableId([0; 16]))]), ..AddressChanges::default() };
    let goes = AddressChanges { removed: BTreeSet::from([pod]), ..AddressChanges::default() };
    let deltas = [comes, goes].map(|ingress| Delta { ingress, ..Delta::default() });
    for (name, plan) in [
        ("baseline: 1 table", plan(1, 100)),
        ("100 tables", plan(100, 100)),
        ("100 tables, 100,000 addresses", plan(100, 100_000)),
    ] {
        to_and_fro(&mut group, name, &plan, &deltas);
    }
    group.finish();
}

fn full_plan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("first plan of a node with 100 local pods");
    group.sample_size(10);
    for (name, plan) in
        [("baseline: 1,000 addresses", plan(100, 1_000)), ("100,000 addresses", plan(100, 100_000))]
    {
        group.bench_function(name, |b| {
            b.iter_batched(
                || {
                    let mut kernel = Kernel::open().expect("kernel");
                    palisade_nft::remove(&mut kernel).expect("remove");
                    kernel
                },
                |kernel| Enforcer::start(kernel, &plan).expect("start"),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
    palisade_nft::remove(&mut Kernel::open().expect("kernel")).expect("remove");
}

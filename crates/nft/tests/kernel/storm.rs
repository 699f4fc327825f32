//! Programs that commit all the time: commits to other tables don't prevent reading the agent's table, and a table that is
//! rewritten all the time is replaced without being read.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use libtest_mimic::Trial;
use palisade_nft::{Enforcer, ExistingTable, Kernel, NetlinkSocket, Transport};
use palisade_policy::{
    Direction, NodePlan, PeerSet, PeerSetId, PolicyTable, PolicyTableId, PortSet, Protocol, Traffic,
};

use crate::{
    foreign_edits::{attribute, message, text},
    sandbox::{trial, trial_with_nft},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial_with_nft("commits_to_other_tables_dont_prevent_reading", others),
        trial("a_table_that_is_rewritten_all_the_time_is_replaced_without_reading", rewritten),
    ]
}

/// One pod that 20,000 addresses may reach.
fn plan() -> NodePlan {
    let (pod, id, group) = (IpAddr::from([10, 244, 0, 3]), PolicyTableId([1; 16]), PeerSetId([1; 16]));
    let members = (0..20_000u32).map(|n| IpAddr::from((0x0a00_0000 + n).to_be_bytes())).collect();
    let row = Traffic::of(Protocol::Tcp, PortSet::range(80, 80));
    let table = PolicyTable {
        direction: Direction::Ingress,
        exact: BTreeMap::from([(group, row)]),
        ranges: BTreeMap::new(),
        rest: Traffic::none(),
    };
    NodePlan {
        ingress: BTreeMap::from([(pod, id)]),
        tables: BTreeMap::from([(id, table)]),
        peer_sets: BTreeMap::from([(group, PeerSet::Addresses(members))]),
        ..NodePlan::default()
    }
}

fn nft(command: &str) {
    let status = Command::new("nft").arg(command).status();
    assert!(
        status.expect("the nft program (package nftables) acts as another program").success(),
        "{command}"
    );
}

/// Sends two transactions alternately until stopped. Returns how many took effect.
fn rewrite(turns: &[(u16, u16, Vec<u8>); 2], pause: Duration, stop: &AtomicBool, count: &AtomicU32) {
    let mut socket = NetlinkSocket::open().unwrap();
    for (kind, flags, body) in turns.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let batch = [
            message(0x10, 1, 1, 0, [0, 10], &[]),
            message(0x0a00 | kind, flags | 5, 2, 1, [0, 0], body),
            message(0x11, 1, 3, 0, [0, 10], &[]),
        ];
        socket.send(&batch.concat()).unwrap();
        // An edit of the table may fail while the table is replaced.
        let done = socket.receive(true).unwrap()[16..20] == [0; 4];
        count.fetch_add(u32::from(done), Ordering::Relaxed);
        thread::sleep(pause);
    }
}

/// Runs `work` while another program sends two transactions alternately. Returns how many of them took effect.
fn during(turns: &[(u16, u16, Vec<u8>); 2], pause: Duration, work: impl FnOnce()) -> u32 {
    let (stop, count) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        let writer = scope.spawn(|| rewrite(turns, pause, &stop, &count));
        while count.load(Ordering::Relaxed) < 3 {
            thread::yield_now();
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    count.into_inner()
}

/// `NFT_MSG_NEWCHAIN` and `DELCHAIN`; `NLM_F_CREATE`.
const NEWCHAIN: u16 = 3;
const DELCHAIN: u16 = 5;
const CREATE: u16 = 0x400;

fn others() {
    // Of the same family and older than the agent's table, so its chains are listed first.
    nft("add table inet other");
    let mut socket = NetlinkSocket::open().unwrap();
    (0..300).for_each(|n| add_chain(&mut socket, n));
    let chain = [text(1, "other"), text(3, "flicker")].concat();
    let turns = [(NEWCHAIN, CREATE, chain.clone()), (DELCHAIN, 0, chain)];
    let plan = plan();
    for pause in [Duration::from_millis(20), Duration::ZERO] {
        let commits = during(&turns, pause, || {
            let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
            for round in 0..3 {
                assert_eq!(enforcer.verify().unwrap().differences, [], "{pause:?}, {round}");
                nft("flush chain inet palisade forward");
                assert!(!enforcer.verify().unwrap().agrees());
                let commit = enforcer.repair().unwrap();
                assert_eq!(commit.transactions, 1);
                // At full speed, notifications may overrun the small buffer of an unprivileged process.
                assert!(commit.elements == 0 || pause.is_zero(), "repaired, not replaced: {commit:?}");
                assert!(enforcer.is_in_sync().unwrap());
            }
            // The next run takes over the table.
            let (mut again, commit) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
            assert_eq!(commit.transactions, 1);
            assert!(again.existing_table() == ExistingTable::Ours || pause.is_zero());
            assert_eq!(again.verify().unwrap().differences, []);
            again.remove().unwrap();
        });
        assert!(commits > 10, "{commits} commits are too few");
    }
}

/// Another chain of the other table.
fn add_chain(socket: &mut NetlinkSocket, n: u32) {
    let chain = [text(1, "other"), text(3, &format!("chain{n}"))].concat();
    let batch = [
        message(0x10, 1, 1, 0, [0, 10], &[]),
        message(0x0a00 | NEWCHAIN, CREATE | 5, 2, 1, [0, 0], &chain),
        message(0x11, 1, 3, 0, [0, 10], &[]),
    ];
    socket.send(&batch.concat()).unwrap();
    assert_eq!(socket.receive(true).unwrap()[16..20], [0; 4], "chain made");
}

fn rewritten() {
    let plan = plan();
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
    // NFT_MSG_NEWSETELEM and DELSETELEM of an unknown address in `self4`.
    let key = attribute(0x8001, &attribute(1, &[192, 0, 2, 1, 192, 0, 2, 2]));
    let element = attribute(0x8003, &attribute(0x8001, &key));
    let body = [text(1, "palisade"), text(2, "self4"), element].concat();
    let turns = [(12, CREATE, body.clone()), (14, 0, body)];
    let commits = during(&turns, Duration::ZERO, || {
        let commit = enforcer.repair().unwrap();
        assert!(commit.elements > 20_000 && commit.transactions <= 3, "{commit:?}");
        let (_, commit) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
        assert!(commit.elements > 20_000, "{commit:?}");
    });
    assert!(commits > 10, "{commits} commits are too few");
    enforcer.repair().unwrap();
    assert_eq!(enforcer.verify().unwrap().differences, []);
    enforcer.remove().unwrap();
}

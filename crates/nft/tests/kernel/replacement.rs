//! Tables are replaced under a flood of packets that the policies deny, and of packets that they allow: at no moment does one of the former
//! pass, or is one of the latter dropped.
//!
//! `PALISADE_REPLACEMENTS` sets how many times each table is replaced.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use libtest_mimic::Trial;
use palisade_nft::{
    Commit, Enforcer, EnforcerOptions, Kernel, NetlinkSocket, STAND_IN_TABLE, Transport, cut_off,
    survey::{Survey, TableName},
};
use palisade_policy::{
    Direction, NodePlan, PeerSet, PeerSetId, PolicyTable, PolicyTableId, Traffic,
};

use crate::{
    foreign_edits::{attribute, message, text},
    revocation::loopback_up,
    sandbox::trial,
    scripted,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("no_packet_passes_while_the_table_is_replaced", main_table),
        trial("no_packet_passes_while_the_table_of_pods_that_are_cut_off_is_replaced", cut_off_table),
        trial("a_run_that_ends_while_a_table_is_replaced_leaves_nothing_behind", ended),
        trial("a_table_is_replaced_without_another_in_its_stead_if_the_kernel_refuses_that", refused),
    ]
}

/// May send nothing.
const SILENT: &str = "127.0.0.1";
/// May send to [`PEER`].
const GUARDED: &str = "127.0.0.3";
const PEER: &str = "127.0.0.4";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn replacements() -> usize {
    std::env::var("PALISADE_REPLACEMENTS").map_or(200, |text| text.parse().unwrap())
}

/// Packets of its pods pass the loopback device, so it is in terms of egress.
fn plan() -> NodePlan {
    let table = |exact| PolicyTable {
        direction: Direction::Egress,
        exact,
        ranges: BTreeMap::new(),
        rest: Traffic::none(),
    };
    let (silent, guarded, peers) =
        (PolicyTableId([0x61; 16]), PolicyTableId([0x62; 16]), PeerSetId([0x63; 16]));
    NodePlan {
        tables: [(silent, table(BTreeMap::new())), (guarded, table([(peers, Traffic::all())].into()))].into(),
        peer_sets: [(peers, PeerSet::Addresses([address(PEER)].into()))].into(),
        egress: [(address(SILENT), silent), (address(GUARDED), guarded)].into(),
        local: [SILENT, GUARDED].map(address).into(),
        ..NodePlan::default()
    }
}

/// Threads that send datagrams to [`PEER`], and what became of them.
#[derive(Default)]
struct Datagrams {
    sent: Arc<AtomicUsize>,
    arrived: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Datagrams {
    /// Two threads that send without a pause, and one that receives.
    fn flood(from: &str) -> Self {
        let mut out = Self::default();
        let server = server();
        let to = server.local_addr().unwrap();
        for _ in 0..2 {
            let client = UdpSocket::bind((address(from), 0)).unwrap();
            out.repeat(move |sent, _| count(sent, client.send_to(b"x", to).is_ok()));
        }
        out.repeat(move |_, arrived| count(arrived, server.recv(&mut [0; 8]).is_ok()));
        out
    }

    /// A thread that waits for the arrival of each datagram before it sends the next.
    fn one_by_one(from: &str) -> Self {
        let mut out = Self::default();
        let (server, client) = (server(), UdpSocket::bind((address(from), 0)).unwrap());
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let to = server.local_addr().unwrap();
        out.repeat(move |sent, arrived| {
            count(sent, true);
            count(arrived, client.send_to(b"x", to).is_ok() && server.recv(&mut [0; 8]).is_ok());
        });
        out
    }

    fn repeat(&mut self, mut step: impl FnMut(&AtomicUsize, &AtomicUsize) + Send + 'static) {
        let (sent, arrived, stop) = (self.sent.clone(), self.arrived.clone(), self.stop.clone());
        self.threads.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                step(&sent, &arrived);
            }
        }));
    }

    fn arrived(&self) -> usize {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Stops the threads. Returns how many datagrams were sent, and how many arrived.
    fn end(self) -> (usize, usize) {
        // What was sent last arrives.
        thread::sleep(Duration::from_millis(50));
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        (self.sent.load(Ordering::Relaxed), self.arrived.load(Ordering::Relaxed))
    }
}

fn count(of: &AtomicUsize, happened: bool) {
    of.fetch_add(usize::from(happened), Ordering::Relaxed);
}

fn server() -> UdpSocket {
    let server = UdpSocket::bind((address(PEER), 0)).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    server
}

/// Adds a base chain to a table, which only its replacement removes.
fn spoil(socket: &mut NetlinkSocket, family: u8, table: &str) {
    const NEWCHAIN: u16 = 3;
    // NFTA_CHAIN_TABLE, NAME, HOOK (HOOKNUM, PRIORITY), TYPE: the last hook of each family, where no test looks.
    let hook = [attribute(1, &[0, 0, 0, 4]), attribute(2, &[0; 4])].concat();
    let chain = [text(1, table), text(3, "foreign"), attribute(0x8004, &hook), text(7, "filter")].concat();
    transact(socket, message(0x0a00 | NEWCHAIN, CREATE | 5, 2, family, [0, 0], &chain));
}

/// `NLM_F_CREATE`.
const CREATE: u16 = 0x400;

/// Sends one message of nftables, with an acknowledgement, as a transaction.
fn transact(socket: &mut NetlinkSocket, one: Vec<u8>) {
    let batch =
        [message(0x10, 1, 1, 0, [0, 10], &[]), one, message(0x11, 1, 3, 0, [0, 10], &[])];
    socket.send(&batch.concat()).unwrap();
    assert_eq!(socket.receive(true).unwrap()[16..20], [0; 4], "done");
}

const INET: u8 = 1;

fn tables(kernel: &mut Kernel) -> Vec<String> {
    Survey::read(kernel).unwrap().tables.keys().map(TableName::to_string).collect()
}

fn main_table() {
    loopback_up();
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &plan()).unwrap();
    let (denied, allowed) = (Datagrams::flood(SILENT), Datagrams::one_by_one(GUARDED));
    let mut program = NetlinkSocket::open().unwrap();
    let (mut last, mut passed) = (Commit::default(), 0);
    for turn in 0..replacements() {
        spoil(&mut program, INET, "palisade");
        last = enforcer.repair().unwrap();
        let arrived = denied.arrived();
        if arrived > passed {
            eprintln!("replacement {turn}: {} denied packets passed", arrived - passed);
            passed = arrived;
        }
    }
    assert_eq!(enforcer.verify().unwrap().differences, []);
    // Nothing answers the allowed datagrams, so each is new to connection tracking and decided by the rules.
    let (of_allowed, arrived) = allowed.end();
    let (of_denied, leaked) = denied.end();
    eprintln!("{of_denied} denied packets: {leaked} passed; {of_allowed} allowed: {} lost; {last:?}", of_allowed - arrived);
    assert_eq!(leaked, 0, "denied packets that passed, of {of_denied}");
    assert_eq!(of_allowed, arrived, "allowed packets that arrived");
    assert!(of_denied > 0 && of_allowed > 0);
    assert_eq!(tables(enforcer.kernel()), ["inet palisade"]);
    enforcer.remove().unwrap();
}

fn cut_off_table() {
    loopback_up();
    let mut kernel = Kernel::open().unwrap();
    let options = EnforcerOptions::default();
    let cut = |others: u8| -> BTreeSet<(Direction, IpAddr)> {
        let others = (1..=others).map(|n| IpAddr::from([10, 0, 0, n]));
        others.chain([address(SILENT)]).map(|address| (Direction::Egress, address)).collect()
    };
    cut_off::cut_off(&mut kernel, &options, &cut(1)).unwrap();
    let (denied, allowed) = (Datagrams::flood(SILENT), Datagrams::one_by_one(GUARDED));
    for turn in 0..replacements() {
        cut_off::cut_off(&mut kernel, &options, &cut(1 + (turn % 3) as u8)).unwrap();
    }
    let (of_allowed, arrived) = allowed.end();
    let (of_denied, leaked) = denied.end();
    eprintln!("{of_denied} denied packets: {leaked} passed; {of_allowed} allowed: {} lost", of_allowed - arrived);
    assert_eq!(leaked, 0, "packets of a pod that is cut off, of {of_denied}");
    assert_eq!(of_allowed, arrived, "packets of other pods that arrived");
    assert_eq!(tables(&mut kernel), [format!("inet {}", cut_off::CUT_OFF_TABLE)]);
    cut_off::remove(&mut kernel).unwrap();
}

/// The agent ends after each of the transactions of a replacement.
fn ended() {
    let mut left = 0;
    for survived in 0.. {
        let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &plan()).unwrap();
        spoil(&mut NetlinkSocket::open().unwrap(), INET, "palisade");
        drop(enforcer);
        let (kernel, script) = scripted::kernel();
        script.lock().unwrap().cut_after = Some(survived);
        let outcome = Enforcer::start(kernel, &plan());
        left += usize::from(tables(&mut Kernel::open().unwrap()).contains(&stand_in()));
        let finished = outcome.is_ok();
        drop(outcome);
        (enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &plan()).unwrap();
        assert_eq!(tables(enforcer.kernel()), ["inet palisade"], "after {survived} transactions");
        assert_eq!(enforcer.verify().unwrap().differences, [], "after {survived} transactions");
        enforcer.remove().unwrap();
        if finished {
            break;
        }
    }
    assert!(left > 2, "a run left the table {left} times");
    // A repair and the removal of everything find it too.
    let mut program = NetlinkSocket::open().unwrap();
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &plan()).unwrap();
    make_stand_in(&mut program);
    assert_eq!(enforcer.repair().unwrap().transactions, 1);
    assert_eq!(tables(enforcer.kernel()), ["inet palisade"]);
    make_stand_in(&mut program);
    enforcer.remove().unwrap();
    assert_eq!(tables(enforcer.kernel()), [""; 0]);
}

fn stand_in() -> String {
    format!("inet {STAND_IN_TABLE}")
}

fn make_stand_in(socket: &mut NetlinkSocket) {
    const NEWTABLE: u16 = 0;
    transact(socket, message(0x0a00 | NEWTABLE, CREATE | 5, 2, INET, [0, 0], &text(1, STAND_IN_TABLE)));
}

fn refused() {
    let (kernel, script) = scripted::kernel();
    let (mut enforcer, _) = Enforcer::start(kernel, &plan()).unwrap();
    assert!(enforcer.take_no_stand_in().is_none());
    spoil(&mut NetlinkSocket::open().unwrap(), INET, "palisade");
    script.lock().unwrap().refused_table = Some(STAND_IN_TABLE);
    assert_eq!(enforcer.repair().unwrap().transactions, 1);
    let why = enforcer.take_no_stand_in().expect("no table stood in").to_string();
    assert!(why.contains("os error 12"), "{why}");
    assert_eq!(enforcer.verify().unwrap().differences, []);
    assert_eq!(tables(enforcer.kernel()), ["inet palisade"]);
    enforcer.remove().unwrap();
}

//! Pods that refuse what their policies deny: what the sender gets, what the receiver sees, and the limit. Real packets over the loopback
//! device.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use palisade_nft::{
    Enforcer, Kernel, REFUSE_BURST, REFUSE_RATE, REFUSE_TOTAL_BURST, REFUSE_TOTAL_RATE,
    drops::{Counters, Counts, DropEvent, DropEventReader, Tally},
};
use palisade_policy::{
    Direction, NodePlan, PolicyTable, PolicyTableId, PortSet, Protocol, Traffic,
};

use crate::{
    agreement::shape,
    drops::{group, next},
    revocation::{PATIENCE, SILENCE, address_on_loopback, dial, loopback_up},
    sandbox::trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_refused_connection_fails_at_once_and_never_reaches_the_receiver", answered),
        trial("pods_that_do_not_refuse_drop_what_they_deny", silent),
        trial("answers_are_limited_and_what_is_beyond_is_dropped_and_counted", limited),
        trial("a_flood_by_one_pod_leaves_the_answers_to_its_neighbors", fair_shares),
        trial("senders_that_are_no_local_pods_have_one_share_of_the_answers", many_sources),
        trial("answers_to_all_pods_together_are_limited", all_pods),
        trial("the_last_refusing_pod_leaves_nothing_and_changes_are_repaired", repaired),
    ]
}

const TABLE: PolicyTableId = PolicyTableId([1; 16]);

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Pods whose egress is denied, except for UDP to port 53, and those of them that refuse.
fn plan(pods: &[IpAddr], refusing: &[IpAddr]) -> NodePlan {
    let rest = Traffic::of(Protocol::Udp, PortSet::range(53, 53));
    let table =
        PolicyTable { direction: Direction::Egress, exact: BTreeMap::new(), ranges: BTreeMap::new(), rest };
    NodePlan {
        egress: pods.iter().map(|pod| (*pod, TABLE)).collect(),
        tables: BTreeMap::from([(TABLE, table)]),
        local: pods.iter().copied().collect(),
        refusing: refusing.iter().copied().collect(),
        ..NodePlan::default()
    }
}

fn start(plan: &NodePlan) -> Enforcer {
    Enforcer::start(Kernel::open().unwrap(), plan).unwrap().0
}

/// What a connected socket gets for a datagram that is denied.
fn answer(from: IpAddr, to: SocketAddr) -> Option<ErrorKind> {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    socket.send(b"x").unwrap();
    let error = socket.recv(&mut [0; 8]).unwrap_err();
    (![ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind())).then(|| error.kind())
}

fn answered() {
    loopback_up();
    let families = [("127.0.0.1", "127.0.0.2"), ("fd00::1", "fd00::2")];
    for text in ["fd00::1", "fd00::2"] {
        address_on_loopback(text.parse().unwrap());
    }
    let pods = families.map(|(pod, _)| address(pod));
    let mut enforcer = start(&plan(&pods, &pods));
    let mut reader = DropEventReader::open(group()).unwrap();
    for (pod, peer) in families.map(|(pod, peer)| (address(pod), address(peer))) {
        let listener = TcpListener::bind((peer, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let began = Instant::now();
        let error = dial(pod, listener.local_addr().unwrap(), PATIENCE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        // Not the answer to a SYN that was sent again after a second.
        assert!(began.elapsed() < Duration::from_millis(950), "at once");
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "the receiver sees nothing");

        let receiver = UdpSocket::bind((peer, 0)).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let prohibited = if pod.is_ipv4() { ErrorKind::HostUnreachable } else { ErrorKind::PermissionDenied };
        assert_eq!(answer(pod, receiver.local_addr().unwrap()), Some(prohibited));
        assert_eq!(receiver.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let DropEvent::Dropped(packet) = next(&mut reader) else { panic!("no dropped packet") };
            assert_eq!((packet.headers.protocol, packet.audited), (protocol, false), "refused is denied");
        }
        // What is allowed gets the answer of the receiver.
        assert_eq!(answer(pod, SocketAddr::new(peer, 53)), Some(ErrorKind::ConnectionRefused));
    }
    let counts = Tally::default().add(Counters::read(enforcer.kernel()).unwrap());
    assert_eq!(counts, Counts { egress: 4, ..Counts::default() }, "each is counted once");
    assert!(enforcer.verify().unwrap().agrees());
    enforcer.remove().unwrap();
}

fn silent() {
    loopback_up();
    let (refuses, drops, peer) = (address("127.0.0.1"), address("127.0.0.3"), address("127.0.0.2"));
    let pods = [refuses, drops];
    let mut enforcer = start(&plan(&pods, &[refuses]));
    let closed = SocketAddr::new(peer, 80);
    // What is expected to come is waited for, on a busy machine too.
    let is_refused = |pod, expected: bool| {
        let wait = if expected { PATIENCE } else { SILENCE };
        dial(pod, closed, wait).unwrap_err().kind() == ErrorKind::ConnectionRefused
    };
    assert!(is_refused(refuses, true) && !is_refused(drops, false));
    assert_eq!(answer(drops, closed), None);
    assert!(enforcer.verify().unwrap().agrees());
    // The annotation moves to the other pod, and goes.
    for (refusing, expected) in [(vec![drops], [false, true]), (vec![], [false, false]), (vec![refuses], [true, false])] {
        let delta = enforcer.programmed().delta_to(&plan(&pods, &refusing));
        assert!(delta.tables_set.is_empty() && delta.egress.is_empty(), "no table depends on it");
        enforcer.commit(&delta).unwrap();
        assert_eq!([0, 1].map(|at| is_refused(pods[at], expected[at])), expected);
        assert!(enforcer.verify().unwrap().agrees());
    }
    enforcer.remove().unwrap();
}

/// Opens a connection without waiting, and returns whether it is reset: over the loopback device, the reset arrives while it is opened.
fn is_reset(pod: IpAddr, peer: IpAddr) -> bool {
    let socket = socket2::Socket::new(socket2::Domain::for_address(SocketAddr::new(pod, 0)), socket2::Type::STREAM, None);
    let socket = socket.unwrap();
    socket.bind(&SocketAddr::new(pod, 0).into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    // The kernel has limits of its own for ICMP messages, and none that a test of resets could meet.
    let _ = socket.connect(&SocketAddr::new(peer, 80).into());
    socket.take_error().unwrap().is_some_and(|e| e.kind() == ErrorKind::ConnectionRefused)
}

/// Opens connections of a pod, and returns how many are reset.
fn resets(pod: IpAddr, peer: IpAddr, connections: u64) -> u64 {
    (0..connections).filter(|_| is_reset(pod, peer)).count() as u64
}

/// The most answers since an instant, with a share or limit of this rate and burst.
fn most(burst: u32, rate: u64, began: Instant) -> u64 {
    u64::from(burst) + rate * (began.elapsed().as_secs() + 1)
}

fn limited() {
    const PACKETS: u64 = 5_000;
    loopback_up();
    let (pod, peer) = (address("127.0.0.1"), address("127.0.0.2"));
    let mut enforcer = start(&plan(&[pod], &[pod]));
    let began = Instant::now();
    let refused = resets(pod, peer, PACKETS);
    let most = most(REFUSE_BURST, REFUSE_RATE, began);
    assert!(refused >= u64::from(REFUSE_BURST) && refused <= most, "{refused} of at most {most}");
    let counts = Tally::default().add(Counters::read(enforcer.kernel()).unwrap());
    assert!(counts.egress >= PACKETS, "{counts:?}");
    enforcer.remove().unwrap();
}

fn fair_shares() {
    loopback_up();
    for (flood, quiet, peer) in [("127.0.0.1", "127.0.0.3", "127.0.0.2"), ("fd00::1", "fd00::3", "fd00::2")] {
        let [flood, quiet, peer] = [flood, quiet, peer].map(address);
        for address in [flood, quiet, peer] {
            if let IpAddr::V6(address) = address {
                address_on_loopback(address);
            }
        }
        let pods = [flood, quiet];
        let mut enforcer = start(&plan(&pods, &pods));
        let began = Instant::now();
        let of_flood = resets(flood, peer, 5_000);
        assert_eq!(resets(quiet, peer, u64::from(REFUSE_BURST)), u64::from(REFUSE_BURST), "the neighbor");
        let most = most(REFUSE_BURST, REFUSE_RATE, began);
        assert!(of_flood >= u64::from(REFUSE_BURST) && of_flood <= most, "{of_flood} of at most {most}");
        assert!(enforcer.verify().unwrap().agrees());
        enforcer.remove().unwrap();
    }
}

/// Addresses that are not those of pods may be forged: each would have a share, and together they would use up the limit of all.
fn many_sources() {
    loopback_up();
    let (pod, peer) = (address("127.0.0.1"), address("127.0.0.2"));
    let forged: Vec<IpAddr> = (0..3_000_u16).map(|n| [127, 1, (n >> 8) as u8, n as u8].into()).collect();
    let all: Vec<IpAddr> = forged.iter().copied().chain([pod]).collect();
    let mut plan = plan(&all, &all);
    plan.local = [pod].into();
    let mut enforcer = start(&plan);
    let began = Instant::now();
    let refused = forged.iter().filter(|source| is_reset(**source, peer)).count() as u64;
    let most = most(REFUSE_BURST, REFUSE_RATE, began);
    assert!(refused >= u64::from(REFUSE_BURST) && refused <= most, "{refused} of at most {most}");
    assert_eq!(resets(pod, peer, u64::from(REFUSE_BURST)), u64::from(REFUSE_BURST), "the pod");
    enforcer.remove().unwrap();
}

fn all_pods() {
    const PODS: u8 = 60;
    loopback_up();
    let peer = address("127.0.0.2");
    let pods: Vec<IpAddr> = (1..=PODS).map(|n| [127, 2, 0, n].into()).collect();
    let mut enforcer = start(&plan(&pods, &pods));
    let began = Instant::now();
    let refused: u64 = pods.iter().map(|pod| resets(*pod, peer, u64::from(REFUSE_BURST))).sum();
    let most = most(REFUSE_TOTAL_BURST, REFUSE_TOTAL_RATE, began);
    assert!(refused >= u64::from(REFUSE_TOTAL_BURST) && refused <= most, "{refused} of at most {most}");
    enforcer.remove().unwrap();
}

fn repaired() {
    let (pod, other) = (address("10.0.0.1"), address("10.0.0.2"));
    let none = plan(&[pod, other], &[]);
    let mut enforcer = start(&none);
    let before = shape(&mut enforcer);
    let some = plan(&[pod, other], &[other]);
    enforcer.commit(&none.delta_to(&some)).unwrap();
    let right = shape(&mut enforcer);
    assert_ne!(right, before);
    // Another enforcer with another plan writes to the same table.
    drop(start(&plan(&[pod, other], &[pod])));
    let found = enforcer.verify().unwrap();
    assert!(found.differences.iter().any(|d| d.to_string().contains("refus")), "{:?}", found.differences);
    enforcer.repair().unwrap();
    assert!(enforcer.verify().unwrap().agrees());
    assert_eq!(shape(&mut enforcer), right);
    enforcer.commit(&some.delta_to(&none)).unwrap();
    assert_eq!(shape(&mut enforcer), before);
    assert_eq!(enforcer.programmed().refusing, BTreeSet::new());
    enforcer.remove().unwrap();
}

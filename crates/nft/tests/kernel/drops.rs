//! Denied packets are logged to nflog and counted: real packets over the loopback device.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use libtest_mimic::Trial;
use nix::poll::{PollFd, PollFlags, poll};
use palisade_nft::{
    Enforcer, EnforcerOptions, Error, Hook, Kernel, LOG_BURST, LOG_TOTAL_BURST, LOG_TOTAL_RATE,
    drops::{Counters, Counts, DropEvent, DropEventReader, DroppedPacket, Headers, Tally, TransportHeader},
};
use palisade_policy::{Direction, NodePlan, PolicyTable, PolicyTableId, Protocol, Traffic};

use crate::{
    revocation::{address_on_loopback, dial, loopback_up},
    sandbox::trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("denied_packets_are_reported_with_their_headers", reported),
        trial("a_flood_is_counted_exactly_and_logged_within_the_limit", flood),
        trial("a_flood_by_one_pod_leaves_the_log_to_its_neighbors", fair_shares),
        trial("packets_with_many_sources_have_one_share", many_sources),
        trial("pods_that_flood_together_are_counted_exactly_and_logged_within_the_limit_of_all", all_pods),
        trial("a_slow_reader_receives_the_number_of_lost_events", slow),
        trial("a_group_has_one_reader", one_reader),
    ]
}

/// Pods whose egress is denied.
fn silent(pods: &[IpAddr]) -> NodePlan {
    let id = PolicyTableId([1; 16]);
    let table = PolicyTable {
        direction: Direction::Egress,
        exact: BTreeMap::new(),
        ranges: BTreeMap::new(),
        rest: Traffic::none(),
    };
    NodePlan {
        egress: pods.iter().map(|pod| (*pod, id)).collect(),
        tables: BTreeMap::from([(id, table)]),
        local: pods.iter().copied().collect(),
        ..NodePlan::default()
    }
}

fn start(pods: &[IpAddr]) -> Enforcer {
    Enforcer::start(Kernel::open().unwrap(), &silent(pods)).unwrap().0
}

pub(crate) fn group() -> u16 {
    EnforcerOptions::default().log_group.unwrap()
}

/// Waits for the next event by polling the file descriptor.
pub(crate) fn next(reader: &mut DropEventReader) -> DropEvent {
    use std::os::fd::AsFd;
    loop {
        if let Some(event) = reader.read().unwrap() {
            return event;
        }
        let ready = poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], 20_000u16).unwrap();
        assert_eq!(ready, 1, "nothing came");
    }
}

fn reported() {
    loopback_up();
    let ends = |from: &str, to: &str| -> (IpAddr, IpAddr) { (from.parse().unwrap(), to.parse().unwrap()) };
    let families = [ends("127.0.0.1", "127.0.0.2"), ends("fd00::1", "fd00::2")];
    for address in ["fd00::1", "fd00::2"] {
        address_on_loopback(address.parse().unwrap());
    }
    let mut enforcer = start(&families.map(|(pod, _)| pod));
    let mut reader = DropEventReader::open(group()).unwrap();
    assert_eq!(reader.read().unwrap(), None);
    for (pod, peer) in families {
        let socket = UdpSocket::bind((pod, 0)).unwrap();
        socket.send_to(b"x", (peer, 53)).unwrap();
        let DropEvent::Dropped(packet) = next(&mut reader) else { panic!("no dropped packet") };
        let expected = Headers {
            source: pod,
            destination: peer,
            protocol: Protocol::Udp,
            transport: TransportHeader::Ports {
                source: socket.local_addr().unwrap().port(),
                destination: 53,
            },
        };
        // The index of the loopback interface is 1.
        let (hook, direction) = (Some(Hook::Input), Direction::Egress);
        assert_eq!(
            packet,
            DroppedPacket { direction, audited: false, hook, headers: expected, incoming: Some(1), outgoing: None }
        );
        // Only the beginning of a large packet is copied.
        socket.send_to(&[0; 60_000], (peer, 54)).unwrap();
        let DropEvent::Dropped(packet) = next(&mut reader) else { panic!("no dropped packet") };
        assert_eq!(packet.port(), Some(54));
        dial(pod, SocketAddr::new(peer, 80), Duration::from_millis(50)).unwrap_err();
        let DropEvent::Dropped(packet) = next(&mut reader) else { panic!("no dropped packet") };
        assert_eq!((packet.headers.protocol, packet.port()), (Protocol::Tcp, Some(80)));
    }
    let counts = Tally::default().add(Counters::read(enforcer.kernel()).unwrap());
    assert!(counts.egress >= 6 && counts.ingress == 0 && counts.revoked == 0, "{counts:?}");
    enforcer.remove().unwrap();
    assert_eq!(Counters::read(enforcer.kernel()).unwrap(), Counters::default());
}

fn flood() {
    const PACKETS: u64 = 20_000;
    loopback_up();
    let (pod, peer) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
    let mut enforcer = start(&[pod]);
    let mut reader = DropEventReader::open(group()).unwrap();
    let socket = UdpSocket::bind((pod, 0)).unwrap();
    let began = std::time::Instant::now();
    for _ in 0..PACKETS {
        socket.send_to(b"x", (peer, 53)).unwrap();
    }
    let seconds = began.elapsed().as_secs() + 1;
    let counts = Tally::default().add(Counters::read(enforcer.kernel()).unwrap());
    assert_eq!(counts, Counts { egress: PACKETS, ..Counts::default() });
    let reported = sent(&mut reader);
    let most = u64::from(LOG_BURST) + palisade_nft::LOG_RATE * seconds;
    assert!(reported >= u64::from(LOG_BURST) && reported <= most, "{reported} of at most {most}");
    enforcer.remove().unwrap();
}

/// Returns how many packets the kernel logs until no more come, also those that the reader loses.
fn sent(reader: &mut DropEventReader) -> u64 {
    let mut sent = 0;
    while reader.wait(Duration::from_millis(300)).unwrap() {
        while let Some(event) = reader.read().unwrap() {
            sent += match event {
                DropEvent::Dropped(_) => 1,
                DropEvent::Lost(n) => u64::from(n),
                DropEvent::Unreadable(_) => panic!("{event:?}"),
            };
        }
    }
    sent
}

/// Returns the packets that are logged until no more come.
fn logged(reader: &mut DropEventReader) -> Vec<DroppedPacket> {
    let mut packets = Vec::new();
    while reader.wait(Duration::from_millis(300)).unwrap() {
        while let Some(event) = reader.read().unwrap() {
            let DropEvent::Dropped(packet) = event else { panic!("{event:?}") };
            packets.push(packet);
        }
    }
    packets
}

fn fair_shares() {
    loopback_up();
    for (flood, quiet, peer) in [("127.0.0.1", "127.0.0.3", "127.0.0.2"), ("fd00::1", "fd00::3", "fd00::2")] {
        let [flood, quiet, peer]: [IpAddr; 3] = [flood, quiet, peer].map(|a| a.parse().unwrap());
        for address in [flood, quiet, peer] {
            if let IpAddr::V6(address) = address {
                address_on_loopback(address);
            }
        }
        let mut enforcer = start(&[flood, quiet]);
        let mut reader = DropEventReader::open(group()).unwrap();
        let [flooding, calm] = [flood, quiet].map(|pod| UdpSocket::bind((pod, 0)).unwrap());
        let began = std::time::Instant::now();
        for _ in 0..20_000 {
            flooding.send_to(b"x", (peer, 53)).unwrap();
        }
        calm.send_to(b"x", (peer, 54)).unwrap();
        let seconds = began.elapsed().as_secs() + 1;
        let packets = logged(&mut reader);
        let of = |pod: IpAddr| packets.iter().filter(|packet| packet.headers.source == pod).count() as u64;
        assert_eq!(of(quiet), 1, "the neighbor");
        let most = u64::from(LOG_BURST) + palisade_nft::LOG_RATE * seconds;
        assert!(of(flood) >= u64::from(LOG_BURST) && of(flood) <= most, "{} of at most {most}", of(flood));
        let counts = Tally::default().add(Counters::read(enforcer.kernel()).unwrap());
        assert_eq!(counts.egress, 20_001, "each is counted");
        enforcer.remove().unwrap();
    }
}

/// Addresses that are not those of pods may be forged: each would have a share, and fill the set.
fn many_sources() {
    loopback_up();
    let (pod, peer) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
    let forged: Vec<IpAddr> = (0..2_000_u16).map(|n| [127, 1, (n >> 8) as u8, n as u8].into()).collect();
    let all: Vec<IpAddr> = forged.iter().copied().chain([pod]).collect();
    let mut plan = silent(&all);
    plan.local = [pod].into();
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
    let mut reader = DropEventReader::open(group()).unwrap();
    let began = std::time::Instant::now();
    for source in forged {
        UdpSocket::bind((source, 0)).unwrap().send_to(b"x", (peer, 53)).unwrap();
    }
    UdpSocket::bind((pod, 0)).unwrap().send_to(b"x", (peer, 54)).unwrap();
    let most = u64::from(LOG_BURST) + palisade_nft::LOG_RATE * (began.elapsed().as_secs() + 1);
    let packets = logged(&mut reader);
    assert_eq!(packets.iter().filter(|packet| packet.headers.source == pod).count(), 1);
    assert!(packets.len() as u64 <= most + 1, "{} of at most {most}", packets.len());
    enforcer.remove().unwrap();
}

/// Without a bound of all of them, the log costs the node more with each pod that it has.
fn all_pods() {
    const PODS: u8 = 60;
    loopback_up();
    let peer = IpAddr::from([127, 0, 0, 2]);
    let pods: Vec<IpAddr> = (1..=PODS).map(|n| [127, 2, 0, n].into()).collect();
    let mut enforcer = start(&pods);
    let mut reader = DropEventReader::open(group()).unwrap();
    let began = std::time::Instant::now();
    for pod in pods {
        let socket = UdpSocket::bind((pod, 0)).unwrap();
        for _ in 0..LOG_BURST {
            socket.send_to(b"x", (peer, 53)).unwrap();
        }
    }
    let seconds = began.elapsed().as_secs() + 1;
    let counts = Tally::default().add(Counters::read(enforcer.kernel()).unwrap());
    assert_eq!(counts, Counts { egress: u64::from(PODS) * u64::from(LOG_BURST), ..Counts::default() });
    let reported = sent(&mut reader);
    let most = u64::from(LOG_TOTAL_BURST) + LOG_TOTAL_RATE * seconds;
    assert!(reported >= u64::from(LOG_TOTAL_BURST) && reported <= most, "{reported} of at most {most}");
    enforcer.remove().unwrap();
}

/// Events that are not read in time are lost, and their number is reported.
fn slow() {
    loopback_up();
    let pod = IpAddr::from([127, 0, 0, 1]);
    let mut enforcer = start(&[pod]);
    let mut reader = DropEventReader::with_buffer(group(), 8 << 10).unwrap();
    let socket = UdpSocket::bind((pod, 0)).unwrap();
    for _ in 0..u64::from(LOG_BURST) {
        socket.send_to(&[0; 300], ("127.0.0.2", 53)).unwrap();
    }
    // Events that the kernel has batched are flushed, or lost too.
    std::thread::sleep(Duration::from_millis(300));
    let (mut reported, mut lost) = (0, 0);
    while reader.wait(Duration::from_millis(300)).unwrap() {
        while let Some(event) = reader.read().unwrap() {
            match event {
                DropEvent::Dropped(_) => reported += 1,
                DropEvent::Lost(n) => lost += n,
                DropEvent::Unreadable(_) => panic!("{event:?}"),
            }
        }
    }
    // One more packet reveals the gap.
    std::thread::sleep(Duration::from_millis(50));
    socket.send_to(b"x", ("127.0.0.2", 53)).unwrap();
    while reported + lost < LOG_BURST {
        match next(&mut reader) {
            DropEvent::Dropped(_) => reported += 1,
            DropEvent::Lost(n) => lost += n,
            event => panic!("{event:?}"),
        }
    }
    assert!(lost > 100, "{lost} lost, {reported} reported");
    enforcer.remove().unwrap();
}

fn one_reader() {
    let first = DropEventReader::open(group()).unwrap();
    let second = DropEventReader::open(group()).unwrap_err();
    assert!(matches!(second, Error::LogGroupBusy { .. }), "{second}");
    assert!(second.to_string().contains("another program"), "{second}");
    drop(first);
    assert!(!DropEventReader::open(group()).unwrap().wait(Duration::ZERO).unwrap());
}

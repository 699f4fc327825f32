//! Connections that a policy denies, and connections that are revoked: real packets over the loopback device.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use libtest_mimic::Trial;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use palisade_nft::{
    Enforcer, Kernel, NetlinkSocket, Transport,
    conntrack::{self, ConntrackEntry, FiveTuple, Revocation},
    reader::{Operation, Ruleset},
};
use palisade_policy::{Direction, NodePlan, PolicyTable, PolicyTableId, PortSet, Protocol, Traffic};

use crate::{
    entries::{self, Entry},
    sandbox::trial,
};

/// How long to wait for a packet that must not arrive.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);
/// How long to wait for a packet that must arrive. Retransmissions back off to some seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("revocation_stops_established_connections", packets_and_revocation),
        trial("an_entry_without_room_for_labels_is_deleted", no_room_for_labels),
        trial("a_connection_stays_revoked_without_its_entry", without_entry),
        trial("packets_are_compared_with_revoked_connections_only_while_there_may_be_any", compared),
        trial("connections_without_ports_in_both_directions_are_restored_one_by_one", both_directions),
        trial("revoked_connections_survive_a_restart_and_a_new_table", restart),
    ]
}

fn packets_and_revocation() {
    loopback_up();
    for (pod, peer) in [("127.0.0.1", "127.0.0.2"), ("::1", "::1")] {
        let (pod, peer): (IpAddr, IpAddr) = (pod.parse().unwrap(), peer.parse().unwrap());
        let open = TcpListener::bind((peer, 0)).unwrap();
        let closed = TcpListener::bind((peer, 0)).unwrap();
        let port = open.local_addr().unwrap().port();
        let plan = only_egress_to(pod, port);
        let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
        if pod != peer {
            let denied = dial(pod, closed.local_addr().unwrap(), SILENCE).unwrap_err();
            assert_eq!(denied.kind(), ErrorKind::TimedOut);
            assert!(dropped(&mut enforcer) > 0, "the drop is counted");
        }
        let client = dial(pod, open.local_addr().unwrap(), PATIENCE).unwrap();
        cut_and_restore(&mut enforcer, client, open.accept().unwrap().0, pod, port);
        enforcer.remove().unwrap();
    }
}

fn cut_and_restore(
    enforcer: &mut Enforcer,
    mut client: TcpStream,
    mut server: TcpStream,
    pod: IpAddr,
    port: u16,
) {
    passes(&mut client, &mut server, PATIENCE).unwrap();
    let connection = find(enforcer, pod, port);
    assert_eq!((connection.source, connection.destination), (pod, server.local_addr().unwrap().ip()));
    assert_eq!(connection.source_port, client.local_addr().unwrap().port());
    assert!(!connection.is_revoked() && !connection.translated);
    let kernel = enforcer.kernel();
    assert_eq!(conntrack::revoke(kernel, &connection).unwrap(), Revocation::Labeled);
    assert!(find(enforcer, pod, port).is_revoked());
    assert_eq!(
        passes(&mut client, &mut server, SILENCE).unwrap_err().kind(),
        ErrorKind::WouldBlock,
        "cut forwards"
    );
    assert_eq!(
        passes(&mut server, &mut client, SILENCE).unwrap_err().kind(),
        ErrorKind::WouldBlock,
        "cut backwards"
    );
    assert!(conntrack::restore(enforcer.kernel(), &connection).unwrap());
    assert!(!find(enforcer, pod, port).is_revoked());
    // Data that was sent meanwhile is retransmitted.
    read_one(&mut server, PATIENCE).unwrap();
    read_one(&mut client, PATIENCE).unwrap();
}

/// Entries that are older than the first label rule can't carry a label.
fn no_room_for_labels() {
    let ends = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
    entries::create([Entry::plain(ends, [1000, 2000])]);
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
    let local = BTreeSet::from([IpAddr::from([10, 0, 0, 1])]);
    let entries = conntrack::list(enforcer.kernel(), &local).unwrap();
    let [connection] = &entries[..] else { panic!("one entry, not {entries:?}") };
    assert_eq!(connection.to_string(), "TCP 10.0.0.1 port 1000 to 10.0.0.2 port 2000");
    assert_eq!(conntrack::revoke(enforcer.kernel(), connection).unwrap(), Revocation::Deleted);
    assert_eq!(conntrack::list(enforcer.kernel(), &local).unwrap(), []);
    assert_eq!(conntrack::revoke(enforcer.kernel(), connection).unwrap(), Revocation::Gone);
    assert!(!conntrack::restore(enforcer.kernel(), connection).unwrap());
    let stranger = BTreeSet::from([IpAddr::from([10, 0, 0, 9])]);
    assert_eq!(conntrack::list(enforcer.kernel(), &stranger).unwrap(), []);
}

/// A revoked connection is also known by its tuple, and neither end can open it again.
fn without_entry() {
    loopback_up();
    let (pod, peer): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap());
    let listener = TcpListener::bind((peer, 5000)).unwrap();
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &only_egress_to(pod, 5000)).unwrap();
    let mut client = dial(pod, listener.local_addr().unwrap(), PATIENCE).unwrap();
    let mut server = listener.accept().unwrap().0;
    passes(&mut client, &mut server, PATIENCE).unwrap();
    flush();
    passes(&mut server, &mut client, PATIENCE).expect("it is not revoked");

    let tuple = FiveTuple::from(&find_any(&mut enforcer, pod));
    let opener = if tuple.source == pod { tuple } else { tuple.reversed() };
    let connection = find_any(&mut enforcer, pod);
    let revoked = enforcer.revoke(&[(opener, &connection)]).unwrap();
    assert_eq!((revoked.revoked, revoked.not_remembered), (1, 0));
    assert!(enforcer.is_revoked(&opener) && !enforcer.is_revoked(&opener.reversed()));
    for _ in 0..3 {
        flush();
        assert_eq!(passes(&mut server, &mut client, SILENCE).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(passes(&mut client, &mut server, SILENCE).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    assert_eq!(
        conntrack::list(enforcer.kernel(), &BTreeSet::from([pod])).unwrap(),
        [],
        "no entry was created"
    );

    enforcer.restore(&[opener], &[]).unwrap();
    enforcer.restore(&[opener], &[]).expect("restoring a missing tuple succeeds");
    assert!(!enforcer.is_revoked(&opener));
    read_one(&mut server, PATIENCE).unwrap();
    read_one(&mut client, PATIENCE).unwrap();
    enforcer.remove().unwrap();
}

/// Whether the rules that every packet passes compare it with revoked connections.
fn compares(enforcer: &mut Enforcer) -> bool {
    assert!(enforcer.verify().unwrap().agrees());
    let ruleset = Ruleset::read(enforcer.kernel()).unwrap().unwrap();
    let leads_to_revoked = |chain: &str| {
        let text = format!("{:?}", ruleset.chains[chain].rules);
        text.contains("\"revoked\"")
    };
    let found = ["forward", "forward4", "forward6", "input", "input4", "input6", "output"].map(leads_to_revoked);
    assert!(found.iter().all(|one| *one == found[0]), "{found:?}");
    found[0]
}

fn compared() {
    loopback_up();
    let (pod, peer): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap());
    let listener = TcpListener::bind((peer, 5000)).unwrap();
    let plan = only_egress_to(pod, 5000);
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
    assert!(compares(&mut enforcer), "a previous run may have revoked some");
    enforcer.none_revoked().unwrap();
    assert!(!compares(&mut enforcer));
    enforcer.none_revoked().expect("once more");

    let mut client = dial(pod, listener.local_addr().unwrap(), PATIENCE).unwrap();
    let mut server = listener.accept().unwrap().0;
    passes(&mut client, &mut server, PATIENCE).unwrap();
    let connection = find(&mut enforcer, pod, 5000);
    let opener = FiveTuple::from(&connection);
    assert_eq!(enforcer.revoke(&[(opener, &connection)]).unwrap().revoked, 1);
    assert!(compares(&mut enforcer));
    assert!(find(&mut enforcer, pod, 5000).is_revoked(), "the entry had room for the label");
    assert_eq!(passes(&mut client, &mut server, SILENCE).unwrap_err().kind(), ErrorKind::WouldBlock);
    enforcer.none_revoked().unwrap();
    assert!(compares(&mut enforcer), "the kernel remembers one");
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
    enforcer.none_revoked().unwrap();
    assert!(compares(&mut enforcer), "it also remembers one of a previous run");

    enforcer.restore(&[opener], &[&connection]).unwrap();
    enforcer.none_revoked().unwrap();
    assert!(!compares(&mut enforcer));
    read_one(&mut server, PATIENCE).unwrap();
    // A repair adds the rules again, in case a connection has been revoked since.
    enforcer.repair().unwrap();
    assert!(compares(&mut enforcer));
    enforcer.remove().unwrap();
}

/// Flushes all connections of the calling thread's network namespace, as `conntrack -F` does.
pub(crate) fn flush() {
    // `IPCTNL_MSG_CT_DELETE` without a tuple, NLM_F_REQUEST and ACK, AF_UNSPEC.
    let message = [20, 0, 0, 0, 2, 1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut socket = NetlinkSocket::open().unwrap();
    socket.send(&message).unwrap();
    assert_eq!(socket.receive(true).unwrap()[16..20], [0; 4], "flushed");
}

/// Returns the connection of a pod, whichever end its entry has as the opener.
fn find_any(enforcer: &mut Enforcer, pod: IpAddr) -> ConntrackEntry {
    let all = conntrack::list(enforcer.kernel(), &BTreeSet::from([pod])).unwrap();
    all.into_iter().find(|c| c.port == 5000 || c.source_port == 5000).expect("a connection to port 5000")
}

/// A 3-tuple and its reverse may both be revoked, and share elements.
fn both_directions() {
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
    let tuple = |protocol| FiveTuple {
        source: IpAddr::from([10, 0, 0, 1]),
        destination: IpAddr::from([10, 0, 0, 2]),
        protocol,
        source_port: 0,
        port: 0,
    };
    let (gre, icmp) = (tuple(Protocol::Other(47)), tuple(Protocol::Other(1)));
    entries::create([Entry::plain([gre.source, gre.destination], [1000, 2000])]);
    let ends = BTreeSet::from([gre.source]);
    let entry = conntrack::list(enforcer.kernel(), &ends).unwrap().remove(0);
    let both = [gre, gre.reversed()];
    enforcer.revoke(&both.map(|tuple| (tuple, &entry))).unwrap();
    enforcer.revoke(&[(icmp, &entry)]).unwrap();
    assert!(!enforcer.is_revoked(&icmp), "an ICMP reply creates no entry");
    let in_kernel = || {
        let (reader, _) = Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
        reader.revoked().count()
    };
    assert_eq!(in_kernel(), 2, "read back as two");
    // `in_kernel` has written another transaction number.
    enforcer.repair().unwrap();
    enforcer.restore(&[gre, icmp], &[]).unwrap();
    assert!(in_kernel() > 0 && enforcer.is_revoked(&gre.reversed()), "the other direction is still revoked");
    enforcer.repair().unwrap();
    enforcer.revoke(&[(gre, &entry)]).unwrap();
    enforcer.restore(&[both[0], both[1], icmp, icmp.reversed()], &[]).unwrap();
    assert_eq!(in_kernel(), 0);
    enforcer.remove().unwrap();
}

fn restart() {
    let udp = |n: u16| {
        let ends = if n.is_multiple_of(2) {
            [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])]
        } else {
            ["fd00::1".parse().unwrap(), "fd00::2".parse().unwrap()]
        };
        Entry { protocol: 17, ..Entry::plain(ends, [40_000 + n, 53]) }
    };
    entries::create((0..900).map(udp));
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
    let ends = BTreeSet::from([IpAddr::from([10, 0, 0, 1]), "fd00::1".parse().unwrap()]);
    let listed = conntrack::list(enforcer.kernel(), &ends).unwrap();
    let revoked: Vec<_> = listed.iter().map(|c| (FiveTuple::from(c), c)).collect();
    assert_eq!(enforcer.revoke(&revoked).unwrap().revoked, 900);
    let listed = conntrack::list(enforcer.kernel(), &ends).unwrap();
    assert_eq!(listed.len(), 900, "entries without room for labels were replaced");
    assert!(listed.iter().all(ConntrackEntry::is_revoked));
    let expected: BTreeSet<FiveTuple> = enforcer.revoked().collect();
    assert_eq!(expected.len(), 900);
    assert!(expected.iter().all(|tuple| tuple.port == 53), "from opener to answerer");
    drop(enforcer);

    let (mut again, _) = Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
    assert_eq!(again.revoked().collect::<BTreeSet<_>>(), expected, "read back");
    assert!(again.verify().unwrap().agrees());
    palisade_nft::remove(&mut Kernel::open().unwrap()).unwrap();
    again.repair().unwrap();
    let in_kernel = || {
        let (reader, _) = Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
        let (v4, v6): (Vec<FiveTuple>, Vec<FiveTuple>) = reader.revoked().partition(|t| t.source.is_ipv4());
        [v4.len(), v6.len()]
    };
    assert_eq!(in_kernel(), [450, 450], "in a new table");
    again.repair().unwrap();
    let (v4, v6): (Vec<FiveTuple>, Vec<FiveTuple>) = expected.iter().partition(|t| t.source.is_ipv4());
    again.restore(&v4, &[]).unwrap();
    assert_eq!(in_kernel(), [0, 450]);
    again.repair().unwrap();
    again.restore(&v6, &[]).unwrap();
    assert_eq!(in_kernel(), [0, 0]);
    again.remove().unwrap();
}

pub(crate) fn only_egress_to(pod: IpAddr, port: u16) -> NodePlan {
    let id = PolicyTableId([1; 16]);
    let rest = Traffic::of(Protocol::Tcp, PortSet::range(port, port));
    let table =
        PolicyTable { direction: Direction::Egress, exact: BTreeMap::new(), ranges: BTreeMap::new(), rest };
    NodePlan {
        egress: BTreeMap::from([(pod, id)]),
        tables: BTreeMap::from([(id, table)]),
        ..NodePlan::default()
    }
}

fn find(enforcer: &mut Enforcer, pod: IpAddr, port: u16) -> ConntrackEntry {
    let all = conntrack::list(enforcer.kernel(), &BTreeSet::from([pod])).unwrap();
    let found: Vec<ConntrackEntry> = all.into_iter().filter(|c| c.port == port).collect();
    let [one] = &found[..] else { panic!("one connection, not {found:?}") };
    one.clone()
}

/// Returns the packets that the drop rules counted.
fn dropped(enforcer: &mut Enforcer) -> u64 {
    let ruleset = Ruleset::read(enforcer.kernel()).unwrap().unwrap();
    let rows = ruleset.chains.iter().filter(|(name, _)| name.starts_with("row_"));
    let counters = rows.flat_map(|(_, chain)| chain.rules.iter().flatten());
    counters.map(|op| if let Operation::Counter { packets, .. } = op { *packets } else { 0 }).sum()
}

pub(crate) fn passes(from: &mut TcpStream, to: &mut TcpStream, patience: Duration) -> std::io::Result<()> {
    from.write_all(b"x")?;
    read_one(to, patience)
}

fn read_one(stream: &mut TcpStream, patience: Duration) -> std::io::Result<()> {
    stream.set_read_timeout(Some(patience))?;
    stream.read_exact(&mut [0])
}

/// Connects from the given address.
pub(crate) fn dial(from: IpAddr, to: SocketAddr, patience: Duration) -> std::io::Result<TcpStream> {
    dial_from(SocketAddr::new(from, 0), to, patience)
}

/// Connects from the given address and port.
pub(crate) fn dial_from(from: SocketAddr, to: SocketAddr, patience: Duration) -> std::io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let timeout =
        nix::sys::time::TimeVal::new(patience.as_secs() as i64, i64::from(patience.subsec_micros()));
    // The send timeout applies to connect.
    setsockopt(&fd, sockopt::SendTimeout, &timeout)?;
    use std::os::fd::AsRawFd;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(from))?;
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) => Ok(TcpStream::from(fd)),
        Err(nix::errno::Errno::EINPROGRESS) => Err(ErrorKind::TimedOut.into()),
        Err(e) => Err(e.into()),
    }
}

/// Adds an IPv6 address to the loopback device, usable at once (`IFA_F_NODAD`).
pub(crate) fn address_on_loopback(address: std::net::Ipv6Addr) {
    // RTM_NEWADDR with NLM_F_REQUEST, ACK, CREATE; then ifaddrmsg and IFA_LOCAL.
    let mut message = vec![44, 0, 0, 0, 20, 0, 5, 4, 0, 0, 0, 0, 0, 0, 0, 0, 10, 128, 2, 0, 1, 0, 0, 0];
    message.extend([20, 0, 2, 0]);
    message.extend(address.octets());
    ask_route(&message);
}

pub(crate) fn loopback_up() {
    // RTM_NEWLINK for link 1 with IFF_UP to set.
    let mut message = vec![0u8; 32];
    message[0] = 32;
    message[4] = 16;
    message[6] = 1 | 4;
    message[20] = 1;
    message[24] = 1;
    message[28] = 1;
    ask_route(&message);
}

fn ask_route(message: &[u8]) {
    let mut socket = Socket::new(NETLINK_ROUTE).unwrap();
    socket.bind_auto().unwrap();
    socket.send_to(message, &netlink_sys::SocketAddr::new(0, 0), 0).unwrap();
    let (answer, _) = socket.recv_from_full().unwrap();
    assert_eq!(answer[16..20], [0; 4], "done");
}

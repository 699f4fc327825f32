//! Packets that no policy speaks of: to everybody on a bridge, or by link-local addresses. They pass while nobody on the
//! node is isolated, and not past policies after that.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use libtest_mimic::Failed;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use palisade_lab::{Lab, LayoutOptions, Place, Sandbox, agent::palisade};
use palisade_nft::drops::{Event, Reader};
use palisade_policy::{Change, Cluster, Direction, PolicyKey};

use crate::{build, clusters::*, ensure, must_agree};

pub(crate) const TESTS: &[crate::Test] = &[
    ("link::nothing_shared_passes_an_ingress_policy_on_a_bridge", |s| shared(s, Direction::Ingress)),
    ("link::nothing_shared_passes_an_egress_policy_on_a_bridge", |s| shared(s, Direction::Egress)),
    ("link::a_live_connection_by_link_local_addresses_is_cut", cut),
    ("link::drops_of_shared_packets_are_told", told),
];

/// Of every pod here.
const ETH0: u32 = 2;
const PORT: u16 = 7777;

/// A network that both pods are given beside their addresses, for its broadcast address.
const SUBNET: [u8; 3] = [172, 31, 255];

/// Three pods of one node; `b` is the one who sends or is sent to, and the other is open.
fn three() -> Cluster {
    cluster([on("n1", pod("a")), on("n1", pod("b")), on("n1", pod("c"))])
}

fn closed(direction: Direction) -> Change {
    let (ingress, egress) = match direction {
        Direction::Ingress => (Some(Vec::new()), None),
        Direction::Egress => (None, Some(Vec::new())),
    };
    // The receiver's ingress, or the sender's egress.
    let whose = if direction == Direction::Ingress { "b" } else { "a" };
    Change::SetPolicy(policy("closed", whose, ingress, egress))
}

fn bridged(sandbox: &Sandbox, cluster: &Cluster) -> Result<Lab, Failed> {
    build(sandbox, cluster, &LayoutOptions { bridged: true, ..LayoutOptions::default() }, palisade())
}

fn within<T: Send>(lab: &Lab, pod: &str, f: impl FnOnce() -> io::Result<T> + Send) -> Result<T, Failed> {
    Ok(lab.run_in(&Place::Pod(key(pod)), f).map_err(|e| crate::chain(&e))??)
}

/// The link-local address of the calling thread's `eth0`.
fn link_local() -> io::Result<Ipv6Addr> {
    let text = fs::read_to_string("/proc/thread-self/net/if_inet6")?;
    let own = text
        .lines()
        .filter(|line| line.ends_with("eth0"))
        .filter_map(|line| u128::from_str_radix(line.get(..32)?, 16).ok().map(Ipv6Addr::from));
    own.into_iter()
        .find(Ipv6Addr::is_unicast_link_local)
        .ok_or_else(|| io::Error::other("no link-local address"))
}

fn by_link(address: Ipv6Addr) -> SocketAddr {
    SocketAddrV6::new(address, PORT, 0, ETH0).into()
}

/// Gives the calling thread's `eth0` an address of [`SUBNET`].
fn join_subnet(host: u8) -> io::Result<()> {
    let [a, b, c] = SUBNET;
    let address = |host| Ipv4Addr::new(a, b, c, host);
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = 24;
    message.header.index = ETH0;
    message.attributes = vec![
        AddressAttribute::Local(address(host).into()),
        AddressAttribute::Address(address(host).into()),
        AddressAttribute::Broadcast(address(255)),
    ];
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
    let mut request =
        NetlinkMessage::new(header, NetlinkPayload::from(RouteNetlinkMessage::NewAddress(message)));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?.payload {
        NetlinkPayload::Error(e) if e.code.is_some() => Err(e.to_io()),
        _ => Ok(()),
    }
}

/// The ways round a pod's address, with what to send to.
fn ways(to: Ipv6Addr) -> [(&'static str, SocketAddr); 5] {
    let [a, b, c] = SUBNET;
    let v4 = |address: [u8; 4]| SocketAddr::new(IpAddr::from(address), PORT);
    [
        ("link-local", by_link(to)),
        ("all nodes of the link", by_link(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1))),
        ("all hosts of the link", v4([224, 0, 0, 1])),
        ("everybody", v4([255; 4])),
        ("everybody of the subnet", v4([a, b, c, 255])),
    ]
}

fn any(family_of: SocketAddr) -> SocketAddr {
    SocketAddr::new(
        if family_of.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() },
        0,
    )
}

/// Whether a datagram of pod `a` arrives at pod `b`.
fn arrives(lab: &Lab, target: SocketAddr, patience: Duration) -> Result<bool, Failed> {
    let receiver = within(lab, "b", || UdpSocket::bind((any(target).ip(), PORT)))?;
    receiver.set_read_timeout(Some(patience / 4))?;
    // From the pod's own address: one of the subnet, of which the node knows nothing, would be a forged one.
    let own = lab.layout().pods[&key("a")].addresses.iter().copied().find(IpAddr::is_ipv4);
    let from = own.filter(|_| target.is_ipv4()).map_or(any(target), |own| SocketAddr::new(own, 0));
    let sender = within(lab, "a", || UdpSocket::bind(from))?;
    sender.set_broadcast(target.is_ipv4())?;
    Ok((0..4).any(|_| sender.send_to(b"round", target).is_ok() && receiver.recv(&mut [0; 8]).is_ok()))
}

fn connects(lab: &Lab, target: SocketAddr, patience: Duration) -> Result<bool, Failed> {
    let _listener = within(lab, "b", || TcpListener::bind((any(target).ip(), PORT)))?;
    within(lab, "a", || Ok(TcpStream::connect_timeout(&target, patience).is_ok()))
}

const PATIENCE: Duration = Duration::from_secs(8);
const SILENCE: Duration = Duration::from_millis(800);

fn shared(sandbox: &Sandbox, direction: Direction) -> Result<(), Failed> {
    let open = three();
    let mut lab = bridged(sandbox, &open)?;
    for (pod, host) in [("a", 1), ("b", 2)] {
        within(&lab, pod, || join_subnet(host))?;
    }
    let b = within(&lab, "b", link_local)?;
    let every_way_is = |lab: &Lab, passes: bool| -> Result<(), Failed> {
        let patience = if passes { PATIENCE } else { SILENCE };
        let mut wrong = Vec::new();
        for (name, target) in ways(b) {
            if arrives(lab, target, patience)? != passes {
                wrong.push(format!("UDP to {name} ({target})"));
            }
        }
        if connects(lab, by_link(b), patience)? != passes {
            wrong.push("TCP to the link-local address".to_owned());
        }
        ensure(wrong.is_empty(), || {
            format!("{}: {}", if passes { "does not pass" } else { "passes" }, wrong.join(", "))
        })
    };
    every_way_is(&lab, true)?;
    let mut isolated = open.clone();
    isolated.apply(closed(direction));
    lab.update(&isolated).map_err(|e| crate::chain(&e))?;
    every_way_is(&lab, false)?;
    // Neighbour discovery, which is by link-local and multicast addresses, goes on.
    must_agree(&lab)?;
    lab.update(&open).map_err(|e| crate::chain(&e))?;
    every_way_is(&lab, true)
}

fn cut(sandbox: &Sandbox) -> Result<(), Failed> {
    use io::{Read, Write};
    let mut c = three();
    let mut lab = bridged(sandbox, &c)?;
    let b = within(&lab, "b", link_local)?;
    let listener = within(&lab, "b", || TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)))?;
    let mut client = within(&lab, "a", || TcpStream::connect_timeout(&by_link(b), PATIENCE))?;
    let (mut server, _) = listener.accept()?;
    server.set_read_timeout(Some(SILENCE))?;
    client.write_all(b"x")?;
    server.read_exact(&mut [0])?;
    c.apply(closed(Direction::Ingress));
    lab.update(&c).map_err(|e| crate::chain(&e))?;
    client.write_all(b"x")?;
    ensure(server.read_exact(&mut [0]).is_err(), || "an intruder's connection goes on".into())?;
    // It is let go on when nothing forbids it any more, as others are.
    c.apply(Change::RemovePolicy(PolicyKey::network_policy("x", "closed")));
    lab.update(&c).map_err(|e| crate::chain(&e))?;
    server.set_read_timeout(Some(PATIENCE))?;
    server.read_exact(&mut [0])?;
    Ok(())
}

fn told(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut c = three();
    c.apply(closed(Direction::Ingress));
    let lab = bridged(sandbox, &c)?;
    let b = within(&lab, "b", link_local)?;
    for (name, target) in &ways(b)[..4] {
        let mut reader =
            lab.run_in(&Place::Node("n1".into()), || Reader::open(GROUP))?.map_err(|e| crate::chain(&e))?;
        ensure(!arrives(&lab, *target, SILENCE)?, || format!("{name} arrives"))?;
        ensure(reader.wait(Duration::from_secs(10))?, || format!("{name}: nothing is told"))?;
        let Some(Event::Dropped(drop)) = reader.read()? else { return Err("no drop is told".into()) };
        ensure(drop.headers.destination == target.ip() && drop.direction == Direction::Ingress, || {
            format!("{name}: {drop:?}")
        })?;
    }
    Ok(())
}

/// The agent's own.
const GROUP: u16 = 9043;

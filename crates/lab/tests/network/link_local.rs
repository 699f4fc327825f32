//! Packets to broadcast, multicast and link-local addresses on a bridge. They pass as long as no pod on the node is isolated; from
//! then on they are denied.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
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
use palisade_lab::{Lab, LayoutOptions, Place, Sandbox, agent::palisade, with_causes};
use palisade_netns::rtnetlink::{LOOPBACK, Netlink};
use palisade_nft::drops::{DropEvent, DropEventReader};
use palisade_policy::{Change, Cluster, Direction, PolicyKey, Protocol};
use socket2::{Domain, Socket as InetSocket, Type};

use crate::{
    clusters::*,
    harness::{Test, build, ensure, must_agree, update},
};

pub(crate) const TESTS: &[Test] = &[
    ("link_local::an_ingress_policy_denies_all_link_scope_packets_on_a_bridge", |s| {
        denied(s, Direction::Ingress)
    }),
    ("link_local::an_egress_policy_denies_all_link_scope_packets_on_a_bridge", |s| {
        denied(s, Direction::Egress)
    }),
    ("link_local::an_established_connection_between_link_local_addresses_is_revoked", revoked),
    ("link_local::denied_link_scope_packets_are_reported", reported),
    ("link_local::egress_policies_decide_about_the_own_node_on_a_bridge", |s| own_node(s, true)),
    ("link_local::egress_policies_decide_about_the_own_node_when_routed", |s| own_node(s, false)),
    ("link_local::egress_policies_decide_about_ipv4_addresses_of_the_own_node_on_a_bridge", |s| {
        own_node_v4(s, true)
    }),
    ("link_local::egress_policies_decide_about_ipv4_addresses_of_the_own_node_when_routed", |s| {
        own_node_v4(s, false)
    }),
];

/// The interface index of `eth0` in every pod.
const ETH0: u32 = 2;
const PORT: u16 = 7777;

/// A network in which both pods get another address, because of its broadcast address.
const SUBNET: [u8; 3] = [172, 31, 255];

/// Returns a cluster with three pods on one node.
fn three() -> Cluster {
    cluster([on("n1", pod("a")), on("n1", pod("b")), on("n1", pod("c"))])
}

fn closed(direction: Direction) -> Change {
    let (ingress, egress) = match direction {
        Direction::Ingress => (Some(Vec::new()), None),
        Direction::Egress => (None, Some(Vec::new())),
    };
    // The receiver's ingress, or the sender's egress.
    let app = if direction == Direction::Ingress { "b" } else { "a" };
    Change::SetPolicy(policy("closed", app, ingress, egress))
}

fn bridged(sandbox: &Sandbox, cluster: &Cluster) -> Result<Lab, Failed> {
    build(sandbox, cluster, &LayoutOptions { bridged: true, ..LayoutOptions::default() }, palisade())
}

fn within<T: Send>(lab: &Lab, pod: &str, f: impl FnOnce() -> io::Result<T> + Send) -> Result<T, Failed> {
    Ok(lab.run_in(&Place::Pod(key(pod)), f).map_err(|e| with_causes(&e))??)
}

/// Returns the link-local address of the calling thread's `eth0`.
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

/// Returns the names and addresses at which a pod receives packets without its own address.
fn targets(to: Ipv6Addr) -> [(&'static str, SocketAddr); 5] {
    let [a, b, c] = SUBNET;
    let v4 = |address: [u8; 4]| SocketAddr::new(IpAddr::from(address), PORT);
    [
        ("link-local", by_link(to)),
        ("all nodes of the link", by_link(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1))),
        ("all hosts of the link", v4([224, 0, 0, 1])),
        ("limited broadcast", v4([255; 4])),
        ("broadcast of the subnet", v4([a, b, c, 255])),
    ]
}

fn any(family_of: SocketAddr) -> SocketAddr {
    SocketAddr::new(
        if family_of.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() },
        0,
    )
}

/// Returns whether a datagram from pod `a` arrives at pod `b`.
fn arrives(lab: &Lab, target: SocketAddr, patience: Duration) -> Result<bool, Failed> {
    let receiver = within(lab, "b", || UdpSocket::bind((any(target).ip(), PORT)))?;
    receiver.set_read_timeout(Some(patience / 4))?;
    // Sent from the pod's own address: the node would treat the address in the subnet as forged.
    let own = lab.layout().pods[&key("a")].addresses.iter().copied().find(IpAddr::is_ipv4);
    let from = own.filter(|_| target.is_ipv4()).map_or(any(target), |own| SocketAddr::new(own, 0));
    let sender = within(lab, "a", || UdpSocket::bind(from))?;
    sender.set_broadcast(target.is_ipv4())?;
    Ok((0..4).any(|_| sender.send_to(b"probe", target).is_ok() && receiver.recv(&mut [0; 8]).is_ok()))
}

fn connects(lab: &Lab, target: SocketAddr, patience: Duration) -> Result<bool, Failed> {
    let _listener = within(lab, "b", || TcpListener::bind((any(target).ip(), PORT)))?;
    within(lab, "a", || Ok(TcpStream::connect_timeout(&target, patience).is_ok()))
}

const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);
/// A packet that hasn't arrived after this time was denied.
const SILENCE: Duration = Duration::from_millis(800);

fn denied(sandbox: &Sandbox, direction: Direction) -> Result<(), Failed> {
    let open = three();
    let mut lab = bridged(sandbox, &open)?;
    for (pod, host) in [("a", 1), ("b", 2)] {
        within(&lab, pod, || join_subnet(host))?;
    }
    let b = within(&lab, "b", link_local)?;
    let expect_all = |lab: &Lab, passes: bool| -> Result<(), Failed> {
        let patience = if passes { ARRIVAL_TIMEOUT } else { SILENCE };
        let mut unexpected = Vec::new();
        for (name, target) in targets(b) {
            if arrives(lab, target, patience)? != passes {
                unexpected.push(format!("UDP to {name} ({target})"));
            }
        }
        if connects(lab, by_link(b), patience)? != passes {
            unexpected.push("TCP to the link-local address".to_owned());
        }
        ensure(unexpected.is_empty(), || {
            format!("{}: {}", if passes { "does not pass" } else { "passes" }, unexpected.join(", "))
        })
    };
    expect_all(&lab, true)?;
    let mut isolated = open.clone();
    isolated.apply(closed(direction));
    update(&mut lab, &isolated)?;
    expect_all(&lab, false)?;
    // Neighbor discovery, which uses link-local and multicast addresses, still works.
    must_agree(&lab)?;
    update(&mut lab, &open)?;
    expect_all(&lab, true)
}

fn revoked(sandbox: &Sandbox) -> Result<(), Failed> {
    use io::{Read, Write};
    let mut c = three();
    let mut lab = bridged(sandbox, &c)?;
    let b = within(&lab, "b", link_local)?;
    let listener = within(&lab, "b", || TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)))?;
    let mut client = within(&lab, "a", || TcpStream::connect_timeout(&by_link(b), ARRIVAL_TIMEOUT))?;
    let (mut server, _) = listener.accept()?;
    server.set_read_timeout(Some(SILENCE))?;
    client.write_all(b"x")?;
    server.read_exact(&mut [0])?;
    c.apply(closed(Direction::Ingress));
    update(&mut lab, &c)?;
    client.write_all(b"x")?;
    ensure(server.read_exact(&mut [0]).is_err(), || "a denied connection still passes data".into())?;
    // It is restored when no policy denies it anymore.
    c.apply(Change::RemovePolicy(PolicyKey::network_policy("x", "closed")));
    update(&mut lab, &c)?;
    server.set_read_timeout(Some(ARRIVAL_TIMEOUT))?;
    server.read_exact(&mut [0])?;
    Ok(())
}

fn reported(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut c = three();
    c.apply(closed(Direction::Ingress));
    let lab = bridged(sandbox, &c)?;
    let b = within(&lab, "b", link_local)?;
    for (name, target) in &targets(b)[..4] {
        let mut reader = lab
            .run_in(&Place::Node("n1".into()), || DropEventReader::open(GROUP))?
            .map_err(|e| with_causes(&e))?;
        ensure(!arrives(&lab, *target, SILENCE)?, || format!("{name} arrives"))?;
        ensure(reader.wait(Duration::from_secs(60))?, || format!("{name}: no drop event"))?;
        let Some(DropEvent::Dropped(drop)) = reader.read()? else {
            return Err("the event is no drop".into());
        };
        ensure(drop.headers.destination == target.ip() && drop.direction == Direction::Ingress, || {
            format!("{name}: {drop:?}")
        })?;
    }
    Ok(())
}

/// Returns a socket with the link-local address of the calling thread's `eth0`, once the kernel knows that no other host has it.
fn from_link_local() -> io::Result<InetSocket> {
    let begin = Instant::now();
    loop {
        let socket = InetSocket::new(Domain::IPV6, Type::STREAM, None)?;
        let bound = link_local().and_then(|own| socket.bind(&SocketAddrV6::new(own, 0, 0, ETH0).into()));
        match bound {
            Ok(()) => return Ok(socket),
            Err(error) if begin.elapsed() > ARRIVAL_TIMEOUT => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// A pod and its own node by their link-local addresses, in new and in established connections.
fn own_node(sandbox: &Sandbox, bridged: bool) -> Result<(), Failed> {
    use io::{Read, Write};
    /// The node's end of every pod's link.
    const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let open = three();
    let options = LayoutOptions { bridged, ..LayoutOptions::default() };
    let mut lab = build(sandbox, &open, &options, palisade())?;
    let bind = || TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT));
    let listener = lab.run_in(&Place::Node("n1".into()), bind).map_err(|e| with_causes(&e))??;
    let connect = |lab: &Lab, pod: &str, patience| {
        let connect = |socket: InetSocket| {
            let connected = socket.connect_timeout(&by_link(GATEWAY).into(), patience);
            connected.map(|()| TcpStream::from(socket))
        };
        within(lab, pod, || Ok(connect(from_link_local()?)))
    };
    let mut client = connect(&lab, "a", ARRIVAL_TIMEOUT)??;
    let (mut server, from) = listener.accept()?;
    ensure(matches!(from.ip(), IpAddr::V6(a) if a.is_unicast_link_local()), || format!("from {from}"))?;
    let mut with = |direction| -> Result<(), Failed> {
        let mut isolated = open.clone();
        isolated.apply(closed(direction));
        update(&mut lab, &isolated)?;
        let passes = direction == Direction::Ingress;
        let patience = if passes { ARRIVAL_TIMEOUT } else { SILENCE };
        // No policy selects pod c.
        for (pod, passes) in [("a", passes), ("c", true)] {
            let patience = if passes { ARRIVAL_TIMEOUT } else { SILENCE };
            let connected = connect(&lab, pod, patience)?.is_ok();
            ensure(connected == passes, || format!("{direction:?}, {pod}: {connected}"))?;
        }
        client.write_all(b"x")?;
        server.set_read_timeout(Some(patience))?;
        let arrived = server.read_exact(&mut [0]).is_ok();
        ensure(arrived == passes, || format!("{direction:?}, established: {arrived}"))?;
        // Neighbor discovery uses these addresses.
        must_agree(&lab).map(drop)
    };
    with(Direction::Ingress)?;
    with(Direction::Egress)?;
    for (cidr, port, passes) in [
        ("::/0", PORT, true),
        ("fe80::/10", PORT, true),
        ("fe80::1/128", PORT, true),
        ("fe80::/10", PORT + 100, false),
        ("fd00::/8", PORT, false),
        ("0.0.0.0/0", PORT, false),
    ] {
        let mut allowed = open.clone();
        allowed.apply(to_block(cidr, &[], port));
        update(&mut lab, &allowed)?;
        let patience = if passes { ARRIVAL_TIMEOUT } else { SILENCE };
        let connected = connect(&lab, "a", patience)?.is_ok();
        ensure(connected == passes, || format!("{cidr} port {port}: {connected}"))?;
        ensure(connect(&lab, "c", ARRIVAL_TIMEOUT)?.is_ok(), || format!("{cidr}: pod c"))?;
    }
    update(&mut lab, &open)?;
    connect(&lab, "a", ARRIVAL_TIMEOUT)??;
    // What was sent meanwhile is sent again.
    server.set_read_timeout(Some(ARRIVAL_TIMEOUT))?;
    Ok(server.read_exact(&mut [0])?)
}

/// Returns a policy that lets pod `a` send TCP to this port of a block, and nothing else but to some ports around it: the lab listens on the
/// first and the last port of each range.
fn to_block(cidr: &str, except: &[&str], port: u16) -> Change {
    let rule = rule(Some(vec![block(cidr, except)]), Some(vec![ports(Protocol::Tcp, port - 20, port + 20)]));
    Change::SetPolicy(policy("to-block", "a", None, Some(vec![rule])))
}

/// Where NodeLocal DNSCache and a cloud's metadata service listen, both on the node.
const DNS: Ipv4Addr = Ipv4Addr::new(169, 254, 20, 10);
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// A pod and its own node by the node's IPv4 link-local addresses, and by one of the pod.
fn own_node_v4(sandbox: &Sandbox, bridged: bool) -> Result<(), Failed> {
    let open = three();
    let options = LayoutOptions { bridged, ..LayoutOptions::default() };
    let mut lab = build(sandbox, &open, &options, palisade())?;
    let node = Place::Node("n1".into());
    let listen = || {
        let mut netlink = Netlink::open().map_err(io::Error::other)?;
        for address in [DNS, METADATA] {
            netlink.address(LOOPBACK, address.into(), false);
        }
        netlink.commit().map_err(io::Error::other)?;
        let bind = |address: Ipv4Addr| TcpListener::bind((address, PORT));
        Ok::<_, io::Error>((bind(DNS)?, bind(METADATA)?, UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?))
    };
    let (_dns, _metadata, receiver) = lab.run_in(&node, listen).map_err(|e| with_causes(&e))??;
    let connect = |lab: &Lab, pod: &str, to: Ipv4Addr, patience| {
        within(lab, pod, || Ok(TcpStream::connect_timeout(&SocketAddr::from((to, PORT)), patience).is_ok()))
    };
    let dns = DNS.to_string() + "/32";
    let metadata = METADATA.to_string() + "/32";
    let cases = [
        ("nothing", closed(Direction::Egress), false, false),
        ("the DNS server", to_block(&dns, &[], PORT), true, false),
        ("another port of the DNS server", to_block(&dns, &[], PORT + 100), false, false),
        ("all but the metadata", to_block("0.0.0.0/0", &[&metadata], PORT), true, false),
        ("the metadata", to_block(&metadata, &[], PORT), false, true),
        ("link-local addresses", to_block("169.254.0.0/16", &[], PORT), true, true),
        ("IPv6", to_block("::/0", &[], PORT), false, false),
        ("ingress is isolated", closed(Direction::Ingress), true, true),
    ];
    for (allowed, policy, to_dns, to_metadata) in cases {
        let mut next = open.clone();
        next.apply(policy);
        update(&mut lab, &next)?;
        for (pod, to, passes) in
            [("a", DNS, to_dns), ("a", METADATA, to_metadata), ("c", DNS, true), ("c", METADATA, true)]
        {
            let patience = if passes { ARRIVAL_TIMEOUT } else { SILENCE };
            let connected = connect(&lab, pod, to, patience)?;
            ensure(connected == passes, || format!("{allowed}: {pod} to {to}: {connected}"))?;
        }
    }
    // A pod's own address of this kind leads back nowhere, so it is a forged one.
    let mut isolated = open;
    isolated.apply(closed(Direction::Egress));
    update(&mut lab, &isolated)?;
    let own = Ipv4Addr::new(169, 254, 7, 7);
    let send = || {
        let mut netlink = Netlink::open().map_err(io::Error::other)?;
        netlink.address(ETH0, own.into(), false).commit().map_err(io::Error::other)?;
        let sender = UdpSocket::bind((own, 0))?;
        [DNS, METADATA].into_iter().try_for_each(|to| sender.send_to(b"x", (to, PORT)).map(drop))
    };
    within(&lab, "a", send)?;
    receiver.set_read_timeout(Some(SILENCE))?;
    ensure(receiver.recv(&mut [0; 8]).is_err(), || {
        "a packet from a link-local address of a pod arrives".into()
    })
}

/// The agent's nflog group.
const GROUP: u16 = 9043;

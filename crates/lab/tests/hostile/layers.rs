//! Packets that netfilter sees differently, or not at all: forged addresses, discovery messages that are none, VLAN tags,
//! strangers' addresses, and tunnels of a pod's own.
//!
//! Each case is a frame with a mark of its own, sent as it is. It passes if its mark arrives at the interface of its
//! destination.
//!
//! Not here: on a bridge a pod can claim the address of another local pod, since the port by which a packet came is not
//! compared with its source address (SEMANTICS G-19, SECURITY.md).

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use libtest_mimic::Failed;
use palisade_lab::Sandbox;
use palisade_policy::Family;

use crate::{
    ensure,
    frames::{self, ICMPV6, SERVICE_VLAN, TCP, Tcp, UDP, VLAN},
    tap::{Mac, Tap},
    tunnel::{self, Vxlan},
    until,
    world::{FAR, Kind, NEAR, SERVICE_PORT, World, denying},
};

pub(crate) const TESTS: &[crate::Test] = &[
    ("layers::forged_source_is_destination_routed", |s| packets(s, Kind::Routed, itself)),
    ("layers::forged_source_is_destination_bridged", |s| packets(s, Kind::Bridged, itself)),
    ("layers::forged_source_of_others_routed", |s| packets(s, Kind::Routed, others)),
    ("layers::discovery_that_is_none_routed", |s| packets(s, Kind::Routed, discovery)),
    ("layers::discovery_that_is_none_bridged", |s| packets(s, Kind::Bridged, discovery)),
    ("layers::vlan_tags_routed", |s| packets(s, Kind::Routed, tags)),
    ("layers::vlan_tags_bridged", |s| packets(s, Kind::Bridged, tags)),
    ("layers::plain_packets_after_a_tagged_one_is_answered", answered),
    ("layers::strangers_addresses_to_a_pods_hardware_address", |s| packets(s, Kind::Bridged, strangers)),
    ("layers::tunnels_of_a_pods_own_routed", |s| packets(s, Kind::Routed, tunnels)),
    ("layers::tunnels_of_a_pods_own_bridged", |s| packets(s, Kind::Bridged, tunnels)),
    ("layers::what_is_right_goes_on_routed", |s| goes_on(s, Kind::Routed)),
    ("layers::what_is_right_goes_on_bridged", |s| goes_on(s, Kind::Bridged)),
];

/// How often each frame is sent, and how long it may take.
const TIMES: usize = 2;
const SETTLE: Duration = Duration::from_millis(400);

/// The ports of forged packets.
const FROM: u16 = 40_000;
const TO: u16 = 7200;
/// Where the servers of this file listen; those of the lab have other ports.
const OWN_PORT: u16 = 7100;

/// The tunnels of the lab: the ports of flannel and Cilium, and of Calico and the standard.
const TUNNELS: [(Vxlan, Family); 3] = [
    (Vxlan { name: "vx0", index: 90_001, id: 1, port: 8472 }, Family::V4),
    (Vxlan { name: "vx1", index: 90_002, id: 2, port: 4789 }, Family::V4),
    (Vxlan { name: "vx2", index: 90_003, id: 3, port: 8472 }, Family::V6),
];

/// A mark, found in whatever a packet has become.
type Mark = [u8; 16];

struct Case {
    what: String,
    at: &'static str,
    mark: Mark,
}

/// Frames that are sent, and where they must not arrive.
struct Range<'a> {
    world: &'a World,
    kind: Kind,
    taps: BTreeMap<&'static str, Tap>,
    hops: BTreeMap<(&'static str, &'static str), Mac>,
    cases: Vec<Case>,
}

impl<'a> Range<'a> {
    fn new(world: &'a World, kind: Kind) -> Self {
        Self { world, kind, taps: BTreeMap::new(), hops: BTreeMap::new(), cases: Vec::new() }
    }

    fn tap(&mut self, name: &'static str) -> Result<&Tap, Failed> {
        if !self.taps.contains_key(name) {
            self.taps.insert(name, Tap::open(self.world, name)?);
        }
        Ok(&self.taps[name])
    }

    fn address(&self, name: &str, family: Family) -> Result<IpAddr, Failed> {
        self.world.address(name, family)
    }

    /// The hardware address to which `from` sends what is for `to`.
    fn hop(&mut self, from: &'static str, to: &'static str) -> Result<Mac, Failed> {
        if let Some(mac) = self.hops.get(&(from, to)) {
            return Ok(*mac);
        }
        let mac = frames::next_hop(self.world, from, to)?;
        self.hops.insert((from, to), mac);
        Ok(mac)
    }

    /// Sends what `packets` makes of a mark, from one place towards another, as frames with these VLAN tags.
    fn send_tagged(
        &mut self,
        what: &str,
        (from, at): (&'static str, &'static str),
        tags: &[u16],
        packets: impl Fn(&Mark) -> Vec<Vec<u8>>,
    ) -> Result<(), Failed> {
        let hop = self.hop(from, at)?;
        self.send_to(what, (from, at), hop, tags, packets)
    }

    /// As [`Range::send_tagged`], to a hardware address.
    fn send_to(
        &mut self,
        what: &str,
        (from, at): (&'static str, &'static str),
        hop: Mac,
        tags: &[u16],
        packets: impl Fn(&Mark) -> Vec<Vec<u8>>,
    ) -> Result<(), Failed> {
        let mut mark = *b"palisade\0\0\0\0\0\0\0\0";
        mark[8..].copy_from_slice(&(self.cases.len() as u64).to_be_bytes());
        self.tap(at)?;
        let tap = self.tap(from)?;
        for _ in 0..TIMES {
            for packet in packets(&mark) {
                tap.send(&frames::tagged(hop, tap.mac, tags, &packet))?;
            }
        }
        self.cases.push(Case { what: format!("{what}: {from} to {at}"), at, mark });
        Ok(())
    }

    fn send(
        &mut self,
        what: &str,
        ends: (&'static str, &'static str),
        packet: impl Fn(&Mark) -> Vec<u8>,
    ) -> Result<(), Failed> {
        self.send_tagged(what, ends, &[], |mark| vec![packet(mark)])
    }

    /// A UDP datagram and a TCP SYN that claim these addresses.
    fn claim(
        &mut self,
        what: &str,
        ends: (&'static str, &'static str),
        (source, destination): (IpAddr, IpAddr),
        tags: &[u16],
    ) -> Result<(), Failed> {
        for protocol in [UDP, TCP] {
            let name = if protocol == UDP { "UDP" } else { "TCP" };
            let what = format!("{what}, {name}, {source} to {destination}");
            self.send_tagged(&what, ends, tags, |mark| vec![claiming(protocol, source, destination, mark)])?;
        }
        Ok(())
    }

    /// The cases whose marks arrive where they must not.
    fn passed(&mut self) -> Result<Vec<String>, Failed> {
        thread::sleep(SETTLE);
        let mut seen = BTreeMap::new();
        for (name, tap) in &self.taps {
            seen.insert(*name, tap.take()?);
        }
        let arrives = |case: &&Case| seen[case.at].iter().any(|f| f.incoming && f.has(&case.mark));
        Ok(self.cases.iter().filter(arrives).map(|case| case.what.clone()).collect())
    }
}

fn claiming(protocol: u8, source: IpAddr, destination: IpAddr, mark: &Mark) -> Vec<u8> {
    let inner = if protocol == UDP {
        frames::udp((source, FROM), (destination, TO), mark)
    } else {
        Tcp::new(FROM, TO).bytes(source, destination, mark)
    };
    frames::ip(source, destination, protocol, 64, &inner)
}

/// Both nodes with tunnels, kept by agents, and policies that deny.
fn guarded(sandbox: &Sandbox, kind: Kind) -> Result<World, Failed> {
    let mut world = World::build(sandbox, kind)?;
    for (device, family) in TUNNELS {
        let (near, far) = (world.address(NEAR, family)?, world.address(FAR, family)?);
        tunnel::add(&world, NEAR, device, near, far)?;
        tunnel::add(&world, FAR, device, far, near)?;
    }
    world.edit(&denying())?;
    for node in [NEAR, FAR] {
        world.start(node)?;
    }
    Ok(world)
}

fn packets(
    sandbox: &Sandbox,
    kind: Kind,
    send: fn(&mut Range<'_>) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let world = guarded(sandbox, kind)?;
    // The method sees what passes: an allowed packet, sent the same way.
    let mut control = Range::new(&world, kind);
    for family in Family::BOTH {
        for (from, to) in [("client", "srv"), ("far-client", "srv"), ("client", "far-srv"), ("bad", "open")] {
            let ends = (control.address(from, family)?, control.address(to, family)?);
            control.claim("allowed", (from, to), ends, &[])?;
        }
    }
    let number = control.cases.len();
    let passed = control.passed()?;
    ensure(passed.len() == number, || {
        format!("only {} of {number} allowed packets arrive: {passed:?}", passed.len())
    })?;

    let mut range = Range::new(&world, kind);
    send(&mut range)?;
    let (passed, number) = (range.passed()?, range.cases.len());
    println!("{} of {number} forged packets pass, {kind:?}", passed.len());
    ensure(number > 0, || "nothing was sent".into())?;
    ensure(passed.is_empty(), || {
        format!("{} of {number} packets pass:\n  {}", passed.len(), passed.join("\n  "))
    })
}

/// The source address is the destination's own.
fn itself(range: &mut Range<'_>) -> Result<(), Failed> {
    for family in Family::BOTH {
        let srv = range.address("srv", family)?;
        for from in ["bad", "far-bad", FAR, "outside"] {
            range.claim("from itself", (from, "srv"), (srv, srv), &[])?;
        }
    }
    Ok(())
}

/// The source address is somebody else's: to one who is isolated, to one who is not, and from one who may not call.
fn others(range: &mut Range<'_>) -> Result<(), Failed> {
    for family in Family::BOTH {
        let mut claims: Vec<IpAddr> = Vec::new();
        for name in ["client", "far-client", "open", NEAR, FAR, "outside"] {
            claims.push(range.address(name, family)?);
        }
        claims.push(match family {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        });
        if family == Family::V6
            && let IpAddr::V4(client) = range.address("client", Family::V4)?
        {
            claims.push(client.to_ipv6_mapped().into());
        }
        for (from, to) in
            [("bad", "srv"), ("bad", "open"), ("iso", "bad"), ("iso", "outside"), ("iso", "far-bad")]
        {
            let target = range.address(to, family)?;
            for claim in claims.iter().filter(|claim| **claim != target) {
                range.claim("forged", (from, to), (*claim, target), &[])?;
            }
        }
        // A local pod's address cannot come from elsewhere.
        let (client, srv) = (range.address("client", family)?, range.address("srv", family)?);
        for from in ["far-bad", FAR, "outside"] {
            range.claim("a local pod's address from elsewhere", (from, "srv"), (client, srv), &[])?;
        }
    }
    Ok(())
}

/// What is discovery by its type alone. Neighbour discovery is valid with hop limit 255 (RFC 4861), which no router lets
/// through; listener discovery with hop limit 1 and a link-local source (RFC 2710, RFC 3810).
fn discovery(range: &mut Range<'_>) -> Result<(), Failed> {
    for (from, to) in [("bad", "srv"), ("iso", "outside"), ("iso", "open")] {
        let (IpAddr::V6(source), IpAddr::V6(destination)) =
            (range.address(from, Family::V6)?, range.address(to, Family::V6)?)
        else {
            return Err("no IPv6".into());
        };
        // On one link, neighbour discovery between global addresses is what it says.
        let on_link = range.kind == Kind::Bridged && to != "outside";
        for kind in (130..=137).chain([143]) {
            let is_neighbour = (133..=137).contains(&kind);
            for hops in [64, 255] {
                if on_link && is_neighbour && hops == 255 {
                    continue;
                }
                let message = |mark: &Mark| {
                    let body = [&[0; 20][..], mark].concat();
                    frames::icmpv6(source, destination, kind, &body)
                };
                let (s, d) = (source.into(), destination.into());
                let what = |how: &str| format!("ICMPv6 {kind}, hop limit {hops}{how}");
                range.send(&what(""), (from, to), |mark| frames::ip(s, d, ICMPV6, hops, &message(mark)))?;
                range.send(&what(", behind hop-by-hop"), (from, to), |mark| {
                    frames::ip(s, d, 0, hops, &[frames::hop_by_hop(ICMPV6), message(mark)].concat())
                })?;
                range.send_tagged(&what(", fragmented"), (from, to), &[], |mark| {
                    frames::fragments(source, destination, ICMPV6, hops, &message(mark))
                })?;
            }
        }
    }
    Ok(())
}

/// VLAN tags that carry a frame past br_netfilter, to those who may not be called and from those who may not call.
fn tags(range: &mut Range<'_>) -> Result<(), Failed> {
    const TAGS: [(&str, &[u16]); 4] = [
        ("802.1Q", &[VLAN]),
        ("802.1Q twice", &[VLAN, VLAN]),
        ("802.1ad", &[SERVICE_VLAN]),
        ("802.1ad and 802.1Q", &[SERVICE_VLAN, VLAN]),
    ];
    for family in Family::BOTH {
        for (from, to) in [("bad", "srv"), ("iso", "open"), ("iso", "bad")] {
            let ends = (range.address(from, family)?, range.address(to, family)?);
            for (name, tags) in TAGS {
                range.claim(name, (from, to), ends, tags)?;
            }
        }
        // To the bridge itself, which routes.
        let (source, target) = (range.address("bad", family)?, range.address("srv", family)?);
        let gateway = range.hop("bad", "outside")?;
        for (name, tags) in TAGS {
            let what = format!("{name} to the gateway, {family:?}");
            range.send_to(&what, ("bad", "srv"), gateway, tags, |mark| {
                vec![claiming(UDP, source, target, mark)]
            })?;
        }
    }
    Ok(())
}

/// A datagram with a tag is answered, which opens the way for plain ones.
fn answered(sandbox: &Sandbox) -> Result<(), Failed> {
    let world = guarded(sandbox, Kind::Bridged)?;
    let mut range = Range::new(&world, Kind::Bridged);
    for family in Family::BOTH {
        let (bad, srv) = (range.address("bad", family)?, range.address("srv", family)?);
        let server = world.within("srv", || UdpSocket::bind((srv, TO)))??;
        server.set_read_timeout(Some(SETTLE))?;
        range.send_tagged(&format!("tagged, {family:?}"), ("bad", "srv"), &[VLAN], |mark| {
            vec![claiming(UDP, bad, srv, mark)]
        })?;
        while let Ok((_, from)) = server.recv_from(&mut [0; 64]) {
            server.send_to(b"answer", from)?;
        }
        let what = format!("plain after a tagged one, {family:?}");
        range.send(&what, ("bad", "srv"), |mark| claiming(UDP, bad, srv, mark))?;
    }
    let passed = range.passed()?;
    println!("{} of {} pass", passed.len(), range.cases.len());
    ensure(passed.is_empty(), || format!("these pass:\n  {}", passed.join("\n  ")))
}

/// Frames to a pod's hardware address whose destination address is nobody's, or somebody else's.
fn strangers(range: &mut Range<'_>) -> Result<(), Failed> {
    let IpAddr::V4(srv) = range.address("srv", Family::V4)? else { return Err("no IPv4".into()) };
    let [a, b, c, d] = srv.octets();
    let six_to_four =
        Ipv6Addr::new(0x2002, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]), 0, 0, 0, 0, 1);
    let targets: [IpAddr; 5] = [
        srv.to_ipv6_mapped().into(),
        six_to_four.into(),
        Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9).into(),
        Ipv4Addr::new(203, 0, 113, 9).into(),
        Ipv4Addr::LOCALHOST.into(),
    ];
    for target in targets {
        let source = range.address("bad", Family::of(target))?;
        range.claim("to a stranger's address", ("bad", "srv"), (source, target), &[])?;
    }
    Ok(())
}

/// VXLAN packets that a pod makes itself, to the tunnels of another node and of its own, with an allowed pod's packet in
/// them.
fn tunnels(range: &mut Range<'_>) -> Result<(), Failed> {
    for (device, outer) in TUNNELS {
        for inner in Family::BOTH {
            for (sender, node, claimed, target) in [
                ("bad", FAR, "client", "far-srv"),
                ("iso", FAR, "client", "far-srv"),
                ("bad", NEAR, "far-client", "srv"),
            ] {
                let source = range.address(sender, outer)?;
                let to = range.address(node, outer)?;
                let (claimed, inside) = (range.address(claimed, inner)?, range.address(target, inner)?);
                let what = format!("VXLAN to port {} of {node} ({outer:?}), {inner:?} within", device.port);
                let hop = range.hop(sender, "outside")?;
                range.send_to(&what, (sender, target), hop, &[], |mark| {
                    let frame = frames::ethernet(
                        tunnel::mac(node),
                        [2, 0, 0, 0, 0, 0xbb],
                        &claiming(UDP, claimed, inside, mark),
                    );
                    let datagram =
                        frames::udp((source, FROM), (to, device.port), &frames::vxlan(device.id, &frame));
                    vec![frames::ip(source, to, UDP, 64, &datagram)]
                })?;
            }
        }
    }
    Ok(())
}

/// Fails unless a connection is made.
fn connects(world: &World, from: &str, to: &str, at: (IpAddr, u16)) -> Result<(), Failed> {
    let patience = Duration::from_secs(5);
    let made = world.within(from, || TcpStream::connect_timeout(&at.into(), patience))?;
    made.map(drop).map_err(|e| format!("{from} to {to} at {} port {}: {e}", at.0, at.1).into())
}

/// Neighbour and listener discovery, services that lead back to who asks, the node's probes, and the overlay itself.
fn goes_on(sandbox: &Sandbox, kind: Kind) -> Result<(), Failed> {
    let world = guarded(sandbox, kind)?;
    let mut listeners = Vec::new();
    for name in ["srv", "both", "open", "iso", "far-srv"] {
        for family in Family::BOTH {
            let address = world.address(name, family)?;
            listeners.push(world.within(name, || TcpListener::bind((address, OWN_PORT)))??);
        }
    }
    let ways = [
        ("client", "srv"),
        ("far-client", "srv"),
        ("client", "both"),
        ("client", "far-srv"),
        ("srv", "open"),
        ("bad", "open"),
        ("outside", "open"),
        ("outside", "iso"),
        // The kubelet's probes.
        (NEAR, "srv"),
        (NEAR, "both"),
        (FAR, "far-srv"),
    ];
    for family in Family::BOTH {
        for (from, to) in ways {
            connects(&world, from, to, (world.address(to, family)?, OWN_PORT))?;
        }
        // By the service, for one who is let in, and for the pod behind it itself.
        let service = world.service(family)?;
        for from in ["client", "srv"] {
            connects(&world, from, "the service of srv", (service, SERVICE_PORT))?;
        }
    }
    if kind == Kind::Bridged {
        listener_reports(&world)?;
    }
    // What the node itself sends through its tunnel is the overlay at work, though answers come another way.
    for family in Family::BOTH {
        let target = world.address("far-srv", family)?;
        let (device, tap) = (TUNNELS[0].0, Tap::open(&world, FAR)?);
        tunnel::lead(&world, NEAR, device, FAR, target)?;
        connects(&world, "client", "far-srv through the overlay", (target, OWN_PORT))?;
        let through = tap.take()?.iter().any(|f| f.ends().is_some_and(|e| e.destination.1 == device.port));
        ensure(through, || format!("{target} is reached without the overlay"))?;
    }
    Ok(())
}

/// A pod that may send nothing joins a group, and the link hears of it (RFC 3810).
fn listener_reports(world: &World) -> Result<(), Failed> {
    let tap = Tap::open(world, "open")?;
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x1234);
    let joined = world.within("iso", || -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind("[::]:0")?;
        socket.join_multicast_v6(&group, ETH0)?;
        Ok(socket)
    })??;
    let heard = until(Duration::from_secs(5), || {
        let reports = tap.take()?;
        Ok(reports.iter().any(|f| f.incoming && f.has(&group.octets())).then_some(()))
    })?;
    drop(joined);
    heard.ok_or_else(|| "nobody hears that an isolated pod joined a group".into())
}

/// Of every pod here.
const ETH0: u32 = 2;

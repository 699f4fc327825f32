//! Packets that reach the IP stack of a node past the hooks of its bridge, or that the node sends elsewhere than their headers say when rules see
//! them: reserved groups, source routes, and routing headers.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use libtest_mimic::Failed;
use palisade_lab::Sandbox;
use palisade_policy::Family;

use super::{
    FROM, ForgedFrames, Mark, SETTLE, TIMES, TO, TUNNELS, claiming, testbed_with_policies, unusual::ROUTING,
};
use crate::{
    capture::{Capture, Mac},
    frames::{self, UDP},
    harness::{ensure, until},
    testbed::{FAR, NEAR, PodNetwork, Testbed},
    tunnel,
};

/// What the addresses of groups that bridges reserve for themselves begin with (IEEE 802.1Q).
const RESERVED: [u8; 5] = [0x01, 0x80, 0xc2, 0, 0];

/// Their last octets: spanning tree, LACP, port authentication, LLDP, and two that other standards use.
const GROUPS: [u8; 6] = [0x00, 0x02, 0x03, 0x0e, 0x0f, 0x21];

/// The EtherType of LLDP.
const LLDP: [u8; 2] = [0x88, 0xcc];

/// The settings by which a node forwards along a route that the sender chose.
const ROUTES: [(&str, &str); 4] = [
    ("ipv4", "accept_source_route"),
    ("ipv6", "accept_source_route"),
    ("ipv6", "seg6_enabled"),
    ("ipv6", "rpl_seg_enabled"),
];

fn reserved(last: u8) -> Mac {
    let [a, b, c, d, e] = RESERVED;
    [a, b, c, d, e, last]
}

/// To the node itself, whose policies for egress deny everything, and into its tunnels.
pub(super) fn reserved_groups(sandbox: &Sandbox, kind: PodNetwork) -> Result<(), Failed> {
    let testbed = testbed_with_policies(sandbox, kind)?;
    let server = testbed.within(NEAR, || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, TO)))??;
    server.set_read_timeout(Some(SETTLE))?;
    let iso = Capture::open(&testbed, "iso")?;
    let mut sent = 0;
    for last in GROUPS {
        for family in Family::BOTH {
            let node = testbed.address(NEAR, family)?;
            let mut sources = vec![];
            for name in ["iso", "open", FAR, "outside"] {
                sources.push(testbed.address(name, family)?);
            }
            sources.push(if family == Family::V4 {
                Ipv4Addr::new(169, 254, 1, 254).into()
            } else {
                Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbad).into()
            });
            for source in sources {
                let what = format!("{source} to group {last:02x}");
                let datagram = frames::udp((source, FROM), (node, TO), what.as_bytes());
                let packet = frames::ip(source, node, UDP, 64, &datagram);
                iso.send(&frames::ethernet(reserved(last), iso.mac, &packet))?;
                sent += 1;
            }
        }
    }
    let passed = received(&server)?;
    ensure(passed.is_empty(), || {
        format!("{} of {sent} datagrams reach the node: {}", passed.len(), passed.join(", "))
    })?;
    let mut frames_sent = ForgedFrames::new(&testbed, kind);
    tunnel_packets(&mut frames_sent)?;
    let passed = frames_sent.passed(SETTLE)?;
    ensure(passed.is_empty(), || format!("packets pass:\n  {}", passed.join("\n  ")))
}

/// Returns the texts that arrive at a socket.
fn received(socket: &UdpSocket) -> Result<Vec<String>, Failed> {
    let (mut texts, mut buffer) = (Vec::new(), [0; 256]);
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => texts.push(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(texts);
            }
            Err(e) => return Err(e.into()),
        }
    }
}

/// Packets of the other node's tunnel, with a packet of an allowed pod within.
fn tunnel_packets(frames_sent: &mut ForgedFrames<'_>) -> Result<(), Failed> {
    for (device, outer) in TUNNELS {
        let (source, to) = (frames_sent.address(FAR, outer)?, frames_sent.address(NEAR, outer)?);
        let ends = (frames_sent.address("far-client", outer)?, frames_sent.address("srv", outer)?);
        for last in GROUPS {
            let what = format!("VXLAN to port {} at group {last:02x}", device.port);
            frames_sent.send_to(&what, ("bad", "srv"), reserved(last), &[], |mark| {
                let inner = claiming(UDP, ends.0, ends.1, mark);
                let frame = frames::ethernet(tunnel::mac(NEAR), [2, 0, 0, 0, 0, 0xbb], &inner);
                let datagram =
                    frames::udp((source, FROM), (to, device.port), &frames::vxlan(device.id, &frame));
                vec![frames::ip(source, to, UDP, 64, &datagram)]
            })?;
        }
    }
    Ok(())
}

/// A bridge must not learn from a frame to a reserved group, which passes none of its hooks, that another pod is at the sender's port.
pub(super) fn stolen_hardware_address(sandbox: &Sandbox) -> Result<(), Failed> {
    let testbed = testbed_with_policies(sandbox, PodNetwork::Bridged)?;
    let [srv, bad] = ["srv", "bad"].map(|pod| Capture::open(&testbed, pod));
    let (srv, bad) = (srv?, bad?);
    let server = SocketAddr::from((testbed.address("srv", Family::V4)?, TO));
    let client = testbed.within("client", || UdpSocket::bind("0.0.0.0:0"))??;
    let mark: Mark = *b"for srv and none";
    let arrives = |at: &Capture| -> Result<bool, Failed> {
        Ok(at.take()?.iter().any(|frame| frame.incoming && frame.has(&mark)))
    };
    for last in GROUPS {
        for _ in 0..TIMES {
            bad.send(&[&reserved(last)[..], &srv.mac, &LLDP, &[0; 46]].concat())?;
        }
        bad.drain()?;
        client.send_to(&mark, server)?;
        let found = until(Duration::from_secs(5), || Ok(arrives(&srv)?.then_some(())))?;
        let is_stolen = arrives(&bad)?;
        ensure(found.is_some() && !is_stolen, || {
            format!(
                "after a frame to group {last:02x}, srv receives: {}, bad receives: {is_stolen}",
                found.is_some()
            )
        })?;
    }
    Ok(())
}

/// Routes that the sender chose, through the sender's own node to a pod that denies it.
pub(super) fn chosen_routes(sandbox: &Sandbox, kind: PodNetwork) -> Result<(), Failed> {
    let testbed = testbed_with_policies(sandbox, kind)?;
    testbed.within(NEAR, accept_routes)??;
    let mut frames_sent = ForgedFrames::new(&testbed, kind);
    source_routes(&mut frames_sent)?;
    routing_headers(&testbed, &mut frames_sent)?;
    let passed = frames_sent.passed(SETTLE)?;
    ensure(passed.is_empty(), || format!("packets pass:\n  {}", passed.join("\n  ")))
}

/// Makes the node of the calling thread's network namespace forward along such routes.
fn accept_routes() -> io::Result<()> {
    ROUTES.iter().try_for_each(|(family, setting)| set_all(family, setting, "1"))
}

/// Sets a sysctl of all interfaces of the calling thread's network namespace.
fn set_all(family: &str, setting: &str, value: &str) -> io::Result<()> {
    fs::read_dir(format!("/proc/sys/net/{family}/conf"))?
        .try_for_each(|interface| fs::write(interface?.path().join(setting), value))
}

fn source_routes(frames_sent: &mut ForgedFrames<'_>) -> Result<(), Failed> {
    let address = |frames_sent: &ForgedFrames<'_>, name| match frames_sent.address(name, Family::V4)? {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => Err(Failed::from("no IPv4")),
    };
    let node = address(frames_sent, NEAR)?;
    for (from, to, by) in [("bad", "srv", "outside"), ("iso", "open", "outside"), ("outside", "srv", "srv")] {
        let (source, target) = (address(frames_sent, from)?, address(frames_sent, to)?);
        let hop = frames_sent.hop(from, by)?;
        let [a, b, c, d] = target.octets();
        for (name, kind) in [("loose", 131), ("strict", 137)] {
            frames_sent.send_to(&format!("{name} source route"), (from, to), hop, &[], |mark| {
                let datagram = frames::udp((source.into(), FROM), (target.into(), TO), mark);
                vec![frames::ipv4_with_options(source, node, UDP, &[kind, 7, 4, a, b, c, d, 0], &datagram)]
            })?;
        }
    }
    Ok(())
}

/// The pod has a connection to its node, so packets with the same addresses and ports are of an established connection.
fn routing_headers(testbed: &Testbed, frames_sent: &mut ForgedFrames<'_>) -> Result<(), Failed> {
    let [source, node, target] = ["bad", NEAR, "srv"].map(|name| testbed.address(name, Family::V6));
    let (source, node, target) = (source?, node?, target?);
    let server = testbed.within(NEAR, || UdpSocket::bind((node, TO)))??;
    let client = testbed.within("bad", || UdpSocket::bind((source, FROM)))??;
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    }
    client.send_to(b"?", (node, TO))?;
    let (_, from) = server.recv_from(&mut [0; 1])?;
    server.send_to(b"!", from)?;
    client.recv(&mut [0; 1])?;
    let (IpAddr::V6(n), IpAddr::V6(t)) = (node, target) else { return Err("no IPv6".into()) };
    let hop = frames_sent.hop("bad", "outside")?;
    for kind in [0, 2, 3, 4] {
        frames_sent.send_to(&format!("routing header {kind}"), ("bad", "srv"), hop, &[], |mark| {
            // Without a checksum, which would be wrong for one of the two destinations.
            let mut datagram = frames::udp((source, FROM), (target, TO), mark);
            datagram[6..8].fill(0);
            // SRH: the last entry is the first segment (RFC 8754). The others have one address.
            let (last, segments) =
                if kind == 4 { (1, [t.octets(), n.octets()].concat()) } else { (0, t.octets().to_vec()) };
            let length = (segments.len() / 8) as u8;
            let header = [&[UDP, length, kind, 1, last, 0, 0, 0][..], &segments, &datagram].concat();
            vec![frames::ip(source, node, ROUTING, 64, &header)]
        })?;
    }
    Ok(())
}

/// A node that accepts router advertisements must not take a pod for its router.
pub(super) fn advertised_routes(sandbox: &Sandbox, kind: PodNetwork) -> Result<(), Failed> {
    /// A flag of /proc/net/ipv6_route: the route is from a router advertisement (`RTF_ADDRCONF`).
    const ADVERTISED: u32 = 0x0004_0000;
    let testbed = testbed_with_policies(sandbox, kind)?;
    testbed.within(NEAR, || set_all("ipv6", "accept_ra", "2"))??;
    let bad = Capture::open(&testbed, "bad")?;
    let (own, all): (Ipv6Addr, Ipv6Addr) = ("fe80::bad".parse()?, "ff02::1".parse()?);
    // Hop limit, flags, lifetime in seconds, reachable time, retransmission time; a prefix for routes.
    let body =
        [&[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], &[3, 4, 64, 0x80, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0]];
    let prefix: Ipv6Addr = "2001:db8:bad::".parse()?;
    let message = frames::icmpv6(own, all, 134, &[&body.concat()[..], &prefix.octets()].concat());
    let packet = frames::ip(own.into(), all.into(), frames::ICMPV6, 255, &message);
    for _ in 0..TIMES {
        bad.send(&frames::ethernet([0x33, 0x33, 0, 0, 0, 1], bad.mac, &packet))?;
    }
    let routes = || -> Result<Option<String>, Failed> {
        let routes = testbed.within(NEAR, || fs::read_to_string("/proc/thread-self/net/ipv6_route"))??;
        let is_advertised = |line: &&str| {
            let flags = line.split_whitespace().nth(8).and_then(|flags| u32::from_str_radix(flags, 16).ok());
            flags.is_some_and(|flags| flags & ADVERTISED != 0)
        };
        Ok(routes.lines().find(is_advertised).map(str::to_owned))
    };
    let found = until(SETTLE, routes)?;
    ensure(found.is_none(), || format!("a pod has advertised a route to its node: {found:?}"))
}

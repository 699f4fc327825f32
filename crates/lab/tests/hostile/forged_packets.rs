//! Packets that netfilter may judge wrongly or not see: forged source addresses, invalid discovery messages, VLAN tags,
//! addresses that no pod has, and tunnel packets that a pod encodes.
//!
//! Each case is a frame with a unique mark. It passes if its mark arrives at the interface of its destination.
//!
//! Forged ARP, neighbor discovery and hardware addresses, and unassigned source addresses, on bridges: see `senders`.

mod misdirected;
mod receivers;
mod unusual;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use libtest_mimic::Failed;
use palisade_lab::Sandbox;
use palisade_policy::Family;

use crate::{
    capture::{Capture, Mac},
    frames::{self, ICMPV6, SERVICE_VLAN, TCP, Tcp, UDP, VLAN},
    harness::{Test, ensure, until},
    testbed::{FAR, NEAR, PodNetwork, SERVICE_PORT, Testbed, default_policies},
    tunnel::{self, Vxlan},
};

pub(crate) const TESTS: &[Test] = &[
    ("forged_packets::forged_source_is_destination_routed", |s| packets(s, PodNetwork::Routed, own_address)),
    ("forged_packets::forged_source_is_destination_bridged", |s| {
        packets(s, PodNetwork::Bridged, own_address)
    }),
    ("forged_packets::forged_source_of_other_places_routed", |s| {
        packets(s, PodNetwork::Routed, other_addresses)
    }),
    ("forged_packets::forged_source_of_other_places_bridged", |s| {
        packets(s, PodNetwork::Bridged, other_addresses)
    }),
    ("forged_packets::invalid_discovery_messages_routed", |s| packets(s, PodNetwork::Routed, discovery)),
    ("forged_packets::invalid_discovery_messages_bridged", |s| packets(s, PodNetwork::Bridged, discovery)),
    ("forged_packets::vlan_tags_routed", |s| packets(s, PodNetwork::Routed, tags)),
    ("forged_packets::vlan_tags_bridged", |s| packets(s, PodNetwork::Bridged, tags)),
    ("forged_packets::untagged_packets_after_a_tagged_one_is_answered", answered),
    ("forged_packets::unknown_addresses_to_a_pods_hardware_address", |s| {
        packets(s, PodNetwork::Bridged, unknown_addresses)
    }),
    ("forged_packets::tunnel_packets_from_pods_routed", |s| packets(s, PodNetwork::Routed, tunnels)),
    ("forged_packets::tunnel_packets_from_pods_bridged", |s| packets(s, PodNetwork::Bridged, tunnels)),
    ("forged_packets::to_other_pods_by_hardware_address", |s| {
        packets(s, PodNetwork::Bridged, receivers::other_pods)
    }),
    ("forged_packets::to_other_pods_by_hardware_address_strict", receivers::other_pods_strict),
    ("forged_packets::fragments_of_other_pods_routed", |s| {
        packets(s, PodNetwork::Routed, receivers::forged_fragments)
    }),
    ("forged_packets::fragments_of_other_pods_bridged", |s| {
        packets(s, PodNetwork::Bridged, receivers::forged_fragments)
    }),
    ("forged_packets::from_no_address_to_a_pod", |s| {
        packets(s, PodNetwork::Bridged, receivers::no_address_to_a_pod)
    }),
    ("forged_packets::to_a_pod_that_says_another_hardware_address", receivers::said_hardware_address),
    ("forged_packets::from_no_address_routed", |s| receivers::from_no_address(s, PodNetwork::Routed)),
    ("forged_packets::from_no_address_bridged", |s| receivers::from_no_address(s, PodNetwork::Bridged)),
    ("forged_packets::unusual_packets_routed", |s| packets(s, PodNetwork::Routed, unusual::all)),
    ("forged_packets::unusual_packets_bridged", |s| packets(s, PodNetwork::Bridged, unusual::all)),
    ("forged_packets::reserved_groups_routed", |s| misdirected::reserved_groups(s, PodNetwork::Routed)),
    ("forged_packets::reserved_groups_bridged", |s| misdirected::reserved_groups(s, PodNetwork::Bridged)),
    ("forged_packets::stolen_hardware_address", misdirected::stolen_hardware_address),
    ("forged_packets::routes_that_the_sender_chose_routed", |s| {
        misdirected::chosen_routes(s, PodNetwork::Routed)
    }),
    ("forged_packets::routes_that_the_sender_chose_bridged", |s| {
        misdirected::chosen_routes(s, PodNetwork::Bridged)
    }),
    ("forged_packets::router_advertisements_to_the_node_routed", |s| {
        misdirected::advertised_routes(s, PodNetwork::Routed)
    }),
    ("forged_packets::router_advertisements_to_the_node_bridged", |s| {
        misdirected::advertised_routes(s, PodNetwork::Bridged)
    }),
    ("forged_packets::valid_packets_pass_routed", |s| valid_packets(s, PodNetwork::Routed)),
    ("forged_packets::valid_packets_pass_bridged", |s| valid_packets(s, PodNetwork::Bridged)),
];

/// How often each frame is sent.
const TIMES: usize = 2;
/// A frame that hasn't arrived after this time was dropped.
const SETTLE: Duration = Duration::from_millis(400);

/// The timeout of allowed frames.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// The source port of forged packets.
const FROM: u16 = 40_000;
/// The destination port of forged packets.
const TO: u16 = 7200;
/// The port of the servers of this file. Those of the lab have other ports.
const OWN_PORT: u16 = 7100;

/// The tunnels of the nodes, on the port of flannel and Cilium and on that of Calico and RFC 7348.
const TUNNELS: [(Vxlan, Family); 3] = [
    (Vxlan { name: "vx0", index: 90_001, id: 1, port: 8472 }, Family::V4),
    (Vxlan { name: "vx1", index: 90_002, id: 2, port: 4789 }, Family::V4),
    (Vxlan { name: "vx2", index: 90_003, id: 3, port: 8472 }, Family::V6),
];

/// A unique mark, which is found also if a packet was changed on its way.
type Mark = [u8; 16];

struct Case {
    what: String,
    at: &'static str,
    mark: Mark,
}

/// The sent frames, with captures at their destinations.
struct ForgedFrames<'a> {
    testbed: &'a Testbed,
    kind: PodNetwork,
    captures: BTreeMap<&'static str, Capture>,
    hops: BTreeMap<(&'static str, &'static str), Mac>,
    cases: Vec<Case>,
}

impl<'a> ForgedFrames<'a> {
    fn new(testbed: &'a Testbed, kind: PodNetwork) -> Self {
        Self { testbed, kind, captures: BTreeMap::new(), hops: BTreeMap::new(), cases: Vec::new() }
    }

    fn capture(&mut self, name: &'static str) -> Result<&Capture, Failed> {
        if !self.captures.contains_key(name) {
            self.captures.insert(name, Capture::open(self.testbed, name)?);
        }
        Ok(&self.captures[name])
    }

    fn address(&self, name: &str, family: Family) -> Result<IpAddr, Failed> {
        self.testbed.address(name, family)
    }

    /// Returns the hardware address to which `from` sends packets for `to`.
    fn hop(&mut self, from: &'static str, to: &'static str) -> Result<Mac, Failed> {
        if let Some(mac) = self.hops.get(&(from, to)) {
            return Ok(*mac);
        }
        let mac = frames::next_hop(self.testbed, from, to)?;
        self.hops.insert((from, to), mac);
        Ok(mac)
    }

    /// Sends the packets that `packets` returns for a mark, from one place to another, with these VLAN tags.
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

    /// Does the same as [`ForgedFrames::send_tagged`], to a given hardware address.
    fn send_to(
        &mut self,
        what: &str,
        ends: (&'static str, &'static str),
        hop: Mac,
        tags: &[u16],
        packets: impl Fn(&Mark) -> Vec<Vec<u8>>,
    ) -> Result<(), Failed> {
        self.send_frames(what, ends, |own, mark| {
            packets(mark).iter().map(|packet| frames::tagged(hop, own, tags, packet)).collect()
        })
    }

    /// Sends the frames that `frames` returns for the sender's hardware address and a mark.
    fn send_frames(
        &mut self,
        what: &str,
        (from, at): (&'static str, &'static str),
        frames: impl Fn(Mac, &Mark) -> Vec<Vec<u8>>,
    ) -> Result<(), Failed> {
        let mut mark = *b"palisade\0\0\0\0\0\0\0\0";
        mark[8..].copy_from_slice(&(self.cases.len() as u64).to_be_bytes());
        self.capture(at)?;
        let capture = self.capture(from)?;
        for _ in 0..TIMES {
            for frame in frames(capture.mac, &mark) {
                capture.send(&frame)?;
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

    /// Sends a UDP datagram and a TCP SYN with these addresses.
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

    /// Returns the cases whose marks arrive at their destination. Waits until all have arrived, or until `timeout`.
    fn passed(&mut self, timeout: Duration) -> Result<Vec<String>, Failed> {
        let mut arrived = BTreeSet::new();
        until(timeout, || {
            for (name, capture) in &self.captures {
                let frames: Vec<_> = capture.take()?.into_iter().filter(|f| f.incoming).collect();
                let cases = self.cases.iter().enumerate().filter(|(_, case)| case.at == *name);
                arrived
                    .extend(cases.filter(|(_, case)| frames.iter().any(|f| f.has(&case.mark))).map(|c| c.0));
            }
            Ok((arrived.len() == self.cases.len()).then_some(()))
        })?;
        Ok(arrived.into_iter().map(|case| self.cases[case].what.clone()).collect())
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

/// Builds a testbed with tunnels, agents on both nodes, and the default policies.
fn testbed_with_policies(sandbox: &Sandbox, kind: PodNetwork) -> Result<Testbed, Failed> {
    let mut testbed = Testbed::build(sandbox, kind)?;
    for (device, family) in TUNNELS {
        let (near, far) = (testbed.address(NEAR, family)?, testbed.address(FAR, family)?);
        tunnel::add(&testbed, NEAR, device, near, far)?;
        tunnel::add(&testbed, FAR, device, far, near)?;
    }
    testbed.write_policies(&default_policies())?;
    for node in [NEAR, FAR] {
        testbed.start(node)?;
    }
    Ok(testbed)
}

fn packets(
    sandbox: &Sandbox,
    kind: PodNetwork,
    send: fn(&mut ForgedFrames<'_>) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let testbed = testbed_with_policies(sandbox, kind)?;
    // Control: allowed packets that are sent the same way arrive.
    let mut control = ForgedFrames::new(&testbed, kind);
    for family in Family::BOTH {
        for (from, to) in [("client", "srv"), ("far-client", "srv"), ("client", "far-srv"), ("bad", "open")] {
            let ends = (control.address(from, family)?, control.address(to, family)?);
            control.claim("allowed", (from, to), ends, &[])?;
        }
    }
    let number = control.cases.len();
    let passed = control.passed(ARRIVAL_TIMEOUT)?;
    ensure(passed.len() == number, || {
        format!("only {} of {number} allowed packets arrive: {passed:?}", passed.len())
    })?;

    let mut frames_sent = ForgedFrames::new(&testbed, kind);
    send(&mut frames_sent)?;
    let (passed, number) = (frames_sent.passed(SETTLE)?, frames_sent.cases.len());
    println!("{} of {number} forged packets pass, {kind:?}", passed.len());
    ensure(number > 0, || "nothing was sent".into())?;
    ensure(passed.is_empty(), || {
        format!("{} of {number} packets pass:\n  {}", passed.len(), passed.join("\n  "))
    })
}

/// Sends packets whose source address is that of the destination.
fn own_address(frames_sent: &mut ForgedFrames<'_>) -> Result<(), Failed> {
    for family in Family::BOTH {
        let srv = frames_sent.address("srv", family)?;
        for from in ["bad", "far-bad", FAR, "outside"] {
            frames_sent.claim("from itself", (from, "srv"), (srv, srv), &[])?;
        }
    }
    Ok(())
}

/// Sends packets with the source address of another place: to an isolated pod, to another pod, and from a pod that may open no
/// connection.
fn other_addresses(frames_sent: &mut ForgedFrames<'_>) -> Result<(), Failed> {
    for family in Family::BOTH {
        let mut claims: Vec<IpAddr> = Vec::new();
        for name in ["client", "far-client", "open", NEAR, FAR, "outside"] {
            claims.push(frames_sent.address(name, family)?);
        }
        claims.push(match family {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        });
        if family == Family::V6
            && let IpAddr::V4(client) = frames_sent.address("client", Family::V4)?
        {
            claims.push(client.to_ipv6_mapped().into());
        }
        for (from, to) in
            [("bad", "srv"), ("bad", "open"), ("iso", "bad"), ("iso", "outside"), ("iso", "far-bad")]
        {
            let target = frames_sent.address(to, family)?;
            for claim in claims.iter().filter(|claim| **claim != target) {
                frames_sent.claim("forged", (from, to), (*claim, target), &[])?;
            }
        }
        // Packets from a local pod's address can't arrive from other nodes.
        let (client, srv) = (frames_sent.address("client", family)?, frames_sent.address("srv", family)?);
        for from in ["far-bad", FAR, "outside"] {
            frames_sent.claim("a local pod's address from elsewhere", (from, "srv"), (client, srv), &[])?;
        }
    }
    Ok(())
}

/// Sends messages that have only the type of a discovery message. Neighbor discovery is valid with hop limit 255 (RFC 4861), so
/// never after a router. Listener discovery is valid with hop limit 1 and a link-local source (RFC 2710, RFC 3810).
fn discovery(frames_sent: &mut ForgedFrames<'_>) -> Result<(), Failed> {
    for (from, to) in [("bad", "srv"), ("iso", "outside"), ("iso", "open")] {
        let (IpAddr::V6(source), IpAddr::V6(destination)) =
            (frames_sent.address(from, Family::V6)?, frames_sent.address(to, Family::V6)?)
        else {
            return Err("no IPv6".into());
        };
        // On one link, neighbor discovery between global addresses is valid.
        let on_link = frames_sent.kind == PodNetwork::Bridged && to != "outside";
        for kind in (130..=137).chain([143]) {
            let is_neighbor_discovery = (133..=137).contains(&kind);
            for hops in [64, 255] {
                if on_link && is_neighbor_discovery && hops == 255 {
                    continue;
                }
                let message = |mark: &Mark| {
                    let body = [&[0; 20][..], mark].concat();
                    frames::icmpv6(source, destination, kind, &body)
                };
                let (s, d) = (source.into(), destination.into());
                let what = |how: &str| format!("ICMPv6 {kind}, hop limit {hops}{how}");
                frames_sent
                    .send(&what(""), (from, to), |mark| frames::ip(s, d, ICMPV6, hops, &message(mark)))?;
                frames_sent.send(&what(", behind hop-by-hop"), (from, to), |mark| {
                    frames::ip(s, d, 0, hops, &[frames::hop_by_hop(ICMPV6), message(mark)].concat())
                })?;
                frames_sent.send_tagged(&what(", fragmented"), (from, to), &[], |mark| {
                    frames::fragments(source, destination, ICMPV6, hops, &message(mark))
                })?;
            }
        }
    }
    Ok(())
}

/// Sends frames with VLAN tags, which br_netfilter may not pass to netfilter.
fn tags(frames_sent: &mut ForgedFrames<'_>) -> Result<(), Failed> {
    const TAGS: [(&str, &[u16]); 4] = [
        ("802.1Q", &[VLAN]),
        ("802.1Q twice", &[VLAN, VLAN]),
        ("802.1ad", &[SERVICE_VLAN]),
        ("802.1ad and 802.1Q", &[SERVICE_VLAN, VLAN]),
    ];
    for family in Family::BOTH {
        for (from, to) in [("bad", "srv"), ("iso", "open"), ("iso", "bad")] {
            let ends = (frames_sent.address(from, family)?, frames_sent.address(to, family)?);
            for (name, tags) in TAGS {
                frames_sent.claim(name, (from, to), ends, tags)?;
            }
        }
        // To the hardware address of the bridge, which routes the packet.
        let (source, target) = (frames_sent.address("bad", family)?, frames_sent.address("srv", family)?);
        let gateway = frames_sent.hop("bad", "outside")?;
        for (name, tags) in TAGS {
            let what = format!("{name} to the gateway, {family:?}");
            frames_sent.send_to(&what, ("bad", "srv"), gateway, tags, |mark| {
                vec![claiming(UDP, source, target, mark)]
            })?;
        }
    }
    Ok(())
}

/// Sends a tagged datagram, answers it if it arrives, and then sends an untagged one, which the answer must not allow.
fn answered(sandbox: &Sandbox) -> Result<(), Failed> {
    let testbed = testbed_with_policies(sandbox, PodNetwork::Bridged)?;
    let mut frames_sent = ForgedFrames::new(&testbed, PodNetwork::Bridged);
    for family in Family::BOTH {
        let (bad, srv) = (frames_sent.address("bad", family)?, frames_sent.address("srv", family)?);
        let server = testbed.within("srv", || UdpSocket::bind((srv, TO)))??;
        server.set_read_timeout(Some(SETTLE))?;
        frames_sent.send_tagged(&format!("tagged, {family:?}"), ("bad", "srv"), &[VLAN], |mark| {
            vec![claiming(UDP, bad, srv, mark)]
        })?;
        while let Ok((_, from)) = server.recv_from(&mut [0; 64]) {
            server.send_to(b"answer", from)?;
        }
        let what = format!("untagged after a tagged one, {family:?}");
        frames_sent.send(&what, ("bad", "srv"), |mark| claiming(UDP, bad, srv, mark))?;
    }
    let passed = frames_sent.passed(SETTLE)?;
    println!("{} of {} pass", passed.len(), frames_sent.cases.len());
    ensure(passed.is_empty(), || format!("these pass:\n  {}", passed.join("\n  ")))
}

/// Sends frames to a pod's hardware address whose destination address is not the pod's.
fn unknown_addresses(frames_sent: &mut ForgedFrames<'_>) -> Result<(), Failed> {
    let IpAddr::V4(srv) = frames_sent.address("srv", Family::V4)? else { return Err("no IPv4".into()) };
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
        let source = frames_sent.address("bad", Family::of(target))?;
        frames_sent.claim("to an unknown address", ("bad", "srv"), (source, target), &[])?;
    }
    Ok(())
}

/// Sends VXLAN packets from a pod to the tunnels of both nodes. They contain a packet with the address of an allowed pod.
fn tunnels(frames_sent: &mut ForgedFrames<'_>) -> Result<(), Failed> {
    for (device, outer) in TUNNELS {
        for inner in Family::BOTH {
            for (sender, node, claimed, target) in [
                ("bad", FAR, "client", "far-srv"),
                ("iso", FAR, "client", "far-srv"),
                ("bad", NEAR, "far-client", "srv"),
            ] {
                let source = frames_sent.address(sender, outer)?;
                let to = frames_sent.address(node, outer)?;
                let (claimed, inside) =
                    (frames_sent.address(claimed, inner)?, frames_sent.address(target, inner)?);
                let what = format!("VXLAN to port {} of {node} ({outer:?}), {inner:?} within", device.port);
                let hop = frames_sent.hop(sender, "outside")?;
                frames_sent.send_to(&what, (sender, target), hop, &[], |mark| {
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
fn connects(testbed: &Testbed, from: &str, to: &str, at: (IpAddr, u16)) -> Result<(), Failed> {
    let patience = Duration::from_secs(60);
    let made = testbed.within(from, || TcpStream::connect_timeout(&at.into(), patience))?;
    made.map(drop).map_err(|e| format!("{from} to {to} at {} port {}: {e}", at.0, at.1).into())
}

/// Neighbor and listener discovery, hairpin connections through a service, probes of the kubelet, and the overlay still work.
fn valid_packets(sandbox: &Sandbox, kind: PodNetwork) -> Result<(), Failed> {
    let testbed = testbed_with_policies(sandbox, kind)?;
    let mut listeners = Vec::new();
    for name in ["srv", "both", "open", "iso", "far-srv"] {
        for family in Family::BOTH {
            let address = testbed.address(name, family)?;
            listeners.push(testbed.within(name, || TcpListener::bind((address, OWN_PORT)))??);
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
            connects(&testbed, from, to, (testbed.address(to, family)?, OWN_PORT))?;
        }
        // Through the service, from an allowed pod and from the backend itself.
        let service = testbed.service(family)?;
        for from in ["client", "srv"] {
            connects(&testbed, from, "the service of srv", (service, SERVICE_PORT))?;
        }
    }
    if kind == PodNetwork::Bridged {
        listener_reports(&testbed)?;
    }
    // Packets that the node sends through its tunnel are accepted, although replies take another path.
    for family in Family::BOTH {
        let target = testbed.address("far-srv", family)?;
        let (device, capture) = (TUNNELS[0].0, Capture::open(&testbed, FAR)?);
        tunnel::route_through(&testbed, NEAR, device, FAR, target)?;
        connects(&testbed, "client", "far-srv through the overlay", (target, OWN_PORT))?;
        let through =
            capture.take()?.iter().any(|f| f.five_tuple().is_some_and(|e| e.destination.1 == device.port));
        ensure(through, || format!("{target} is reached, but not through the overlay"))?;
    }
    Ok(())
}

/// The listener report of a pod that may open no connection reaches the link (RFC 3810).
fn listener_reports(testbed: &Testbed) -> Result<(), Failed> {
    let capture = Capture::open(testbed, "open")?;
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x1234);
    let joined = testbed.within("iso", || -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind("[::]:0")?;
        socket.join_multicast_v6(&group, ETH0)?;
        Ok(socket)
    })??;
    let reported = until(Duration::from_secs(60), || {
        let reports = capture.take()?;
        Ok(reports.iter().any(|f| f.incoming && f.has(&group.octets())).then_some(()))
    })?;
    drop(joined);
    reported.ok_or_else(|| "the listener report of an isolated pod does not arrive".into())
}

/// The interface index of `eth0` in every pod.
const ETH0: u32 = 2;

//! Packets that their headers do not keep from other receivers: frames to the hardware address of another pod, or of all, fragments that become
//! part of another pod's packet, and packets from no address, which no policy selects.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    time::Duration,
};

use libtest_mimic::Failed;
use nix::net::if_::if_nametoindex;
use palisade_agent::config::SourceCheck;
use palisade_lab::Sandbox;
use palisade_netns::rtnetlink::Netlink;
use palisade_policy::Family;

use super::{ARRIVAL_TIMEOUT, FROM, ForgedFrames, OWN_PORT, SETTLE, TIMES, TO, testbed_with_policies};
use crate::{
    agent,
    capture::{Capture, Mac},
    frames::{self, ICMPV6, UDP},
    harness::{ensure, until},
    testbed::{NEAR, PodNetwork, Testbed, default_policies},
};

const BROADCAST: Mac = [0xff; 6];
const ALL_NODES: Mac = [0x33, 0x33, 0, 0, 0, 1];
/// No interface has it, so that the bridge sends frames to all ports.
const UNKNOWN: Mac = [2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee];

/// Lets a client exchange a datagram with a server, whose connection is established then.
fn exchange(testbed: &Testbed, (from, to): (&str, &str), family: Family) -> Result<(), Failed> {
    let (client, server) = (testbed.address(from, family)?, testbed.address(to, family)?);
    let at = testbed.within(to, || UdpSocket::bind((server, OWN_PORT)))??;
    let socket = testbed.within(from, || UdpSocket::bind((client, FROM)))??;
    for one in [&at, &socket] {
        one.set_read_timeout(Some(Duration::from_millis(500)))?;
    }
    let mut buffer = [0; 8];
    let answered = until(Duration::from_secs(30), || {
        socket.send_to(b"request", (server, OWN_PORT))?;
        let Ok((_, peer)) = at.recv_from(&mut buffer) else { return Ok(None) };
        at.send_to(b"reply", peer)?;
        Ok(socket.recv(&mut buffer).is_ok().then_some(()))
    })?;
    answered.ok_or_else(|| format!("{from} gets no answer from {to}").into())
}

/// Sends frames of an allowed connection, and such as would open one, to other pods of the bridge than the one that has the destination address.
pub(super) fn other_pods(frames_sent: &mut ForgedFrames<'_>) -> Result<(), Failed> {
    let bad = frames_sent.capture("bad")?.mac;
    for family in Family::BOTH {
        for (to, of_receiver) in [("srv", Some(bad)), ("far-srv", None)] {
            exchange(frames_sent.testbed, ("client", to), family)?;
            let (source, destination) =
                (frames_sent.address("client", family)?, frames_sent.address(to, family)?);
            let to_one = of_receiver.into_iter().flat_map(|mac| [("its own", mac), ("an unknown", UNKNOWN)]);
            for (called, mac) in to_one.chain([("the broadcast", BROADCAST), ("a group's", ALL_NODES)]) {
                for port in [OWN_PORT, TO] {
                    let what = format!("{source} to {destination}:{port} by {called} hardware address");
                    frames_sent.send_to(&what, ("client", "bad"), mac, &[], |mark| {
                        let datagram = frames::udp((source, FROM), (destination, port), mark);
                        vec![frames::ip(source, destination, UDP, 64, &datagram)]
                    })?;
                }
            }
        }
        // What is to a group, to one pod alone. On a bridge with other ports, nothing else denies it.
        let (source, srv) = (frames_sent.address("bad", family)?, frames_sent.capture("srv")?.mac);
        let groups: [IpAddr; 2] = match family {
            Family::V4 => [Ipv4Addr::new(224, 0, 0, 1).into(), Ipv4Addr::BROADCAST.into()],
            Family::V6 => {
                [Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 1)]
                    .map(IpAddr::from)
            }
        };
        for group in groups {
            frames_sent.send_to(&format!("to {group}"), ("bad", "srv"), srv, &[], |mark| {
                let datagram = frames::udp((source, FROM), (group, TO), mark);
                vec![frames::ip(source, group, UDP, 64, &datagram)]
            })?;
        }
        // A pod that no policy selects may be connected to. The one that gets the frame may not.
        let srv = frames_sent.capture("srv")?.mac;
        let (source, destination) =
            (frames_sent.address("bad", family)?, frames_sent.address("open", family)?);
        frames_sent.send_to("of an open pod", ("bad", "srv"), srv, &[], |mark| {
            let datagram = frames::udp((source, FROM), (destination, TO), mark);
            vec![frames::ip(source, destination, UDP, 64, &datagram)]
        })?;
    }
    Ok(())
}

/// With the strict check, a pod can't hand packets for other nodes to its neighbors either.
pub(super) fn other_pods_strict(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut testbed = Testbed::build(sandbox, PodNetwork::Bridged)?;
    agent::set_source_check(testbed.folder(), SourceCheck::Strict)?;
    testbed.write_policies(&default_policies())?;
    testbed.start(NEAR)?;
    let mut frames_sent = ForgedFrames::new(&testbed, PodNetwork::Bridged);
    other_pods(&mut frames_sent)?;
    no_address_to_a_pod(&mut frames_sent)?;
    let bad = frames_sent.capture("bad")?.mac;
    for family in Family::BOTH {
        let (source, destination) =
            (frames_sent.address("client", family)?, frames_sent.address("far-srv", family)?);
        for mac in [bad, UNKNOWN] {
            frames_sent.send_to("of another node", ("client", "bad"), mac, &[], |mark| {
                let datagram = frames::udp((source, FROM), (destination, OWN_PORT), mark);
                vec![frames::ip(source, destination, UDP, 64, &datagram)]
            })?;
        }
    }
    let passed = frames_sent.passed(SETTLE)?;
    ensure(passed.is_empty(), || format!("packets pass:\n  {}", passed.join("\n  ")))
}

/// Sends what hosts without an address send to many, but to one pod.
pub(super) fn no_address_to_a_pod(frames_sent: &mut ForgedFrames<'_>) -> Result<(), Failed> {
    /// Both ports of DHCP, and IGMP.
    const DHCP: [u16; 2] = [68, 67];
    const IGMP: u8 = 2;
    for ends in [("iso", "open"), ("bad", "srv")] {
        let (from, to) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), frames_sent.address(ends.1, Family::V4)?);
        frames_sent.send("DHCP", ends, |mark| {
            frames::ip(from, to, UDP, 64, &frames::udp((from, DHCP[0]), (to, DHCP[1]), mark))
        })?;
        frames_sent.send("IGMP", ends, |mark| frames::ip(from, to, IGMP, 1, mark))?;
        let IpAddr::V6(to) = frames_sent.address(ends.1, Family::V6)? else { return Err("no IPv6".into()) };
        let from = Ipv6Addr::UNSPECIFIED;
        // With another hop limit than that of valid messages (255, and 1 for listeners).
        for kind in [131, 132, 133, 135, 143] {
            frames_sent.send(&format!("ICMPv6 type {kind}"), ends, |mark| {
                let message = frames::icmpv6(from, to, kind, &[&[0; 4][..], mark].concat());
                frames::ip(from.into(), to.into(), ICMPV6, 64, &message)
            })?;
        }
    }
    Ok(())
}

/// A pod says that it has the hardware address of another pod, of all, or of none. The node believes that, and sends there what is to the pod.
pub(super) fn said_hardware_address(sandbox: &Sandbox) -> Result<(), Failed> {
    let testbed = testbed_with_policies(sandbox, PodNetwork::Bridged)?;
    let believe = |address: IpAddr, mac: Mac| -> Result<(), Failed> {
        testbed.within(NEAR, || -> Result<(), Failed> {
            let bridge = if_nametoindex("cni0")?;
            Ok(Netlink::open()?.neighbor(bridge, address, mac).commit()?)
        })?
    };
    let mut frames_sent = ForgedFrames::new(&testbed, PodNetwork::Bridged);
    let (own, srv) = (frames_sent.capture("bad")?.mac, frames_sent.capture("srv")?.mac);
    for family in Family::BOTH {
        let mut control = ForgedFrames::new(&testbed, PodNetwork::Bridged);
        let (from, to) = (control.address("far-client", family)?, control.address("bad", family)?);
        let packet =
            |mark: &[u8; 16]| vec![frames::ip(from, to, UDP, 64, &frames::udp((from, FROM), (to, TO), mark))];
        let hop = control.hop("far-client", "bad")?;
        for (called, mac) in [("another pod's", srv), ("the broadcast", BROADCAST), ("an unknown", UNKNOWN)] {
            believe(to, mac)?;
            for at in ["srv", "open"] {
                let what = format!("{from} to {to} by {called} hardware address");
                frames_sent.send_to(&what, ("far-client", at), hop, &[], packet)?;
            }
            // They have to leave the node before it believes something else.
            std::thread::sleep(SETTLE);
        }
        believe(to, own)?;
        control.send_to("allowed", ("far-client", "bad"), hop, &[], packet)?;
        ensure(!control.passed(ARRIVAL_TIMEOUT)?.is_empty(), || "no allowed packet arrives".to_owned())?;
    }
    let passed = frames_sent.passed(SETTLE)?;
    ensure(passed.is_empty(), || format!("packets reach other pods:\n  {}", passed.join("\n  ")))
}

/// A pod sends the last fragment of a datagram whose first one an allowed client sends.
pub(super) fn forged_fragments(frames_sent: &mut ForgedFrames<'_>) -> Result<(), Failed> {
    for family in Family::BOTH {
        for to in ["srv", "far-srv"] {
            let (client, server) = (frames_sent.address("client", family)?, frames_sent.address(to, family)?);
            let (of_bad, of_client) = (frames_sent.hop("bad", to)?, frames_sent.hop("client", to)?);
            let parts = |mark: &[u8; 16]| {
                let datagram = frames::udp((client, FROM), (server, TO), &[&b"of first"[..], mark].concat());
                match (client, server) {
                    (IpAddr::V4(from), IpAddr::V4(to)) => frames::ipv4_fragments(from, to, UDP, &datagram),
                    (IpAddr::V6(from), IpAddr::V6(to)) => frames::fragments(from, to, UDP, 64, &datagram),
                    _ => Vec::new(),
                }
            };
            let what = format!("{client} to {server}, the last fragment by another pod");
            frames_sent.send_frames(&what, ("bad", to), |own, mark| {
                let last = parts(mark).into_iter().skip(1);
                last.map(|fragment| frames::ethernet(of_bad, own, &fragment)).collect()
            })?;
            let mark = frames_sent.cases.last().map(|case| case.mark).ok_or("no case")?;
            let capture = frames_sent.capture("client")?;
            for first in parts(&mark).into_iter().take(1) {
                capture.send(&frames::ethernet(of_client, capture.mac, &first))?;
            }
        }
    }
    Ok(())
}

/// Sends datagrams and echo requests from 0.0.0.0 and :: to the node, by a pod that may open no connection, and by another.
pub(super) fn from_no_address(sandbox: &Sandbox, kind: PodNetwork) -> Result<(), Failed> {
    let testbed = testbed_with_policies(sandbox, kind)?;
    let server = testbed.within(NEAR, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, TO)))??;
    server.set_read_timeout(Some(SETTLE))?;
    for pod in ["iso", "open"] {
        let capture = Capture::open(&testbed, pod)?;
        let node = frames::next_hop(&testbed, pod, "outside")?;
        for _ in 0..TIMES {
            for to in [Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 1)] {
                for mac in [node, BROADCAST] {
                    let from = Ipv4Addr::UNSPECIFIED.into();
                    let datagram = frames::udp((from, FROM), (to.into(), TO), pod.as_bytes());
                    let packet = frames::ip(from, to.into(), UDP, 64, &datagram);
                    capture.send(&frames::ethernet(mac, capture.mac, &packet))?;
                }
            }
        }
        let mut buffer = [0; 8];
        let received = match server.recv(&mut buffer) {
            Ok(_) => true,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => false,
            Err(e) => return Err(e.into()),
        };
        ensure(!received, || format!("the node receives a datagram of {pod} from 0.0.0.0"))?;
        echoes(&testbed, pod, &capture, node)?;
    }
    Ok(())
}

fn echoes(testbed: &Testbed, pod: &str, capture: &Capture, node: Mac) -> Result<(), Failed> {
    let counted = || -> Result<u32, Failed> {
        let text = testbed.within(NEAR, || fs::read_to_string("/proc/thread-self/net/snmp6"))??;
        let line = text.lines().find_map(|line| line.strip_prefix("Icmp6InEchos"));
        Ok(line.ok_or("no counter of echo requests")?.trim().parse()?)
    };
    let send = |from: Ipv6Addr, to: Ipv6Addr, mac: Mac| {
        let message = frames::icmpv6(from, to, 128, b"\0\x01\0\x01payload");
        capture.send(&frames::ethernet(
            mac,
            capture.mac,
            &frames::ip(from.into(), to.into(), ICMPV6, 64, &message),
        ))
    };
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let before = counted()?;
    send(Ipv6Addr::UNSPECIFIED, all, ALL_NODES)?;
    send(Ipv6Addr::UNSPECIFIED, all, node)?;
    std::thread::sleep(SETTLE);
    ensure(counted()? == before, || format!("the node receives echo requests of {pod} from ::"))?;
    // Control: those with an address arrive where policies allow them.
    if pod == "open" {
        let IpAddr::V6(own) = testbed.address(pod, Family::V6)? else { return Err("no IPv6".into()) };
        send(own, all, ALL_NODES)?;
        let arrived = until(Duration::from_secs(30), || Ok((counted()? > before).then_some(())))?;
        ensure(arrived.is_some(), || "no echo request is counted".to_owned())?;
    }
    Ok(())
}

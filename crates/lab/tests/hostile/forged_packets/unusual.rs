//! Valid and invalid packets that few programs send: options, extension headers, fragments, packets within packets, addresses that are no host's, and
//! ICMP errors about connections that don't exist. All go to where policies allow nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libtest_mimic::Failed;
use palisade_policy::Family;

use super::{FROM, ForgedFrames, Mark, TO, claiming};
use crate::{
    capture::Mac,
    frames::{self, SERVICE_VLAN, TCP, UDP, VLAN},
    testbed::PodNetwork,
};

/// From a pod to one whose ingress is denied, and from one whose egress is denied.
const ENDS: [(&str, &str); 4] = [("bad", "srv"), ("bad", "far-srv"), ("iso", "open"), ("iso", "outside")];

/// IP protocols.
const IPV4_IN_IP: u8 = 4;
const IPV6_IN_IP: u8 = 41;
const GRE: u8 = 47;
/// Extension headers of IPv6, and what ends their chain.
const HOP_BY_HOP: u8 = 0;
pub(super) const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const NOTHING: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;

fn own(
    frames_sent: &ForgedFrames<'_>,
    (from, to): (&str, &str),
    family: Family,
) -> Result<(IpAddr, IpAddr), Failed> {
    Ok((frames_sent.address(from, family)?, frames_sent.address(to, family)?))
}

fn datagram(source: IpAddr, destination: IpAddr, mark: &Mark) -> Vec<u8> {
    // The second fragment has the mark too.
    frames::udp((source, FROM), (destination, TO), &[&mark[..], mark].concat())
}

/// Options of IPv4, and extension headers of IPv6, in front of a datagram that is denied without them.
fn headers(frames_sent: &mut ForgedFrames<'_>) -> Result<(), Failed> {
    for ends in ENDS {
        let (source, destination) = own(frames_sent, ends, Family::V4)?;
        let (IpAddr::V4(s), IpAddr::V4(d)) = (source, destination) else { return Err("no IPv4".into()) };
        let [a, b, c, e] = d.octets();
        let options: [(&str, &[u8]); 5] = [
            ("router alert", &[148, 4, 0, 0]),
            ("record route", &[7, 7, 4, 0, 0, 0, 0, 0]),
            ("loose source route", &[131, 7, 4, a, b, c, e, 0]),
            ("strict source route", &[137, 7, 4, a, b, c, e, 0]),
            ("no-operation", &[1, 1, 1, 0]),
        ];
        for (name, option) in options {
            frames_sent.send(name, ends, |mark| {
                frames::ipv4_with_options(s, d, UDP, option, &datagram(source, destination, mark))
            })?;
        }
        frames_sent.send_tagged("IPv4 fragments", ends, &[], |mark| {
            frames::ipv4_fragments(s, d, UDP, &datagram(source, destination, mark))
        })?;
        let (source, destination) = own(frames_sent, ends, Family::V6)?;
        let (IpAddr::V6(s), IpAddr::V6(d)) = (source, destination) else { return Err("no IPv6".into()) };
        let options = [1, 4, 0, 0, 0, 0];
        let routing = |kind: u8, left: u8| [&[2, kind, left, 0, 0, 0, 0][..], &d.octets()].concat();
        let headers: [(&str, u8, Vec<u8>); 6] = [
            ("hop-by-hop", HOP_BY_HOP, [&[0][..], &options].concat()),
            ("destination options", DESTINATION_OPTIONS, [&[0][..], &options].concat()),
            ("routing header 0", ROUTING, routing(0, 0)),
            ("routing header 0 with a segment left", ROUTING, routing(0, 1)),
            ("segment routing", ROUTING, routing(4, 0)),
            ("fragment header of a whole packet", FRAGMENT, vec![0, 0, 0, 0, 0, 0, 7]),
        ];
        for (name, kind, rest) in headers {
            frames_sent.send(name, ends, |mark| {
                let header = [&[UDP][..], &rest, &datagram(source, destination, mark)].concat();
                frames::ip(source, destination, kind, 64, &header)
            })?;
        }
        frames_sent.send_tagged("IPv6 fragments", ends, &[], |mark| {
            frames::fragments(s, d, UDP, 64, &datagram(source, destination, mark))
        })?;
        frames_sent
            .send("no next header", ends, |mark| frames::ip(source, destination, NOTHING, 64, mark))?;
    }
    Ok(())
}

/// Packets within packets, with the address of an allowed pod: no node unpacks them, and to the pod they are another protocol.
fn within_others(frames_sent: &mut ForgedFrames<'_>) -> Result<(), Failed> {
    for ends in ENDS {
        for outer in Family::BOTH {
            let (source, destination) = own(frames_sent, ends, outer)?;
            for inner in Family::BOTH {
                let claimed = frames_sent.address("client", inner)?;
                let target = frames_sent.address(ends.1, inner)?;
                let is_v4 = inner == Family::V4;
                for (name, protocol, head) in [
                    ("IP in IP", if is_v4 { IPV4_IN_IP } else { IPV6_IN_IP }, vec![]),
                    ("GRE", GRE, if is_v4 { vec![0, 0, 0x08, 0] } else { vec![0, 0, 0x86, 0xdd] }),
                ] {
                    frames_sent.send(&format!("{name}, {inner} in {outer}"), ends, |mark| {
                        let packet = claiming(UDP, claimed, target, mark);
                        frames::ip(source, destination, protocol, 64, &[&head[..], &packet].concat())
                    })?;
                }
            }
        }
    }
    Ok(())
}

/// Sources and destinations that are no single host's.
fn nobodys_addresses(frames_sent: &mut ForgedFrames<'_>) -> Result<(), Failed> {
    let v6 = |text: &str| text.parse::<Ipv6Addr>().map(IpAddr::from);
    let sources = [
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv4Addr::BROADCAST.into(),
        Ipv4Addr::new(224, 0, 0, 1).into(),
        Ipv4Addr::new(240, 0, 0, 1).into(),
        Ipv4Addr::new(169, 254, 1, 1).into(),
        Ipv4Addr::new(0, 1, 2, 3).into(),
        v6("::")?,
        v6("ff02::1")?,
        v6("ff0e::1")?,
        v6("fec0::1")?,
        v6("64:ff9b::a00:1")?,
    ];
    for ends in ENDS {
        for source in sources {
            let target = frames_sent.address(ends.1, Family::of(source))?;
            frames_sent.claim("nobody's source", ends, (source, target), &[])?;
        }
    }
    let destinations = [
        Ipv4Addr::BROADCAST.into(),
        Ipv4Addr::new(224, 0, 0, 251).into(),
        Ipv4Addr::new(239, 1, 2, 3).into(),
        v6("ff02::1")?,
        v6("ff05::1:3")?,
        v6("ff0e::1")?,
    ];
    for (from, to) in ENDS {
        let hop = frames_sent.hop(from, to)?;
        for target in destinations {
            let family = Family::of(target);
            let mut claims = vec![frames_sent.address(from, family)?];
            claims.extend(if family == Family::V6 { Some(v6("fe80::bad")?) } else { None });
            for source in claims {
                for (at, mac) in [("one", hop), ("all", group(target))] {
                    let what = format!("to many by the address of {at}, {source} to {target}");
                    frames_sent.send_to(&what, (from, to), mac, &[], |mark| {
                        vec![claiming(UDP, source, target, mark)]
                    })?;
                }
            }
        }
    }
    Ok(())
}

/// Returns the hardware address of a group.
fn group(address: IpAddr) -> Mac {
    match address {
        IpAddr::V4(Ipv4Addr::BROADCAST) => [0xff; 6],
        IpAddr::V4(address) => {
            let [_, b, c, d] = address.octets();
            [0x01, 0, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
}

/// ICMP errors about connections that don't exist, as if the receiver had sent a packet of them.
fn errors(frames_sent: &mut ForgedFrames<'_>) -> Result<(), Failed> {
    for ends in ENDS {
        for family in Family::BOTH {
            let (source, destination) = own(frames_sent, ends, family)?;
            let kinds: &[(u8, u8)] = match family {
                Family::V4 => &[(3, 1), (3, 3), (3, 4), (5, 1), (11, 0), (12, 0)],
                Family::V6 => &[(1, 4), (2, 0), (3, 0), (4, 0)],
            };
            for (kind, code) in kinds {
                for protocol in [UDP, TCP] {
                    frames_sent.send(&format!("ICMP error {kind} {code}, {family}"), ends, |mark| {
                        let about = claiming(protocol, destination, source, mark);
                        frames::icmp_error(source, destination, (*kind, *code), &about)
                    })?;
                }
            }
        }
    }
    Ok(())
}

/// Tags with the numbers of VLANs, one and two.
fn numbered_tags(frames_sent: &mut ForgedFrames<'_>) -> Result<(), Failed> {
    for (from, to) in [("bad", "srv"), ("iso", "open")] {
        let hop = frames_sent.hop(from, to)?;
        for family in Family::BOTH {
            let ends = own(frames_sent, (from, to), family)?;
            for tags in
                [&[(VLAN, 100)][..], &[(SERVICE_VLAN, 100), (VLAN, 200)], &[(SERVICE_VLAN, 4094), (VLAN, 0)]]
            {
                frames_sent.send_frames(
                    &format!("{family} with tags {tags:?}"),
                    (from, to),
                    |own, mark| vec![frames::numbered(hop, own, tags, &claiming(UDP, ends.0, ends.1, mark))],
                )?;
            }
        }
    }
    Ok(())
}

/// Sends everything of this module.
pub(super) fn all(frames_sent: &mut ForgedFrames<'_>) -> Result<(), Failed> {
    headers(frames_sent)?;
    within_others(frames_sent)?;
    nobodys_addresses(frames_sent)?;
    errors(frames_sent)?;
    if frames_sent.kind == PodNetwork::Bridged {
        numbered_tags(frames_sent)?;
    }
    Ok(())
}

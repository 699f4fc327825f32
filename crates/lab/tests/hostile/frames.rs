//! Encoders of packets that no socket would send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libtest_mimic::Failed;
use palisade_policy::Family;

use crate::{
    capture::{Capture, Mac},
    harness::until,
    testbed::Testbed,
};

/// TCP flags (RFC 9293).
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;

/// EtherTypes.
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;
pub(crate) const VLAN: u16 = 0x8100;
pub(crate) const SERVICE_VLAN: u16 = 0x88a8;

/// IP protocols.
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

/// A TCP segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tcp {
    pub(crate) source: u16,
    pub(crate) destination: u16,
    pub(crate) sequence: u32,
    pub(crate) acknowledged: u32,
    pub(crate) flags: u8,
}

impl Tcp {
    /// Returns a SYN.
    pub(crate) fn new(source: u16, destination: u16) -> Self {
        Self { source, destination, sequence: 1, acknowledged: 0, flags: SYN }
    }

    /// Encodes the segment with its checksum.
    pub(crate) fn bytes(self, from: IpAddr, to: IpAddr, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.source.to_be_bytes());
        out.extend(self.destination.to_be_bytes());
        out.extend(self.sequence.to_be_bytes());
        out.extend(self.acknowledged.to_be_bytes());
        // Header length of five words, flags, window, empty checksum, urgent pointer.
        out.extend([0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        out.extend(payload);
        let sum = transport_checksum(from, to, TCP, &out);
        out[16..18].copy_from_slice(&sum.to_be_bytes());
        out
    }
}

/// Encodes a UDP datagram with its checksum.
pub(crate) fn udp(from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(from.1.to_be_bytes());
    out.extend(to.1.to_be_bytes());
    out.extend(short(8 + payload.len()).to_be_bytes());
    out.extend([0, 0]);
    out.extend(payload);
    // RFC 768: a checksum of 0 is sent as all ones.
    let sum = match transport_checksum(from.0, to.0, UDP, &out) {
        0 => 0xffff,
        sum => sum,
    };
    out[6..8].copy_from_slice(&sum.to_be_bytes());
    out
}

/// Encodes an ICMPv6 message of a type, code 0, with its checksum.
pub(crate) fn icmpv6(from: Ipv6Addr, to: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 0, 0, 0];
    out.extend(body);
    let sum = transport_checksum(from.into(), to.into(), ICMPV6, &out);
    out[2..4].copy_from_slice(&sum.to_be_bytes());
    out
}

/// Encodes an IP packet.
pub(crate) fn ip(from: IpAddr, to: IpAddr, protocol: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut out = vec![0x45, 0];
            out.extend(short(20 + payload.len()).to_be_bytes());
            out.extend([0, 0, 0x40, 0, hops, protocol, 0, 0]);
            out.extend(from.octets());
            out.extend(to.octets());
            let sum = checksum(&out);
            out[10..12].copy_from_slice(&sum.to_be_bytes());
            out.extend(payload);
            out
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut out = vec![0x60, 0, 0, 0];
            out.extend(short(payload.len()).to_be_bytes());
            out.extend([protocol, hops]);
            out.extend(from.octets());
            out.extend(to.octets());
            out.extend(payload);
            out
        }
        _ => Vec::new(),
    }
}

/// Encodes an IPv4 packet with options, whose length is a multiple of four.
pub(crate) fn ipv4_with_options(
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let plain = ip(from.into(), to.into(), protocol, 64, payload);
    let mut header = [&plain[..20], options].concat();
    header[0] = 0x40 | u8::try_from(header.len() / 4).unwrap_or(15);
    let length = short(header.len() + payload.len());
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[10..12].fill(0);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header[..], payload].concat()
}

/// Encodes an IPv4 packet in two fragments.
pub(crate) fn ipv4_fragments(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<Vec<u8>> {
    /// The length of the first fragment; a multiple of eight.
    const LENGTH: usize = 16;
    const MORE: u16 = 0x2000;
    let (first, second) = payload.split_at(LENGTH);
    let number = checksum(payload).to_be_bytes();
    let fragment = |(part, offset_and_more): (&[u8], u16)| {
        let mut out = ip(from.into(), to.into(), protocol, 64, part);
        out[4..6].copy_from_slice(&number);
        out[6..8].copy_from_slice(&offset_and_more.to_be_bytes());
        out[10..12].fill(0);
        let sum = checksum(&out[..20]);
        out[10..12].copy_from_slice(&sum.to_be_bytes());
        out
    };
    [(first, MORE), (second, short(LENGTH / 8))].map(fragment).to_vec()
}

/// Encodes an ICMP or ICMPv6 error of a type and code about a packet.
pub(crate) fn icmp_error(from: IpAddr, to: IpAddr, (kind, code): (u8, u8), about: &[u8]) -> Vec<u8> {
    let mut out = [&[kind, code, 0, 0, 0, 0, 5, 220][..], about].concat();
    let protocol = if from.is_ipv4() { 1 } else { ICMPV6 };
    let sum = if from.is_ipv4() { checksum(&out) } else { transport_checksum(from, to, ICMPV6, &out) };
    out[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(from, to, protocol, 64, &out)
}

/// Encodes a hop-by-hop header with a router alert (RFC 2711), followed by `next`.
pub(crate) fn hop_by_hop(next: u8) -> Vec<u8> {
    vec![next, 0, 5, 2, 0, 0, 1, 0]
}

/// Encodes an IPv6 packet in two fragments.
pub(crate) fn fragments(
    from: Ipv6Addr,
    to: Ipv6Addr,
    protocol: u8,
    hops: u8,
    payload: &[u8],
) -> Vec<Vec<u8>> {
    /// The length of the first fragment; a multiple of eight.
    const LENGTH: usize = 16;
    let (first, second) = payload.split_at(LENGTH);
    // The identification depends on the message, because the same message is sent more than once.
    let number = checksum(payload).to_be_bytes();
    let parts = [(first, 1u16), (second, short(LENGTH))];
    let fragment = |(part, offset_and_more): (&[u8], u16)| {
        let mut header = vec![protocol, 0];
        header.extend(offset_and_more.to_be_bytes());
        header.extend([0, 0]);
        header.extend(number);
        header.extend(part);
        ip(from.into(), to.into(), 44, hops, &header)
    };
    parts.map(fragment).to_vec()
}

/// Encodes a VXLAN header (RFC 7348) and a frame.
pub(crate) fn vxlan(id: u32, frame: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = id.to_be_bytes();
    [&[8, 0, 0, 0, a, b, c, 0], frame].concat()
}

/// Encodes an Ethernet frame with an ARP reply, or with a request if `to` is the broadcast address (RFC 826), and bytes behind it.
pub(crate) fn arp(to: Mac, from: Mac, sender: Ipv4Addr, target: Ipv4Addr, behind: &[u8]) -> Vec<u8> {
    let operation = if to == [0xff; 6] { 1u16 } else { 2 };
    let mut out = [to, from].concat();
    out.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4]);
    out.extend(operation.to_be_bytes());
    out.extend(from);
    out.extend(sender.octets());
    out.extend(to);
    out.extend(target.octets());
    out.extend(behind);
    out
}

/// Encodes an Ethernet frame with an IP packet.
pub(crate) fn ethernet(to: Mac, from: Mac, packet: &[u8]) -> Vec<u8> {
    tagged(to, from, &[], packet)
}

/// Encodes an Ethernet frame with VLAN tags of VLAN 0, outermost first.
pub(crate) fn tagged(to: Mac, from: Mac, tags: &[u16], packet: &[u8]) -> Vec<u8> {
    numbered(to, from, &tags.iter().map(|tag| (*tag, 0)).collect::<Vec<_>>(), packet)
}

/// Encodes an Ethernet frame with VLAN tags and their numbers, outermost first.
pub(crate) fn numbered(to: Mac, from: Mac, tags: &[(u16, u16)], packet: &[u8]) -> Vec<u8> {
    let kind = if packet.first().is_some_and(|b| b >> 4 == 4) { IPV4 } else { IPV6 };
    let mut out = [to, from].concat();
    for (tag, number) in tags {
        out.extend(tag.to_be_bytes());
        out.extend(number.to_be_bytes());
    }
    out.extend(kind.to_be_bytes());
    out.extend(packet);
    out
}

/// Returns the hardware address to which a place sends packets for another, taken from a packet that the kernel sends.
pub(crate) fn next_hop(testbed: &Testbed, from: &str, to: &str) -> Result<Mac, Failed> {
    let capture = Capture::open(testbed, from)?;
    let address = testbed.address(to, Family::V4)?;
    let socket = testbed.within(from, || std::net::UdpSocket::bind("0.0.0.0:0"))??;
    // The `discard` port, on which no server listens.
    let target = (address, 9);
    let found = until(std::time::Duration::from_secs(60), || {
        // An ICMP error for an earlier datagram is ignored.
        _ = socket.send_to(b"probe", target);
        let sent = capture.take()?.into_iter().filter(|f| !f.incoming);
        let mut ours = sent.filter(|f| f.five_tuple().is_some_and(|e| e.destination == target));
        Ok(ours.find_map(|f| f.bytes.get(..6)?.try_into().ok()))
    })?;
    found.ok_or_else(|| format!("{from} sends nothing to {to}").into())
}

/// Converts a length. All lengths here are far below 64 KiB.
fn short(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

fn transport_checksum(from: IpAddr, to: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let mut pseudo = Vec::new();
    for address in [from, to] {
        match address {
            IpAddr::V4(a) => pseudo.extend(a.octets()),
            IpAddr::V6(a) => pseudo.extend(a.octets()),
        }
    }
    pseudo.extend([0, protocol]);
    pseudo.extend(short(segment.len()).to_be_bytes());
    pseudo.extend(segment);
    checksum(&pseudo)
}

/// Computes the checksum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

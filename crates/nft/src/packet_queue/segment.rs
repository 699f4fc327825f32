//! TCP segments.

use std::net::{IpAddr, SocketAddr};

use nix::libc::IPPROTO_TCP;

use super::ip::{Packet, checksum};

/// The flags of the TCP header.
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// The number of hops that a reset may take, as Linux sends packets.
const HOPS: u8 = 64;

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Whence.
    pub source: SocketAddr,
    /// Whereto.
    pub destination: SocketAddr,
    /// The sequence number.
    pub sequence: u32,
    /// The acknowledgement number, if it has the flag ACK.
    pub acknowledged: Option<u32>,
    /// The flag SYN.
    pub syn: bool,
    /// The flag FIN.
    pub fin: bool,
    /// The flag RST.
    pub reset: bool,
    /// What it carries.
    pub payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Parses a whole packet from its IP header on. `None` if it isn't TCP right behind the header, is cut, or is a fragment.
    #[must_use]
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let packet = Packet::parse(packet).filter(|packet| i32::from(packet.protocol) == IPPROTO_TCP)?;
        let head: &[u8; 20] = packet.payload.first_chunk()?;
        let port = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let length = usize::from(head[12] >> 4) * 4;
        let has = |flag| head[13] & flag != 0;
        Some(Self {
            source: SocketAddr::new(packet.source, port(0)),
            destination: SocketAddr::new(packet.destination, port(2)),
            sequence: number(4),
            acknowledged: Some(number(8)).filter(|_| has(ACK)),
            syn: has(SYN),
            fin: has(FIN),
            reset: has(RST),
            payload: packet.payload.get(length..).filter(|_| length >= head.len())?,
        })
    }

    /// Returns a packet that resets the connection in place of this segment, from the IP header on.
    #[must_use]
    pub fn to_reset(&self) -> Vec<u8> {
        let mut tcp = [self.source.port().to_be_bytes(), self.destination.port().to_be_bytes()].concat();
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledged.unwrap_or(0).to_be_bytes());
        let flags = if self.acknowledged.is_some() { RST | ACK } else { RST };
        // Five words of header; no window, and no urgent data.
        tcp.extend([5 << 4, flags, 0, 0, 0, 0, 0, 0]);
        let length = (tcp.len() as u32).to_be_bytes();
        let protocol = [0, 0, 0, IPPROTO_TCP as u8];
        let (source, destination) = (octets(self.source.ip()), octets(self.destination.ip()));
        let sum = checksum(&[&source, &destination, &length, &protocol, &tcp]);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let mut packet = match self.source {
            SocketAddr::V4(_) => {
                let total = (20 + tcp.len() as u16).to_be_bytes();
                // "Don't fragment", as TCP has.
                let mut ip =
                    [&[0x45, 0][..], &total, &[0, 0, 0x40, 0, HOPS, IPPROTO_TCP as u8, 0, 0]].concat();
                ip.extend([&source[..], &destination].concat());
                let sum = checksum(&[&ip]);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
                ip
            }
            SocketAddr::V6(_) => {
                let length = (tcp.len() as u16).to_be_bytes();
                [&[0x60, 0, 0, 0][..], &length, &[IPPROTO_TCP as u8, HOPS], &source, &destination].concat()
            }
        };
        packet.extend(tcp);
        packet
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(source: &str, destination: &str) -> Segment<'static> {
        Segment {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            sequence: 0x0102_0304,
            acknowledged: Some(0xfffe_fdfc),
            syn: false,
            fin: false,
            reset: true,
            payload: b"",
        }
    }

    /// A reset with other flags, and behind it a payload, with eight bytes of options if wanted.
    fn packet(flags: u8, payload: &[u8], has_options: bool) -> Vec<u8> {
        let mut bytes = segment("10.0.0.1:53", "10.0.0.2:4000").to_reset();
        bytes[33] = flags;
        if has_options {
            bytes[32] = 7 << 4;
            bytes.extend([1; 8]);
        }
        bytes.extend(payload);
        let total = (bytes.len() as u16).to_be_bytes();
        bytes[2..4].copy_from_slice(&total);
        bytes
    }

    #[test]
    fn a_segment_has_its_ends_numbers_flags_and_payload() {
        let expected = segment("10.0.0.1:53", "10.0.0.2:4000");
        for has_options in [false, true] {
            let bytes = packet(FIN | SYN | RST | ACK, b"abc", has_options);
            let read = Segment::parse(&bytes).unwrap();
            assert_eq!(read, Segment { syn: true, fin: true, payload: b"abc", ..expected });
            // Padding of the frame is not part of it.
            assert_eq!(Segment::parse(&[&bytes[..], &[9]].concat()).unwrap().payload, b"abc");
        }
        let bytes = packet(0, b"", false);
        assert_eq!(Segment::parse(&bytes).unwrap(), Segment { acknowledged: None, reset: false, ..expected });
    }

    #[test]
    fn what_is_cut_or_no_whole_segment_is_refused() {
        let bytes = packet(ACK, b"abc", true);
        for length in 0..bytes.len() {
            assert_eq!(Segment::parse(&bytes[..length]), None, "{length}");
        }
        for (at, value) in [(0, 0x44), (6, 0x60), (7, 1), (9, 17), (32, 0x40), (32, 0xf0)] {
            let mut bad = bytes.clone();
            bad[at] = value;
            assert_eq!(Segment::parse(&bad), None, "{at} {value}");
        }
    }

    #[test]
    fn a_reset_is_a_segment_whose_checksums_are_right() {
        for (source, destination, head) in
            [("10.0.0.1:53", "10.0.0.2:4000", 20), ("[fd00::1]:53", "[fd00::2]:4000", 40)]
        {
            let data = segment(source, destination);
            for segment in [data, Segment { acknowledged: None, ..data }] {
                let bytes = Segment { payload: b"abc", reset: false, fin: true, ..segment }.to_reset();
                assert_eq!(Segment::parse(&bytes), Some(segment));
                // A sum over a whole with its own checksum is 0.
                assert!(head == 40 || checksum(&[&bytes[..20]]) == 0);
                let addresses = &bytes[if head == 20 { 12 } else { 8 }..head];
                let rest = &bytes[head..];
                assert_eq!(checksum(&[addresses, &[0, 0, 0, rest.len() as u8, 0, 0, 0, 6], rest]), 0);
            }
        }
    }
}

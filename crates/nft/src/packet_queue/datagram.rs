//! UDP datagrams.

use std::net::SocketAddr;

use nix::libc::IPPROTO_UDP;

use super::ip::Packet;

/// A UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Whence.
    pub source: SocketAddr,
    /// Whereto.
    pub destination: SocketAddr,
    /// What it carries.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Parses a whole packet from its IP header on. `None` if it isn't UDP right behind the header, is cut, or is a fragment.
    #[must_use]
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let packet = Packet::parse(packet).filter(|packet| i32::from(packet.protocol) == IPPROTO_UDP)?;
        let head: &[u8; 8] = packet.payload.first_chunk()?;
        let number = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let payload = packet.payload.get(head.len()..usize::from(number(4)))?;
        let (source, destination) =
            (SocketAddr::new(packet.source, number(0)), SocketAddr::new(packet.destination, number(2)));
        Some(Self { source, destination, payload })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn udp(payload: &[u8]) -> Vec<u8> {
        let length = (8 + payload.len()) as u16;
        [&[0x10, 0, 0, 53][..], &length.to_be_bytes(), &[0, 0], payload].concat()
    }

    fn v4(payload: &[u8]) -> Vec<u8> {
        let udp = udp(payload);
        let total = (20 + udp.len()) as u16;
        let mut out = vec![0x45, 0];
        out.extend(total.to_be_bytes());
        out.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        out.extend(udp);
        out
    }

    #[test]
    fn a_datagram_has_its_ends_and_its_payload() {
        let (packet, end) = (v4(b"abc"), |text: &str| text.parse::<SocketAddr>().unwrap());
        let datagram = Datagram::parse(&packet).unwrap();
        assert_eq!((datagram.source, datagram.destination), (end("10.0.0.1:4096"), end("10.0.0.2:53")));
        assert_eq!(datagram.payload, b"abc");
        let mut v6 = vec![0x60, 0, 0, 0, 0, 11, 17, 64];
        v6.extend(Ipv6Addr::LOCALHOST.octets());
        v6.extend(Ipv6Addr::UNSPECIFIED.octets());
        v6.extend(udp(b"abc"));
        let datagram = Datagram::parse(&v6).unwrap();
        assert_eq!((datagram.source, datagram.destination), (end("[::1]:4096"), end("[::]:53")));
        assert_eq!(datagram.payload, b"abc");
        // Padding of the frame is not part of it.
        assert_eq!(Datagram::parse(&[&packet[..], &[9, 9]].concat()).unwrap().payload, b"abc");
    }

    #[test]
    fn what_is_cut_or_no_whole_datagram_is_refused() {
        let packet = v4(b"abc");
        for length in 0..packet.len() {
            assert_eq!(Datagram::parse(&packet[..length]), None, "{length}");
        }
        for (at, value) in [(0, 0x44), (0, 0x55), (6, 0x20), (7, 1), (9, 6), (25, 7), (25, 12)] {
            let mut bad = packet.clone();
            bad[at] = value;
            assert_eq!(Datagram::parse(&bad), None, "{at} {value}");
        }
    }
}

//! Parses the packet headers that policies match. Pure; never panics, for any input.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use palisade_policy::Protocol;

/// The transport header, as far as it was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportHeader {
    /// TCP, UDP and SCTP.
    Ports {
        /// The source port.
        source: u16,
        /// The destination port.
        destination: u16,
    },
    /// ICMP and ICMPv6.
    Icmp {
        /// The type.
        kind: u8,
        /// The code.
        code: u8,
    },
    /// Any other protocol.
    Other,
    /// A fragment other than the first. It has no transport header, so policies with ports don't match it.
    LaterFragment,
    /// The packet, or its captured part, ends before the transport header does.
    Truncated,
}

/// The headers of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The transport protocol, after all extension headers.
    pub protocol: Protocol,
    /// The transport header.
    pub transport: TransportHeader,
}

impl Headers {
    /// Parses a packet that begins with an IP header. `None` if it is too short to contain the addresses.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => ipv4(packet),
            6 => ipv6(packet),
            _ => None,
        }
    }
}

fn ipv4(packet: &[u8]) -> Option<Headers> {
    let header: &[u8; 20] = packet.get(..20)?.try_into().ok()?;
    let length = usize::from(header[0] & 0xf) * 4;
    if length < header.len() {
        return None;
    }
    let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    let fragment_offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    let protocol = Protocol::from_number(header[9]);
    // Options may follow the fixed header.
    let behind = packet.get(length..).unwrap_or_default();
    Some(Headers {
        source: address(12).into(),
        destination: address(16).into(),
        protocol,
        transport: transport(protocol, fragment_offset, behind),
    })
}

fn ipv6(packet: &[u8]) -> Option<Headers> {
    let header = packet.get(..40)?;
    let address = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(header.get(at..at + 16)?).ok()?));
    let (mut number, mut behind, mut fragment_offset) = (header[6], &packet[40..], 0);
    let (source, destination) = (address(8)?.into(), address(24)?.into());
    // Each iteration consumes at least eight bytes. These are the extension headers that the kernel's `meta l4proto` skips
    // (`ipv6_ext_hdr`).
    while let (0 | 43 | 44 | 51 | 60, Some(start)) = (number, behind.get(..4)) {
        let length = match number {
            // A fragment header has a fixed length and an offset.
            44 => {
                fragment_offset = u16::from_be_bytes([start[2], start[3]]) >> 3;
                8
            }
            // The authentication header counts its length in words of four bytes, minus two.
            51 => (usize::from(start[1]) + 2) * 4,
            _ => (usize::from(start[1]) + 1) * 8,
        };
        number = start[0];
        behind = behind.get(length..).unwrap_or_default();
        if fragment_offset > 0 {
            break;
        }
    }
    let protocol = Protocol::from_number(number);
    Some(Headers { source, destination, protocol, transport: transport(protocol, fragment_offset, behind) })
}

fn transport(protocol: Protocol, fragment_offset: u16, bytes: &[u8]) -> TransportHeader {
    if fragment_offset > 0 {
        return TransportHeader::LaterFragment;
    }
    match (protocol, bytes) {
        (Protocol::Other(1 | 58), [kind, code, ..]) => TransportHeader::Icmp { kind: *kind, code: *code },
        (Protocol::Other(1 | 58), _) => TransportHeader::Truncated,
        (Protocol::Other(_), _) => TransportHeader::Other,
        (_, [a, b, c, d, ..]) => TransportHeader::Ports {
            source: u16::from_be_bytes([*a, *b]),
            destination: u16::from_be_bytes([*c, *d]),
        },
        _ => TransportHeader::Truncated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(protocol: u8, fragment: u16, options: &[u8], behind: &[u8]) -> Vec<u8> {
        let mut out = vec![0x45 + (options.len() / 4) as u8, 0, 0, 0, 0, 0];
        out.extend(fragment.to_be_bytes());
        out.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        out.extend(options);
        out.extend(behind);
        out
    }

    fn v6(next: u8, behind: &[u8]) -> Vec<u8> {
        let mut out = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        out.extend("fd00::1".parse::<Ipv6Addr>().unwrap().octets());
        out.extend("fd00::2".parse::<Ipv6Addr>().unwrap().octets());
        out.extend(behind);
        out
    }

    const WEB: [u8; 4] = [0x82, 0x35, 0, 80];
    const PORTS: TransportHeader = TransportHeader::Ports { source: 0x8235, destination: 80 };

    #[test]
    fn ipv4_with_and_without_options_and_fragments() {
        let plain = Headers::parse(&v4(6, 0x4000, &[], &WEB)).unwrap();
        assert_eq!((plain.source, plain.destination), ([10, 0, 0, 1].into(), [10, 0, 0, 2].into()));
        assert_eq!((plain.protocol, plain.transport), (Protocol::Tcp, PORTS));
        let transport = |packet: &[u8]| Headers::parse(packet).unwrap().transport;
        assert_eq!(transport(&v4(17, 0, &[1; 40], &WEB)), PORTS);
        assert_eq!(transport(&v4(132, 0x2000, &[], &WEB)), PORTS, "a first fragment has ports");
        assert_eq!(transport(&v4(6, 1, &[], &WEB)), TransportHeader::LaterFragment);
        assert_eq!(transport(&v4(6, 0, &[], &WEB[..3])), TransportHeader::Truncated);
        assert_eq!(transport(&v4(1, 0, &[], &[8, 0])), TransportHeader::Icmp { kind: 8, code: 0 });
        assert_eq!(transport(&v4(1, 0, &[], &[8])), TransportHeader::Truncated);
        assert_eq!(transport(&v4(47, 0, &[], &[])), TransportHeader::Other);
        assert_eq!(Headers::parse(&[&[0x44u8][..], &v4(6, 0, &[], &WEB)[1..]].concat()), None, "too short");
        assert_eq!(Headers::parse(&v4(6, 0, &[], &WEB)[..19]), None);
    }

    #[test]
    fn ipv6_with_extension_headers_and_fragments() {
        let plain = Headers::parse(&v6(17, &WEB)).unwrap();
        assert_eq!(
            (plain.source, plain.destination),
            ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap())
        );
        assert_eq!((plain.protocol, plain.transport), (Protocol::Udp, PORTS));
        let seen = |packet: &[u8]| Headers::parse(packet).map(|h| (h.protocol, h.transport)).unwrap();
        // Hop by hop, destination options of 16 bytes, authentication of 12, then TCP.
        let hop = [60, 0, 0, 0, 0, 0, 0, 0];
        let options = [&[51u8, 1][..], &[0; 14]].concat();
        let authentication = [&[6u8, 1][..], &[0; 10]].concat();
        let chain = [&hop[..], &options, &authentication, &WEB].concat();
        assert_eq!(seen(&v6(0, &chain)), (Protocol::Tcp, PORTS));
        // A first and a later fragment.
        assert_eq!(seen(&v6(44, &[&[6, 0, 0, 1, 0, 0, 0, 9][..], &WEB].concat())), (Protocol::Tcp, PORTS));
        let later = [&[6, 0, 0, 9, 0, 0, 0, 9][..], &WEB].concat();
        assert_eq!(seen(&v6(44, &later)), (Protocol::Tcp, TransportHeader::LaterFragment));
        assert_eq!(
            seen(&v6(58, &[128, 0])),
            (Protocol::Other(58), TransportHeader::Icmp { kind: 128, code: 0 })
        );
        // An extension header that ends beyond the packet.
        assert_eq!(seen(&v6(0, &[6, 255, 0, 0])), (Protocol::Tcp, TransportHeader::Truncated));
        assert_eq!(Headers::parse(&v6(6, &WEB)[..39]), None);
    }
}

//! Packets from their IP header on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A packet whose payload follows its header at once.
pub(super) struct Packet<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// The number of the payload's protocol.
    pub(super) protocol: u8,
    /// Without padding.
    pub(super) payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Parses a packet. `None` if it is cut or a fragment. IPv6 extension headers are the payload.
    pub(super) fn parse(packet: &'a [u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => {
                let head: &[u8; 20] = packet.first_chunk()?;
                let address =
                    |at: usize| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]).into();
                // Offset and "more fragments".
                let is_fragment = u16::from_be_bytes([head[6], head[7]]) & 0x3fff != 0;
                let length = usize::from(head[0] & 0xf) * 4;
                let total = usize::from(u16::from_be_bytes([head[2], head[3]]));
                let is_whole = !is_fragment && length >= head.len();
                let payload = packet.get(length..total).filter(|_| is_whole)?;
                Some(Self { source: address(12), destination: address(16), protocol: head[9], payload })
            }
            6 => {
                let head: &[u8; 40] = packet.first_chunk()?;
                let address = |bytes: &[u8]| Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into());
                let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
                let payload = packet.get(40..40 + length)?;
                let (source, destination) = (address(&head[8..])?, address(&head[24..])?);
                Some(Self { source, destination, protocol: head[6], payload })
            }
            _ => None,
        }
    }
}

/// The sum of RFC 1071 over 16-bit words, complemented. A last single byte counts as if a zero followed.
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u64 = words.map(|w| u64::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)]))).sum();
    let folded = (0..3).fold(sum, |sum, _| (sum & 0xffff) + (sum >> 16));
    !(folded as u16)
}

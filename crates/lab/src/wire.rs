//! The packets that the lab encodes and decodes: SCTP INIT and INIT ACK, ICMP echo, and the reply text of a server.

use std::net::IpAddr;

use crate::layout::Place;
use palisade_policy::ObjectKey;

/// The reply of a server to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The place of the server.
    pub(crate) by: Place,
    /// The client's address as the server saw it.
    pub(crate) client: IpAddr,
}

impl Answer {
    /// Encodes the reply as one line.
    pub(crate) fn to_line(&self) -> String {
        let by = match &self.by {
            Place::Pod(key) => format!("pod {} {}", key.namespace, key.name),
            Place::Node(name) => format!("node - {name}"),
            Place::Outside => "outside - -".to_owned(),
        };
        format!("palisade-lab {by} {}\n", self.client)
    }

    /// Decodes a reply.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.split(' ');
        if words.next()? != "palisade-lab" {
            return None;
        }
        let (kind, namespace, name) = (words.next()?, words.next()?, words.next()?);
        let by = match kind {
            "pod" => Place::Pod(ObjectKey::new(namespace, name)),
            "node" => Place::Node(name.into()),
            "outside" => Place::Outside,
            _ => return None,
        };
        Some(Self { by, client: words.next()?.parse().ok()? })
    }
}

/// Returns an ICMP or ICMPv6 echo request for a ping socket, which fills in identifier and checksum.
pub(crate) fn echo_request(v6: bool) -> [u8; 16] {
    let mut packet = *b"\0\0\0\0\0\0\0\x01palisade";
    // RFC 792, RFC 4443.
    packet[0] = if v6 { 128 } else { 8 };
    packet
}

/// Returns whether `packet` is the reply to an [`echo_request`].
pub(crate) fn is_echo_reply(packet: &[u8], v6: bool) -> bool {
    packet.len() == 16 && packet[0] == if v6 { 129 } else { 0 } && packet.ends_with(b"palisade")
}

/// SCTP chunk types and the state cookie parameter (RFC 9260, sections 3.2 and 3.3).
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const STATE_COOKIE: u16 = 7;
const SCTP_HEADER: usize = 12;
const INIT_CHUNK: usize = 20;

/// Returns an SCTP INIT. `tag` must not be 0.
pub(crate) fn sctp_init(source_port: u16, destination_port: u16, tag: u32) -> Vec<u8> {
    sctp(source_port, destination_port, 0, INIT, tag, &[])
}

/// Returns the source port, destination port and tag of an INIT.
pub(crate) fn parse_sctp_init(packet: &[u8]) -> Option<(u16, u16, u32)> {
    (packet.len() >= SCTP_HEADER + INIT_CHUNK && packet[SCTP_HEADER] == INIT)
        .then(|| (be16(&packet[0..2]), be16(&packet[2..4]), be32(&packet[16..20])))
}

/// Returns the INIT ACK for an INIT. The text is in the state cookie, which only its sender has to understand (RFC 9260,
/// section 5.1.3).
pub(crate) fn sctp_init_ack(source_port: u16, destination_port: u16, tag: u32, text: &[u8]) -> Vec<u8> {
    sctp(source_port, destination_port, tag, INIT_ACK, tag, text)
}

/// Returns the destination port and text of an INIT ACK.
pub(crate) fn parse_sctp_init_ack(packet: &[u8]) -> Option<(u16, &[u8])> {
    let cookie = packet.get(SCTP_HEADER + INIT_CHUNK..)?;
    if packet[SCTP_HEADER] != INIT_ACK || cookie.len() < 4 || be16(&cookie[0..2]) != STATE_COOKIE {
        return None;
    }
    Some((be16(&packet[2..4]), cookie.get(4..usize::from(be16(&cookie[2..4])))?))
}

fn sctp(source_port: u16, destination_port: u16, to_tag: u32, chunk: u8, tag: u32, cookie: &[u8]) -> Vec<u8> {
    let parameter = if cookie.is_empty() { 0 } else { 4 + cookie.len() };
    let mut p = Vec::with_capacity(SCTP_HEADER + INIT_CHUNK + parameter + 3);
    p.extend(source_port.to_be_bytes());
    p.extend(destination_port.to_be_bytes());
    p.extend(to_tag.to_be_bytes());
    p.extend([0; 4]); // the checksum, below
    p.extend([chunk, 0]);
    // The texts are short: the length fits.
    p.extend(((INIT_CHUNK + parameter) as u16).to_be_bytes());
    p.extend(tag.to_be_bytes());
    p.extend(65_536u32.to_be_bytes()); // the receiver window
    p.extend([0, 1, 0, 1]); // one stream each way
    p.extend(tag.to_be_bytes()); // the first transmission sequence number: any
    if parameter > 0 {
        p.extend(STATE_COOKIE.to_be_bytes());
        p.extend((parameter as u16).to_be_bytes());
        p.extend(cookie);
        p.resize(p.len().next_multiple_of(4), 0);
    }
    let checksum = crc32c(&p);
    p[8..12].copy_from_slice(&checksum.to_le_bytes());
    p
}

/// Returns the payload of an IPv4 packet. Raw IPv4 sockets deliver the header too.
pub(crate) fn ipv4_payload(packet: &[u8]) -> Option<&[u8]> {
    packet.get(usize::from(packet.first()? & 0x0f) * 4..)
}

/// Computes CRC-32C (RFC 9260, appendix A), bit by bit: packets are few and short.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { (c >> 1) ^ 0x82f6_3b78 } else { c >> 1 })
    })
}

fn be16(b: &[u8]) -> u16 {
    u16::from_be_bytes([b[0], b[1]])
}

fn be32(b: &[u8]) -> u32 {
    u32::from_be_bytes([b[0], b[1], b[2], b[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_round_trip() {
        for by in [Place::Pod(ObjectKey::new("shop", "web")), Place::Node("w1".into()), Place::Outside] {
            let answer = Answer { by, client: "fd00::1".parse().unwrap() };
            assert_eq!(Answer::parse(answer.to_line().as_bytes()), Some(answer));
        }
        assert_eq!(Answer::parse(b"HTTP/1.1 200 OK\n"), None);
        assert_eq!(Answer::parse(b"palisade-lab pod x y 10.0.0.1"), None, "cut short");
    }

    #[test]
    fn sctp_packets_round_trip() {
        let init = sctp_init(1000, 80, 7);
        assert_eq!(parse_sctp_init(&init), Some((1000, 80, 7)));
        assert_eq!(parse_sctp_init_ack(&init), None);
        let ack = sctp_init_ack(80, 1000, 7, b"hello");
        assert_eq!(parse_sctp_init_ack(&ack), Some((1000, &b"hello"[..])));
        assert_eq!(parse_sctp_init(&ack[..20]), None);
    }

    #[test]
    fn the_checksum_equals_the_published_check_value() {
        // The check value of CRC-32C in the catalog of parametrized CRC algorithms.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}

//! A connection-tracking entry as a policy sees it.

use std::{fmt, net::IpAddr};

use palisade_policy::Protocol;

use super::{FiveTuple, label::label_bytes};
use crate::reader::Attributes;

/// `CTA_*` of `linux/netfilter/nfnetlink_conntrack.h`.
pub(super) const TUPLE_ORIGINAL: u16 = 1;
pub(super) const TUPLE_REPLY: u16 = 2;
pub(super) const STATUS: u16 = 3;
const PROTOCOL_INFO: u16 = 4;
pub(super) const TIMEOUT: u16 = 7;
pub(super) const ID: u16 = 12;
pub(super) const ZONE: u16 = 18;
pub(super) const LABELS: u16 = 22;
pub(super) const LABELS_MASK: u16 = 23;

/// `IPS_SRC_NAT | IPS_DST_NAT`; `IPS_OFFLOAD | IPS_HW_OFFLOAD`.
const TRANSLATED: u32 = 0x10 | 0x20;
const OFFLOADED: u32 = 1 << 14 | 1 << 15;

/// A tracked connection.
///
/// Its ends are those that policies judge (SEMANTICS G-1), after destination NAT and before source NAT: whoever sent
/// the first packet, and whoever answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Who opened it: the source of the original direction.
    pub source: IpAddr,
    /// Who answers: the source of the reply direction. Differs from what the opener addressed where a service was
    /// translated.
    pub destination: IpAddr,
    /// The IP protocol.
    pub protocol: Protocol,
    /// The port at `destination`; 0 for protocols without ports.
    pub port: u16,
    /// The port at `source`; 0 for protocols without ports.
    pub source_port: u16,
    /// Whether the opener addressed something else than what answers: a service.
    pub translated: bool,
    /// `IPS_*` bits.
    pub status: u32,
    /// Its labels, as the kernel keeps them; all zero where it has none, or no room for any.
    pub labels: [u8; 16],
    /// Whether tracking began in the middle of a TCP connection, so that the opener may be either end.
    pub midstream: bool,
    /// What names it to the kernel: the original tuple, the id and the zone, as dumped.
    pub(super) tuple: Vec<u8>,
    pub(super) reply: Vec<u8>,
    pub(super) timeout: Option<Vec<u8>>,
    pub(super) id: Option<Vec<u8>>,
    pub(super) zone: Option<Vec<u8>>,
}

impl Connection {
    /// Whether it carries our label.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.labels.iter().zip(label_bytes()).any(|(have, ours)| have & ours != 0)
    }

    /// Whether its packets may go past all hooks, through a flow table.
    #[must_use]
    pub fn is_offloaded(&self) -> bool {
        self.status & OFFLOADED != 0
    }

    /// Whether either address is translated.
    #[must_use]
    pub fn has_nat(&self) -> bool {
        self.status & TRANSLATED != 0
    }

    /// Reads the attributes of an entry; none where one is missing that every entry of ours has.
    pub(super) fn parse(entry: Attributes<'_>) -> Option<Self> {
        let tuple = entry.get(TUPLE_ORIGINAL)?;
        let original = Tuple::parse(Attributes(tuple))?;
        let reply_tuple = entry.get(TUPLE_REPLY)?;
        let reply = Tuple::parse(Attributes(reply_tuple))?;
        let mut labels = [0; 16];
        if let Some(bytes) = entry.get(LABELS) {
            let length = bytes.len().min(labels.len());
            labels[..length].copy_from_slice(&bytes[..length]);
        }
        Some(Self {
            source: original.source,
            destination: reply.source,
            protocol: original.protocol,
            port: reply.source_port,
            source_port: original.source_port,
            translated: (original.destination, original.destination_port)
                != (reply.source, reply.source_port),
            status: entry.number(STATUS).unwrap_or_default(),
            labels,
            midstream: began_midstream(entry),
            tuple: tuple.to_vec(),
            reply: reply_tuple.to_vec(),
            timeout: entry.get(TIMEOUT).map(<[u8]>::to_vec),
            id: entry.get(ID).map(<[u8]>::to_vec),
            zone: entry.get(ZONE).map(<[u8]>::to_vec),
        })
    }
}

/// Where the kernel didn't see the beginning of a TCP connection, it checks the windows of neither end
/// (`IP_CT_TCP_FLAG_BE_LIBERAL`).
fn began_midstream(entry: Attributes<'_>) -> bool {
    /// `CTA_PROTOINFO_TCP`, and in it `_FLAGS_ORIGINAL` and `_FLAGS_REPLY`: flags, then a mask.
    const TCP: u16 = 1;
    const FLAGS: [u16; 2] = [4, 5];
    const LIBERAL: u8 = 8;
    let Some(tcp) = entry.nested(PROTOCOL_INFO).and_then(|info| info.nested(TCP)) else { return false };
    FLAGS.iter().all(|kind| tcp.get(*kind).and_then(<[u8]>::first).is_some_and(|flags| flags & LIBERAL != 0))
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        FiveTuple::from(self).fmt(f)
    }
}

/// One direction of an entry.
struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    protocol: Protocol,
    source_port: u16,
    destination_port: u16,
}

impl Tuple {
    fn parse(tuple: Attributes<'_>) -> Option<Self> {
        let ip = tuple.nested(1)?;
        let (source, destination) = match (ip.get(1), ip.get(2)) {
            (Some(source), Some(destination)) => (address(source)?, address(destination)?),
            _ => (address(ip.get(3)?)?, address(ip.get(4)?)?),
        };
        let transport = tuple.nested(2)?;
        let protocol = Protocol::from_number(*transport.get(1)?.first()?);
        // Others carry ICMP ids, GRE keys and the like there, which are no ports.
        let port = |kind| {
            let bytes = transport.get(kind).filter(|_| protocol.has_ports());
            bytes.and_then(|b| Some(u16::from_be_bytes(b.get(..2)?.try_into().ok()?))).unwrap_or_default()
        };
        Some(Self { source, destination, protocol, source_port: port(2), destination_port: port(3) })
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    crate::reader::address(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::attributes::Attributes as Writer;

    fn tuple(out: &mut Writer, kind: u16, ends: [[u8; 4]; 2], ports: [u16; 2]) {
        out.nest(kind, |t| {
            t.nest(1, |ip| {
                ip.put(1, &ends[0]).put(2, &ends[1]);
            });
            t.nest(2, |p| {
                p.put(1, &[6]).put(2, &ports[0].to_be_bytes()).put(3, &ports[1].to_be_bytes());
            });
        });
    }

    #[test]
    fn the_ends_are_those_behind_both_translations() {
        let (client, service, pod, gateway) = ([10, 0, 0, 1], [10, 96, 0, 1], [10, 0, 1, 5], [10, 0, 0, 254]);
        let mut out = Writer::default();
        tuple(&mut out, TUPLE_ORIGINAL, [client, service], [40_000, 80]);
        tuple(&mut out, TUPLE_REPLY, [pod, gateway], [8080, 50_000]);
        let bytes = out.into_bytes();
        let connection = Connection::parse(Attributes(&bytes)).unwrap();
        assert_eq!((connection.source, connection.destination), (client.into(), pod.into()));
        assert_eq!((connection.source_port, connection.port), (40_000, 8080));
        assert!(connection.translated && !connection.is_revoked());
        assert_eq!(connection.to_string(), "TCP 10.0.0.1 port 40000 to 10.0.1.5 port 8080");
        for cut in 0..bytes.len() {
            // Must not panic.
            drop(Connection::parse(Attributes(&bytes[..cut])));
        }
    }
}

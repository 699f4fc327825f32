//! A connection-tracking entry as a policy sees it.

use std::{fmt, net::IpAddr};

use palisade_policy::Protocol;

use super::{FiveTuple, label::label_bytes};
use crate::{
    octets::address,
    reader::Attributes,
    uapi::{
        nf_conntrack::{IP_CT_TCP_FLAG_BE_LIBERAL, IPS_DST_NAT, IPS_HW_OFFLOAD, IPS_OFFLOAD, IPS_SRC_NAT},
        nfnetlink_conntrack::{
            CTA_ID, CTA_IP_V4_DST, CTA_IP_V4_SRC, CTA_IP_V6_DST, CTA_IP_V6_SRC, CTA_LABELS,
            CTA_PROTO_DST_PORT, CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTOINFO, CTA_PROTOINFO_TCP,
            CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, CTA_PROTOINFO_TCP_FLAGS_REPLY, CTA_STATUS, CTA_TIMEOUT,
            CTA_TUPLE_IP, CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, CTA_TUPLE_REPLY, CTA_ZONE,
        },
    },
};

/// An entry of the kernel's connection-tracking table.
///
/// Its ends are those that policies evaluate (SEMANTICS G-1), after destination NAT and before source NAT: the sender of
/// the first packet, and the sender of the replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConntrackEntry {
    /// The opener: the source of the original direction.
    pub source: IpAddr,
    /// The answerer: the source of the reply direction. Differs from the destination of the first packet if that was
    /// translated.
    pub destination: IpAddr,
    /// The IP protocol.
    pub protocol: Protocol,
    /// The port at `destination`. 0 for protocols without ports.
    pub port: u16,
    /// The port at `source`. 0 for protocols without ports.
    pub source_port: u16,
    /// Whether the first packet had another destination than the answerer: a service.
    pub translated: bool,
    /// The destination of the first packet, before translation: that of a service, or `destination` and `port`.
    pub opened_to: (IpAddr, u16),
    /// `IPS_*` bits.
    pub status: u32,
    /// Its labels, as the kernel stores them. All zero if it has none, or no room for any.
    pub labels: [u8; 16],
    /// Whether tracking began in the middle of a TCP connection, so that either end may be the opener.
    pub midstream: bool,
    /// The original tuple, the id and the zone identify the entry to the kernel. All of these are as dumped.
    pub(super) tuple: Vec<u8>,
    pub(super) reply: Vec<u8>,
    pub(super) timeout: Option<Vec<u8>>,
    pub(super) id: Option<Vec<u8>>,
    pub(super) zone: Option<Vec<u8>>,
}

impl ConntrackEntry {
    /// Returns whether it carries the revocation label.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.labels.iter().zip(label_bytes()).any(|(have, revoked)| have & revoked != 0)
    }

    /// Returns whether its packets may bypass all hooks, through a flow table.
    #[must_use]
    pub fn is_offloaded(&self) -> bool {
        self.status & (IPS_OFFLOAD | IPS_HW_OFFLOAD) != 0
    }

    /// Returns whether either address is translated.
    #[must_use]
    pub fn has_nat(&self) -> bool {
        self.status & (IPS_SRC_NAT | IPS_DST_NAT) != 0
    }

    /// Parses the attributes of an entry. `None` if one that every entry has is missing.
    pub(super) fn parse(entry: Attributes<'_>) -> Option<Self> {
        let tuple = entry.get(CTA_TUPLE_ORIG)?;
        let original = Tuple::parse(Attributes(tuple))?;
        let reply_tuple = entry.get(CTA_TUPLE_REPLY)?;
        let reply = Tuple::parse(Attributes(reply_tuple))?;
        let mut labels = [0; 16];
        if let Some(bytes) = entry.get(CTA_LABELS) {
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
            opened_to: (original.destination, original.destination_port),
            status: entry.number(CTA_STATUS).unwrap_or_default(),
            labels,
            midstream: began_midstream(entry),
            tuple: tuple.to_vec(),
            reply: reply_tuple.to_vec(),
            timeout: entry.get(CTA_TIMEOUT).map(<[u8]>::to_vec),
            id: entry.get(CTA_ID).map(<[u8]>::to_vec),
            zone: entry.get(CTA_ZONE).map(<[u8]>::to_vec),
        })
    }
}

/// Returns whether the kernel checks the TCP windows of neither end, because it missed the start of the connection.
fn began_midstream(entry: Attributes<'_>) -> bool {
    const FLAGS: [u16; 2] = [CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, CTA_PROTOINFO_TCP_FLAGS_REPLY];
    let Some(tcp) = entry.nested(CTA_PROTOINFO).and_then(|info| info.nested(CTA_PROTOINFO_TCP)) else {
        return false;
    };
    // `struct nf_ct_tcp_flags`: flags, then a mask.
    let flags = |kind: &u16| tcp.get(*kind).and_then(<[u8]>::first);
    FLAGS.iter().all(|kind| flags(kind).is_some_and(|flags| flags & IP_CT_TCP_FLAG_BE_LIBERAL != 0))
}

impl From<&ConntrackEntry> for FiveTuple {
    fn from(entry: &ConntrackEntry) -> Self {
        Self {
            source: entry.source,
            destination: entry.destination,
            protocol: entry.protocol,
            source_port: entry.source_port,
            port: entry.port,
        }
    }
}

impl fmt::Display for ConntrackEntry {
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
        let ip = tuple.nested(CTA_TUPLE_IP)?;
        let (source, destination) = match (ip.get(CTA_IP_V4_SRC), ip.get(CTA_IP_V4_DST)) {
            (Some(source), Some(destination)) => (address(source)?, address(destination)?),
            _ => (address(ip.get(CTA_IP_V6_SRC)?)?, address(ip.get(CTA_IP_V6_DST)?)?),
        };
        let transport = tuple.nested(CTA_TUPLE_PROTO)?;
        let protocol = Protocol::from_number(*transport.get(CTA_PROTO_NUM)?.first()?);
        // Other protocols have ICMP ids, GRE keys and the like there.
        let port = |kind| {
            let bytes = transport.get(kind).filter(|_| protocol.has_ports());
            bytes.and_then(|b| Some(u16::from_be_bytes(b.get(..2)?.try_into().ok()?))).unwrap_or_default()
        };
        let (source_port, destination_port) = (port(CTA_PROTO_SRC_PORT), port(CTA_PROTO_DST_PORT));
        Some(Self { source, destination, protocol, source_port, destination_port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::AttributeWriter;

    fn tuple(out: &mut AttributeWriter, kind: u16, ends: [[u8; 4]; 2], ports: [u16; 2]) {
        out.nest(kind, |t| {
            t.nest(CTA_TUPLE_IP, |ip| {
                ip.put(CTA_IP_V4_SRC, &ends[0]).put(CTA_IP_V4_DST, &ends[1]);
            });
            t.nest(CTA_TUPLE_PROTO, |p| {
                p.put(CTA_PROTO_NUM, &[6]);
                p.put(CTA_PROTO_SRC_PORT, &ports[0].to_be_bytes());
                p.put(CTA_PROTO_DST_PORT, &ports[1].to_be_bytes());
            });
        });
    }

    #[test]
    fn the_ends_are_those_behind_both_translations() {
        let (client, service, pod, gateway) = ([10, 0, 0, 1], [10, 96, 0, 1], [10, 0, 1, 5], [10, 0, 0, 254]);
        let mut out = AttributeWriter::default();
        tuple(&mut out, CTA_TUPLE_ORIG, [client, service], [40_000, 80]);
        tuple(&mut out, CTA_TUPLE_REPLY, [pod, gateway], [8080, 50_000]);
        let bytes = out.into_bytes();
        let entry = ConntrackEntry::parse(Attributes(&bytes)).unwrap();
        assert_eq!((entry.source, entry.destination), (client.into(), pod.into()));
        assert_eq!((entry.source_port, entry.port), (40_000, 8080));
        assert!(entry.translated && !entry.is_revoked());
        assert_eq!(entry.opened_to, (service.into(), 80));
        assert_eq!(entry.to_string(), "TCP 10.0.0.1 port 40000 to 10.0.1.5 port 8080");
        for cut in 0..bytes.len() {
            // Must not panic.
            drop(ConntrackEntry::parse(Attributes(&bytes[..cut])));
        }
    }
}

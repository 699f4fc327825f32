//! What a connection is known by, apart from its entry.

use std::{fmt, net::IpAddr};

use palisade_policy::{Family, Protocol};

use super::Connection;
use crate::base::EPHEMERAL;

/// `IPPROTO_ICMP`, `IPPROTO_ICMPV6`.
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

/// One orientation of a connection: the ends that policies judge, after destination NAT and before source NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FiveTuple {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The IP protocol.
    pub protocol: Protocol,
    /// Source port; 0 for protocols without ports.
    pub source_port: u16,
    /// Destination port; 0 for protocols without ports.
    pub port: u16,
}

impl FiveTuple {
    /// The other orientation.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            protocol: self.protocol,
            source_port: self.port,
            port: self.source_port,
        }
    }

    /// Whether the ports say that the source opened the connection: it has an ephemeral one, and the destination hasn't.
    #[must_use]
    pub fn has_ports_of_opener(&self) -> bool {
        self.source_port >= EPHEMERAL && self.port < EPHEMERAL
    }

    /// Whether a packet of either end may begin this connection anew once its entry is gone. Not so with ICMP: an answer
    /// begins nothing, and what is asked is judged.
    #[must_use]
    pub fn outlives_its_entry(&self) -> bool {
        !matches!(self.protocol, Protocol::Other(ICMP | ICMPV6))
    }

    /// The key in a set of the kernel: each part fills whole words of four bytes.
    pub(crate) fn key(&self) -> Vec<u8> {
        let mut out = octets(self.source);
        out.extend(octets(self.destination));
        out.extend([self.protocol.number(), 0, 0, 0]);
        if self.protocol.has_ports() {
            for port in [self.source_port, self.port] {
                out.extend(port.to_be_bytes());
                out.extend([0; 2]);
            }
        }
        out
    }

    /// The tuple of a key; none where it is no such key.
    pub(crate) fn from_key(family: Family, key: &[u8]) -> Option<Self> {
        let length = if family == Family::V4 { 4 } else { 16 };
        let (source, rest) = key.split_at_checked(length)?;
        let (destination, rest) = rest.split_at_checked(length)?;
        let (protocol, ports) = rest.split_at_checked(4)?;
        let port = |at: usize| {
            let bytes = ports.get(at..at + 2)?;
            Some(u16::from_be_bytes(bytes.try_into().ok()?))
        };
        Some(Self {
            source: crate::reader::address(source)?,
            destination: crate::reader::address(destination)?,
            protocol: Protocol::from_number(*protocol.first()?),
            source_port: port(0).unwrap_or_default(),
            port: port(4).unwrap_or_default(),
        })
    }
}

impl From<&Connection> for FiveTuple {
    fn from(connection: &Connection) -> Self {
        Self {
            source: connection.source,
            destination: connection.destination,
            protocol: connection.protocol,
            source_port: connection.source_port,
            port: connection.port,
        }
    }
}

impl fmt::Display for FiveTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.protocol.has_ports() {
            write!(f, "{} {} port {} to ", self.protocol, self.source, self.source_port)?;
            write!(f, "{} port {}", self.destination, self.port)
        } else {
            write!(f, "{} {} to {}", self.protocol, self.source, self.destination)
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_what_the_tuple_does() {
        for (source, destination) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            for (protocol, source_port, port) in [(Protocol::Tcp, 40_000, 80), (Protocol::Other(1), 0, 0)] {
                let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
                let tuple = FiveTuple { source, destination, protocol, source_port, port };
                let key = tuple.key();
                assert_eq!(FiveTuple::from_key(Family::of(source), &key), Some(tuple));
                assert_eq!(tuple.reversed().reversed(), tuple);
                for cut in 0..key.len() {
                    // Must not panic.
                    _ = FiveTuple::from_key(Family::of(source), &key[..cut]);
                }
            }
        }
    }
}

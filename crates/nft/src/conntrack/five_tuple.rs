//! The five-tuple that identifies a connection, with or without an entry.

use std::{fmt, net::IpAddr};

use palisade_policy::{Family, Protocol};

use crate::octets::{address, octets};

/// The first ephemeral port of Linux by default (`net.ipv4.ip_local_port_range`). On other systems it is 49152.
pub(crate) const FIRST_EPHEMERAL_PORT: u16 = 32_768;

/// `IPPROTO_ICMP`, `IPPROTO_ICMPV6`.
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

/// One orientation of a connection: the ends that policies evaluate, after destination NAT and before source NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FiveTuple {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The IP protocol.
    pub protocol: Protocol,
    /// Source port. 0 for protocols without ports.
    pub source_port: u16,
    /// Destination port. 0 for protocols without ports.
    pub port: u16,
}

impl FiveTuple {
    /// Returns the other orientation.
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

    /// Returns whether the ports show that the source opened the connection: it has an ephemeral port, and the destination
    /// doesn't.
    #[must_use]
    pub fn has_ports_of_opener(&self) -> bool {
        self.source_port >= FIRST_EPHEMERAL_PORT && self.port < FIRST_EPHEMERAL_PORT
    }

    /// Returns whether a packet of either end can open this connection again after its entry is gone.
    ///
    /// ICMP can't: a reply creates no entry, and policies apply to a request.
    #[must_use]
    pub fn outlives_its_entry(&self) -> bool {
        !matches!(self.protocol, Protocol::Other(ICMP | ICMPV6))
    }

    /// Returns the key in a kernel set. Each part fills whole words of four bytes.
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

    /// Parses a key. `None` if it has another length.
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
            source: address(source)?,
            destination: address(destination)?,
            protocol: Protocol::from_number(*protocol.first()?),
            source_port: port(0).unwrap_or_default(),
            port: port(4).unwrap_or_default(),
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_parsed_to_the_same_tuple() {
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

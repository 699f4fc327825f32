//! A denied packet, as the kernel logs it.

use std::net::{IpAddr, Ipv4Addr};

use palisade_nft::drops::DroppedPacket;
use palisade_policy::{Direction, Protocol};

/// A packet that a policy denied, or would deny if none were in audit mode, as the kernel logs it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeniedPacket {
    /// The direction in which it was denied.
    pub direction: Direction,
    /// Whether it passed, because only policies in audit mode would deny it.
    pub audited: bool,
    /// The sender.
    pub source: IpAddr,
    /// The receiver, after destination NAT.
    pub destination: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The destination port; 0 for protocols without ports.
    pub port: u16,
}

impl From<&DroppedPacket> for DeniedPacket {
    fn from(packet: &DroppedPacket) -> Self {
        Self {
            direction: packet.direction,
            audited: packet.audited,
            source: packet.headers.source,
            destination: packet.headers.destination,
            protocol: packet.headers.protocol,
            port: packet.port().unwrap_or(0),
        }
    }
}

impl DeniedPacket {
    /// Whether it is multicast, broadcast or link-local traffic, which is dropped regardless of policies. The broadcast address
    /// of a subnet can't be distinguished from other addresses.
    pub(super) fn is_link_traffic(&self) -> bool {
        let link_local = |a: IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
        self.destination.is_multicast()
            || self.destination == Ipv4Addr::BROADCAST
            || link_local(self.destination)
            || link_local(self.source)
    }
}

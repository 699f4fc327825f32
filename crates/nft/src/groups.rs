//! Destinations that are no single host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// 255.255.255.255, all hosts of the link.
pub(crate) const BROADCAST_V4: IpNet = IpNet::new_assert(IpAddr::V4(Ipv4Addr::BROADCAST), 32);
/// 224.0.0.0/4 (RFC 1112).
pub(crate) const MULTICAST_V4: IpNet = IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4);
/// ff00::/8 (RFC 4291, section 2.7).
pub(crate) const MULTICAST_V6: IpNet =
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8);

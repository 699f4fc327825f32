//! Which addresses may be learned.
//!
//! The owner of a zone decides what its names resolve to. If the zone of an allowed name could name addresses of the
//! cluster or of its network, its owner could open them to the pods that may use the name (DNS rebinding).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Decides which addresses may be learned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learnable {
    allowed: Vec<IpNet>,
    cluster: Vec<IpNet>,
}

/// Why an address is not learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum NotLearnable {
    /// No host outside has it: unspecified, multicast, broadcast, reserved.
    #[error("no address of a host")]
    Special,
    /// The loopback of the pod.
    #[error("a loopback address")]
    Loopback,
    /// The link of the pod or node, where metadata services are.
    #[error("a link-local address")]
    LinkLocal,
    /// A private network.
    #[error("a private address")]
    Private,
    /// A pod, node or Service of the cluster.
    #[error("an address of the cluster")]
    Cluster,
}

impl Learnable {
    /// Makes the decision for a cluster: `cluster` are the ranges of its pods, nodes and Services, `allowed` the ranges that
    /// an administrator allows to be learned, whatever they are.
    #[must_use]
    pub fn new(allowed: Vec<IpNet>, cluster: Vec<IpNet>) -> Self {
        Self { allowed, cluster }
    }

    /// Checks an address.
    ///
    /// # Errors
    /// [`NotLearnable`] with the first reason not to learn it.
    pub fn check(&self, address: IpAddr) -> Result<(), NotLearnable> {
        let is_in = |ranges: &[IpNet]| ranges.iter().any(|range| range.contains(&address));
        if is_in(&self.allowed) {
            return Ok(());
        }
        if is_in(&self.cluster) {
            return Err(NotLearnable::Cluster);
        }
        match address {
            IpAddr::V4(v4) => check_v4(v4),
            // What an IPv6 address embeds is where its packets go.
            IpAddr::V6(v6) => match embedded(v6) {
                Some(v4) if is_in_any(&self.cluster, v4.into()) => Err(NotLearnable::Cluster),
                Some(v4) => check_v4(v4),
                None => check_v6(v6),
            },
        }
    }
}

fn is_in_any(ranges: &[IpNet], address: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(&address))
}

/// The ranges that RFC 6890 and its successors give a special purpose.
fn check_v4(address: Ipv4Addr) -> Result<(), NotLearnable> {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (127, ..) => Err(NotLearnable::Loopback),
        (169, 254, _) => Err(NotLearnable::LinkLocal),
        // Shared address space (RFC 6598), the protocol assignments of RFC 6890, and benchmarks (RFC 2544).
        (10, ..)
        | (172, 16..=31, _)
        | (192, 168, _)
        | (100, 64..=127, _)
        | (192, 0, 0)
        | (198, 18..=19, _) => Err(NotLearnable::Private),
        (0 | 224.., ..) => Err(NotLearnable::Special),
        _ => Ok(()),
    }
}

fn check_v6(address: Ipv6Addr) -> Result<(), NotLearnable> {
    let first = address.segments()[0];
    match first {
        _ if address.is_loopback() => Err(NotLearnable::Loopback),
        _ if address.is_unspecified() || address.is_multicast() => Err(NotLearnable::Special),
        0xfe80..=0xfebf => Err(NotLearnable::LinkLocal),
        // Unique local addresses, and site-local ones (RFC 3879), which some networks still use.
        0xfc00..=0xfdff | 0xfec0..=0xfeff => Err(NotLearnable::Private),
        // Global unicast is 2000::/3.
        0x2000..=0x3fff => Ok(()),
        _ => Err(NotLearnable::Special),
    }
}

/// Returns the IPv4 address to which packets for an IPv6 address lead: mapped and compatible addresses, NAT64 (RFC 6052,
/// RFC 8215) and 6to4 (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let at = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => at(high, low),
        [0x64, 0xff9b, 1, _, _, _, high, low] => at(high, low),
        [0x2002, high, low, ..] => at(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(address: &str) -> Result<(), NotLearnable> {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let cluster = nets(&["203.0.113.0/24", "2001:db8:1::/48"]);
        Learnable::new(nets(&["10.9.0.0/16", "fd00:9::/32"]), cluster).check(address.parse().unwrap())
    }

    #[test]
    fn addresses_of_the_internet_are_learned() {
        for good in ["198.51.100.1", "8.8.8.8", "2001:db8::1", "2606:4700::1", "64:ff9b::8.8.8.8"] {
            assert_eq!(checked(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn addresses_within_are_not_unless_they_are_allowed() {
        use NotLearnable::{Cluster, LinkLocal, Loopback, Private, Special};
        for (address, why) in [
            ("127.0.0.1", Loopback),
            ("::1", Loopback),
            ("::ffff:127.0.0.1", Loopback),
            ("169.254.169.254", LinkLocal),
            ("fe80::1", LinkLocal),
            ("10.0.0.1", Private),
            ("172.31.255.255", Private),
            ("192.168.1.1", Private),
            ("100.64.0.1", Private),
            ("fd00::1", Private),
            ("fec0::1", Private),
            ("::ffff:10.0.0.1", Private),
            ("::10.0.0.1", Private),
            ("64:ff9b::10.0.0.1", Private),
            ("2002:a00:1::1", Private),
            ("0.0.0.0", Special),
            ("::", Special),
            ("224.0.0.1", Special),
            ("255.255.255.255", Special),
            ("ff02::1", Special),
            ("100::1", Special),
            ("203.0.113.9", Cluster),
            ("::ffff:203.0.113.9", Cluster),
            ("2001:db8:1::9", Cluster),
        ] {
            assert_eq!(checked(address), Err(why), "{address}");
        }
        assert_eq!((checked("10.9.0.1"), checked("fd00:9::1")), (Ok(()), Ok(())));
    }
}

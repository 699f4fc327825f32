//! Which addresses may be learned.
//!
//! The owner of a zone decides what its names resolve to. If the zone of an allowed name could name addresses of the
//! cluster or of its network, its owner could open them to the pods that may use the name (DNS rebinding).

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

/// Decides which addresses may be learned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learnable {
    allowed: Vec<IpNet>,
    ranges: BTreeSet<IpNet>,
    addresses: BTreeSet<IpAddr>,
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
    /// A service of the cloud for the node, at an address that is not private.
    #[error("an address of the cloud platform")]
    Platform,
    /// A pod, node or Service of the cluster.
    #[error("an address of the cluster")]
    Cluster,
}

impl Learnable {
    /// Makes the decision for a cluster: `ranges` and `addresses` are those of its pods, nodes and Services, `allowed` the ranges that
    /// an administrator allows to be learned, whatever they are.
    #[must_use]
    pub fn new(allowed: Vec<IpNet>, ranges: BTreeSet<IpNet>, addresses: BTreeSet<IpAddr>) -> Self {
        Self { allowed, ranges, addresses }
    }

    /// Adds or removes an address of the cluster. Returns whether it is another decision than before.
    pub fn set(&mut self, address: IpAddr, is_of_cluster: bool) -> bool {
        if is_of_cluster { self.addresses.insert(address) } else { self.addresses.remove(&address) }
    }

    /// Checks an address. `O(ranges + log addresses)`.
    ///
    /// # Errors
    /// [`NotLearnable`] with the first reason not to learn it.
    pub fn check(&self, address: IpAddr) -> Result<(), NotLearnable> {
        if self.allowed.iter().any(|range| range.contains(&address)) {
            return Ok(());
        }
        if self.is_of_cluster(address) {
            return Err(NotLearnable::Cluster);
        }
        match address {
            IpAddr::V4(v4) => check_v4(v4),
            IpAddr::V6(v6) if is_local_translation(v6) => self.check_translated(v6),
            // What an IPv6 address embeds is where its packets go.
            IpAddr::V6(v6) => match embedded(v6) {
                Some(v4) => self.check_embedded(v4),
                None => check_v6(v6),
            },
        }
    }

    fn is_of_cluster(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.ranges.iter().any(|range| range.contains(&address))
    }

    fn check_embedded(&self, v4: Ipv4Addr) -> Result<(), NotLearnable> {
        if self.is_of_cluster(v4.into()) { Err(NotLearnable::Cluster) } else { check_v4(v4) }
    }

    /// Checks an address of a translator within the network. The length of its prefix isn't known here, so the address must be learnable
    /// with each length. Where a length gives no address of a host, the translator can't have it.
    fn check_translated(&self, address: Ipv6Addr) -> Result<(), NotLearnable> {
        let mut found = Err(NotLearnable::Special);
        for v4 in translated(address) {
            match self.check_embedded(v4) {
                Err(NotLearnable::Special) => {}
                Ok(()) => found = Ok(()),
                other => return other,
            }
        }
        found
    }
}

/// The ranges that RFC 6890 and its successors give a special purpose.
fn check_v4(address: Ipv4Addr) -> Result<(), NotLearnable> {
    let [a, b, c, d] = address.octets();
    match (a, b, c) {
        // Azure's host: it answers for metadata, DNS and the node's agent.
        (168, 63, 129) if d == 16 => Err(NotLearnable::Platform),
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

/// Whether an address is one of NAT64 with a prefix of the network's own (RFC 8215).
fn is_local_translation(address: Ipv6Addr) -> bool {
    address.segments()[..3] == [0x64, 0xff9b, 1]
}

/// Returns the IPv4 addresses that an address of NAT64 embeds, by prefixes of 48, 56, 64 and 96 bits (RFC 6052, section 2.2). The octet 8 is never a
/// part of it.
fn translated(address: Ipv6Addr) -> [Ipv4Addr; 4] {
    let octets = address.octets();
    [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], [12, 13, 14, 15]]
        .map(|at| Ipv4Addr::from(at.map(|i| octets[i])))
}

/// Returns the IPv4 address to which packets for an IPv6 address lead: mapped and compatible addresses, NAT64 with the prefix for all networks
/// (RFC 6052) and 6to4 (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let at = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => at(high, low),
        [0x2002, high, low, ..] => at(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(address: &str) -> Result<(), NotLearnable> {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        let ranges = nets(&["203.0.113.0/24", "2001:db8:1::/48"]).into_iter().collect();
        let addresses = ["192.0.2.7", "2001:db8:2::7"].map(|text| text.parse().unwrap()).into();
        let learnable = Learnable::new(nets(&["10.9.0.0/16", "fd00:9::/32"]), ranges, addresses);
        learnable.check(address.parse().unwrap())
    }

    #[test]
    fn addresses_of_the_internet_are_learned() {
        for good in [
            "198.51.100.1",
            "8.8.8.8",
            "168.63.129.17",
            "192.0.2.8",
            "2001:db8::1",
            "2606:4700::1",
            "64:ff9b::8.8.8.8",
            // With prefixes of 96, 64, 56 and 48 bits.
            "64:ff9b:1::8.8.8.8",
            "64:ff9b:1:fffe::8.8.8.8",
            "64:ff9b:1:0:8:808:800::",
            "64:ff9b:1:8:8:808::",
            "64:ff9b:1:808:8:800::",
        ] {
            assert_eq!(checked(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn addresses_within_are_not_unless_they_are_allowed() {
        use NotLearnable::{Cluster, LinkLocal, Loopback, Platform, Private, Special};
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
            ("64:ff9b:1::10.0.0.1", Private),
            // 10.0.0.1 by prefixes of 64, 56 and 48 bits, and 8.8.8.8 by one of 96.
            ("64:ff9b:1:0:a:0:108:808", Private),
            ("64:ff9b:1:a:0:1:808:808", Private),
            ("64:ff9b:1:a00:0:100:808:808", Private),
            ("64:ff9b:1::", Special),
            ("168.63.129.16", Platform),
            ("::ffff:168.63.129.16", Platform),
            ("64:ff9b::168.63.129.16", Platform),
            ("192.0.2.7", Cluster),
            ("64:ff9b::192.0.2.7", Cluster),
            ("64:ff9b:1::192.0.2.7", Cluster),
            ("2001:db8:2::7", Cluster),
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

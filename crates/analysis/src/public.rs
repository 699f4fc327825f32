//! The address ranges of the public internet.

use ipnet::IpNet;
use palisade_policy::{Family, IpBlock, IpRange, address::without};

/// What is not the internet. IPv4: this host, private and shared networks, loopback, link-local, multicast and reserved
/// addresses (IANA's special-purpose address registry, RFC 6890). IPv6: everything but global unicast, 2000::/3 (RFC
/// 4291).
const NOT_INTERNET: [&str; 12] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "224.0.0.0/3",
    "::/3",
    "4000::/2",
    "8000::/1",
];

/// Ranges of the same registries in which no host of the internet is: documentation, benchmarks, 6to4 and its like.
/// Examples call documentation addresses the outside, so a question about the internet includes these ranges.
const NO_HOSTS: [&str; 9] = [
    "192.0.2.0/24",
    "192.88.99.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
];

/// Returns the ranges that are not the internet, documentation addresses not among them.
pub(crate) fn not_internet() -> impl Iterator<Item = IpRange> {
    NOT_INTERNET.iter().filter_map(|net| net.parse::<IpNet>().ok()).map(|net| IpRange::of_net(&net))
}

/// Returns the public internet of one family as a peer: every address except those that are not the internet.
pub(crate) fn internet_block(family: Family) -> IpBlock {
    let whole = IpRange::whole(family);
    let cidr = IpNet::new_assert(whole.first, 0);
    let nets = NOT_INTERNET.iter().filter_map(|net| net.parse::<IpNet>().ok());
    IpBlock { cidr, except: nets.filter(|net| Family::of_net(net) == family).collect() }
}

/// Returns the ranges of [`internet_block`].
pub(crate) fn internet(family: Family) -> Vec<IpRange> {
    without(IpRange::whole(family), not_internet())
}

/// Returns whether a range has addresses on the public internet.
pub(crate) fn has_public_address(range: &IpRange) -> bool {
    let special =
        NO_HOSTS.iter().filter_map(|net| net.parse::<IpNet>().ok()).map(|net| IpRange::of_net(&net));
    !without(*range, not_internet().chain(special)).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(first: &str, last: &str) -> bool {
        has_public_address(&IpRange { first: first.parse().unwrap(), last: last.parse().unwrap() })
    }

    #[test]
    fn private_ranges_are_not_the_internet() {
        let all = NOT_INTERNET.iter().chain(&NO_HOSTS);
        assert!(all.clone().all(|net| net.parse::<IpNet>().is_ok_and(|n| n.trunc() == n)));
        assert!(public("0.0.0.0", "255.255.255.255"));
        assert!(public("8.8.8.8", "8.8.8.8"));
        assert!(!public("10.0.0.0", "10.255.255.255"));
        assert!(public("10.0.0.0", "11.0.0.0"));
        assert!(!public("198.51.100.7", "198.51.100.200"));
        assert!(!public("224.0.0.0", "255.255.255.255"));
        assert!(public("9.255.255.255", "10.0.0.1"));
        assert!(public("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        assert!(!public("fd00::", "fd00::ffff"));
        assert!(!public("fe80::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        assert!(public("2a00::", "2a00::1"));
        for net in all {
            let range = IpRange::of_net(&net.parse().unwrap());
            assert!(!has_public_address(&range), "{range}");
        }
    }
}

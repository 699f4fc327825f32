//! The address ranges of the public internet.

use ipnet::IpNet;
use palisade_policy::{Family, IpRange, address::to_number};

/// Ranges that are not public: the IANA special-purpose registries for IPv4 and IPv6 (RFC 6890 and its updates), except
/// for ranges with hosts on the internet. Sorted and disjoint for each family.
const NOT_PUBLIC: [&str; 24] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/8",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/9",
];

/// Returns whether a range has addresses on the public internet.
pub(crate) fn has_public_address(range: &IpRange) -> bool {
    let family = Family::of(range.first);
    // The last addresses of IPv6 are multicast.
    let mut last = to_number(range.last);
    if family == Family::V6 {
        last = last.min((0xff00_u128 << 112) - 1);
    }
    let mut next = to_number(range.first);
    let nets = NOT_PUBLIC.iter().filter_map(|net| net.parse::<IpNet>().ok());
    for net in nets.filter(|net| Family::of_net(net) == family).map(|net| IpRange::of_net(&net)) {
        let (first, end) = (to_number(net.first), to_number(net.last));
        if next < first {
            break;
        }
        if next <= end {
            match end.checked_add(1) {
                Some(after) => next = after,
                None => return false,
            }
        }
    }
    next <= last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(first: &str, last: &str) -> bool {
        has_public_address(&IpRange { first: first.parse().unwrap(), last: last.parse().unwrap() })
    }

    #[test]
    fn private_ranges_are_not_the_internet() {
        assert!(NOT_PUBLIC.iter().all(|net| net.parse::<IpNet>().is_ok_and(|n| n.trunc() == n)));
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
    }
}

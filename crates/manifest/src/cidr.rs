//! CIDRs as the API server reads them.
//!
//! By default the API server uses Go's lenient legacy parser, which accepts leading zeros, host bits and IPv4-mapped
//! IPv6 forms with a warning (SEMANTICS A.3.8, G-26). With the feature gate `StrictIPCIDRValidation` they are errors.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The API server's message for a value that is no CIDR.
pub const NOT_A_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// A CIDR as written, read by the lenient parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The address as written. An IPv4-mapped address stays IPv6 here.
    address: IpAddr,
    /// The prefix length as written.
    prefix: u8,
    /// Whether an octet, a group or the prefix length has leading zeros.
    leading_zeros: bool,
}

impl Cidr {
    /// Reads what Go's `ParseCIDRSloppy` accepts.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let zeros = prefix.len() > 1 && prefix.starts_with('0');
        let prefix: u32 = prefix.parse().ok()?;
        let (address, more_zeros) = parse_address(address)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= bits).then_some(Self { address, prefix: prefix as u8, leading_zeros: zeros || more_zeros })
    }

    /// Returns the canonical range: host bits cleared, IPv4-mapped ranges with a prefix of 96 or more as IPv4 (G-26).
    #[must_use]
    pub fn canonical(&self) -> IpNet {
        match self.address {
            IpAddr::V4(a) => IpNet::V4(Ipv4Net::new_assert(a, self.prefix).trunc()),
            IpAddr::V6(a) => match a.to_ipv4_mapped() {
                Some(a) if self.prefix >= 96 => IpNet::V4(Ipv4Net::new_assert(a, self.prefix - 96).trunc()),
                _ => IpNet::V6(Ipv6Net::new_assert(a, self.prefix).trunc()),
            },
        }
    }

    /// Returns the errors of the strict parser (`StrictIPCIDRValidation`).
    #[must_use]
    pub fn strict_errors(&self) -> Vec<&'static str> {
        let mut wrong = Vec::new();
        if self.leading_zeros {
            wrong.push("must not have leading 0s in IP or prefix length");
        } else if self.is_mapped() {
            wrong.push("must not have an IPv4-mapped IPv6 address");
        }
        if self.has_host_bits() {
            wrong.push("must not have bits set beyond the prefix length");
        }
        wrong
    }

    /// Returns the API server's warnings about `text` when it is read leniently (`GetWarningsForCIDR`).
    #[must_use]
    pub fn warnings(&self, text: &str) -> Vec<String> {
        let mut out = Vec::new();
        let canonical = self.canonical();
        if self.has_host_bits() {
            let single = IpNet::from(match self.address {
                IpAddr::V6(a) => a.to_ipv4_mapped().map_or(IpAddr::V6(a), IpAddr::V4),
                a => a,
            });
            out.push(format!("CIDR value \"{text}\" is ambiguous in this context (should be \"{canonical}\" or \"{single}\"?)"));
        }
        if self.leading_zeros || self.is_mapped() {
            out.push(format!(
                "non-standard CIDR value \"{text}\" will be considered invalid in a future Kubernetes release: use \
                 \"{canonical}\""
            ));
        }
        if out.is_empty() && self.address.is_ipv6() && canonical.to_string() != text {
            out.push(format!(
                "IPv6 CIDR value \"{text}\" should be in RFC 5952 canonical format (\"{canonical}\")"
            ));
        }
        out
    }

    /// Returns whether the API server accepts this range as an exception to `outer`: it must be a strict subset
    /// (A.3.9). Prefix lengths are compared as written, so an IPv4-mapped range is no exception to an IPv4 range.
    #[must_use]
    pub fn is_strictly_inside(&self, outer: &Self) -> bool {
        outer.prefix < self.prefix && outer.canonical().contains(&self.canonical().network())
    }

    /// Returns whether CEL's `isCIDR` accepts this value: without leading zeros and IPv4-mapped forms, but with host
    /// bits (SEMANTICS C5).
    #[must_use]
    pub fn is_cidr_to_cel(&self) -> bool {
        !self.leading_zeros && !self.is_mapped()
    }

    fn is_mapped(&self) -> bool {
        matches!(self.address, IpAddr::V6(a) if a.to_ipv4_mapped().is_some())
    }

    /// Returns whether bits beyond the prefix length are set.
    #[must_use]
    pub fn has_host_bits(&self) -> bool {
        let network = match self.address {
            IpAddr::V4(a) => IpAddr::V4(Ipv4Net::new_assert(a, self.prefix).network()),
            IpAddr::V6(a) => IpAddr::V6(Ipv6Net::new_assert(a, self.prefix).network()),
        };
        network != self.address
    }
}

/// Reads what Go's `ParseIPSloppy` accepts. IPv4-mapped addresses become IPv4.
#[must_use]
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    let (address, _) = parse_address(text)?;
    Some(address.to_canonical())
}

/// Returns the address, and whether any part of it has leading zeros. A group of four digits has none, as in `0db8`.
fn parse_address(text: &str) -> Option<(IpAddr, bool)> {
    if let Some((v4, zeros)) = parse_v4(text) {
        return Some((IpAddr::V4(v4), zeros));
    }
    // The standard library accepts no more than four digits in a group. Go accepts more if the first ones are zeros.
    let mut zeros = false;
    let mut groups = Vec::new();
    for group in text.split(':') {
        groups.push(if group.contains('.') {
            let (v4, more_zeros) = parse_v4(group)?;
            zeros |= more_zeros;
            v4.to_string().into()
        } else if group.len() > 4 {
            zeros = true;
            let digits = group.trim_start_matches('0');
            Cow::Borrowed(if digits.is_empty() { "0" } else { digits })
        } else {
            Cow::Borrowed(group)
        });
    }
    groups.join(":").parse::<Ipv6Addr>().ok().map(|a| (IpAddr::V6(a), zeros))
}

fn parse_v4(text: &str) -> Option<(Ipv4Addr, bool)> {
    let mut octets = [0u8; 4];
    let mut zeros = false;
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        zeros |= part.len() > 1 && part.starts_with('0');
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then_some((Ipv4Addr::from(octets), zeros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Option<String> {
        Cidr::parse(text).map(|c| c.canonical().to_string())
    }

    #[test]
    fn lenient_parsing_matches_go() {
        for (text, meaning) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.5/8", "10.0.0.0/8"),
            ("010.000.000.000/08", "10.0.0.0/8"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::FFFF:10.0.0.01/128", "10.0.0.1/32"),
            ("::ffff:10.0.0.0/90", "::ffc0:0:0/90"),
            ("2001:DB8:0::/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("0000010.0.0.0/00000008", "10.0.0.0/8"),
            ("00002001:00db8::/32", "2001:db8::/32"),
            ("::00ffff:10.0.0.0/104", "10.0.0.0/8"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(meaning), "{text}");
        }
        for bad in [
            "",
            "10.0.0.1",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.256/8",
            "::/129",
            "fe80::1%eth0/64",
            "a/8",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "1.2.3.4.5/8",
            "/8",
            " 10.0.0.0/8",
            "::1.2.3/8",
            "12001::/32",
            "1:2:3:4:5::6:7:8/64",
            "0000x::/32",
            "00000:::/32",
        ] {
            assert_eq!(canonical(bad), None, "{bad}");
        }
    }

    #[test]
    fn strict_parsing_rejects_ambiguous_values() {
        let strict = |t| Cidr::parse(t).unwrap().strict_errors().len();
        assert_eq!(strict("10.0.0.0/8"), 0);
        assert_eq!(strict("10.0.0.5/8"), 1);
        assert_eq!(strict("010.0.0.0/8"), 1);
        assert_eq!(strict("10.0.0.0/08"), 1);
        assert_eq!(strict("02001:db8::/32"), 1);
        assert_eq!(strict("2001:0db8::/32"), 0, "four digits are no more than a group has");
        assert_eq!(strict("::ffff:10.0.0.0/104"), 1);
        assert_eq!(strict("2001:DB8::/32"), 0, "not canonical, which is only a warning");
        let warnings = |t| Cidr::parse(t).unwrap().warnings(t);
        assert!(warnings("10.0.0.0/8").is_empty());
        assert_eq!(
            warnings("10.0.0.5/8"),
            [
                "CIDR value \"10.0.0.5/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.5/32\"?)"
            ]
        );
        assert_eq!(warnings("2001:DB8::/32").len(), 1);
    }

    #[test]
    fn exceptions_are_strict_subsets() {
        let inside = |a, b| Cidr::parse(a).unwrap().is_strictly_inside(&Cidr::parse(b).unwrap());
        assert!(inside("10.1.0.0/16", "10.0.0.0/8"));
        assert!(!inside("10.0.0.0/8", "10.0.0.0/8"));
        assert!(!inside("0.0.0.0/0", "10.0.0.0/8"));
        assert!(!inside("11.0.0.0/16", "10.0.0.0/8"));
        assert!(!inside("10.0.0.0/8", "::/0"));
        assert!(inside("::ffff:10.1.0.0/112", "::ffff:10.0.0.0/104"));
        assert!(!inside("10.1.0.0/16", "::ffff:10.0.0.0/104"));
    }

    #[test]
    fn addresses() {
        assert_eq!(parse_ip("010.0.0.1"), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(parse_ip("::ffff:10.0.0.1"), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(parse_ip("fd00::1"), Some("fd00::1".parse().unwrap()));
        assert_eq!(parse_ip("node-1"), None);
    }
}

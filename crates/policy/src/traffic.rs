//! Protocols, ports and sets of them.
//!
//! [`Traffic`] is a set of (protocol, destination port) pairs, such as those that a rule allows. Sets are canonical
//! (sorted, disjoint, not adjacent), so equality is set equality.

use std::fmt;

/// An IP protocol, as far as policies distinguish them (SEMANTICS A31, A42, G-7, G-8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, IP protocol 6.
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
    /// SCTP, IP protocol 132.
    Sctp,
    /// Any other IP protocol (ICMP, GRE, ESP …) with its number. Only rules without ports match it.
    Other(u8),
}

impl Protocol {
    /// The three protocols that have ports.
    pub const WITH_PORTS: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Returns the number in the IP header.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
            Self::Other(n) => n,
        }
    }

    /// Returns the protocol with this IP protocol number.
    #[must_use]
    pub fn from_number(n: u8) -> Self {
        match n {
            6 => Self::Tcp,
            17 => Self::Udp,
            132 => Self::Sctp,
            n => Self::Other(n),
        }
    }

    /// Returns whether the protocol has ports.
    #[must_use]
    pub fn has_ports(self) -> bool {
        !matches!(self, Self::Other(_))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("TCP"),
            Self::Udp => f.write_str("UDP"),
            Self::Sctp => f.write_str("SCTP"),
            Self::Other(1) => f.write_str("ICMP"),
            Self::Other(58) => f.write_str("ICMPv6"),
            Self::Other(n) => write!(f, "IP protocol {n}"),
        }
    }
}

/// A set of ports: inclusive ranges, sorted, disjoint and not adjacent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PortSet(Vec<(u16, u16)>);

impl PortSet {
    /// Returns the empty set.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Returns the set of all ports, 0 to 65535.
    #[must_use]
    pub fn all() -> Self {
        Self(vec![(0, u16::MAX)])
    }

    /// Returns the ports from `first` to `last` inclusive; none if `first > last`.
    #[must_use]
    pub fn range(first: u16, last: u16) -> Self {
        Self(if first <= last { vec![(first, last)] } else { Vec::new() })
    }

    /// Returns the union of ranges, in any order. `O(n log n)`.
    #[must_use]
    pub fn of_ranges(ranges: impl IntoIterator<Item = (u16, u16)>) -> Self {
        let mut all: Vec<(u16, u16)> = ranges.into_iter().filter(|(first, last)| first <= last).collect();
        all.sort_unstable();
        all.dedup_by(|next, last| {
            let touches = u32::from(next.0) <= u32::from(last.1) + 1;
            if touches {
                last.1 = last.1.max(next.1);
            }
            touches
        });
        Self(all)
    }

    /// Returns the ranges, sorted.
    #[must_use]
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }

    /// Returns whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether the set has all ports.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0 == [(0, u16::MAX)]
    }

    /// Returns whether `port` is in the set. `O(log n)` in the number of ranges.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= port);
        after > 0 && self.0[after - 1].1 >= port
    }

    /// Returns the number of ports, 0 to 65536.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.iter().map(|&(a, b)| u32::from(b) - u32::from(a) + 1).sum()
    }

    /// Returns the ports in either set. `O(n + m)`.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::of_ranges(self.0.iter().chain(&other.0).copied())
    }

    /// Returns the ports that are not in the set.
    #[must_use]
    pub fn complement(&self) -> Self {
        let mut out = Vec::with_capacity(self.0.len() + 1);
        let mut next = 0u32;
        for &(first, last) in &self.0 {
            if u32::from(first) > next {
                // The cast can't truncate: `next < first <= u16::MAX`.
                out.push((next as u16, first - 1));
            }
            next = u32::from(last) + 1;
        }
        if let Ok(next) = u16::try_from(next) {
            out.push((next, u16::MAX));
        }
        Self(out)
    }

    /// Returns the ports in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut i, mut j, mut out) = (0, 0, Vec::new());
        while let (Some(a), Some(b)) = (self.0.get(i), other.0.get(j)) {
            let (first, last) = (a.0.max(b.0), a.1.min(b.1));
            if first <= last {
                out.push((first, last));
            }
            if a.1 < b.1 { i += 1 } else { j += 1 }
        }
        Self(out)
    }

    /// Returns the ports in this set that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.intersection(&other.complement())
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("all");
        }
        for (i, &(a, b)) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            if a == b { write!(f, "{comma}{a}")? } else { write!(f, "{comma}{a}-{b}")? }
        }
        Ok(())
    }
}

/// A set of (protocol, destination port) pairs: ports of TCP, UDP and SCTP, and all other protocols together.
///
/// Rules without ports match every protocol, rules with ports none of the other protocols (SEMANTICS G-7, G-8). So one
/// bit represents the other protocols.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Traffic {
    /// TCP destination ports.
    pub tcp: PortSet,
    /// UDP destination ports.
    pub udp: PortSet,
    /// SCTP destination ports.
    pub sctp: PortSet,
    /// All other IP protocols.
    pub other: bool,
}

impl Traffic {
    /// Returns the empty set.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Returns the set of everything.
    #[must_use]
    pub fn all() -> Self {
        Self { tcp: PortSet::all(), udp: PortSet::all(), sctp: PortSet::all(), other: true }
    }

    /// Returns ports of one protocol; for [`Protocol::Other`] all other protocols, without regard to the ports.
    #[must_use]
    pub fn of(protocol: Protocol, ports: PortSet) -> Self {
        let mut out = Self::none();
        match protocol {
            Protocol::Tcp => out.tcp = ports,
            Protocol::Udp => out.udp = ports,
            Protocol::Sctp => out.sctp = ports,
            Protocol::Other(_) => out.other = true,
        }
        out
    }

    /// Returns the ports of one protocol in the set. For [`Protocol::Other`]: all or none.
    #[must_use]
    pub fn ports(&self, protocol: Protocol) -> PortSet {
        match protocol {
            Protocol::Tcp => self.tcp.clone(),
            Protocol::Udp => self.udp.clone(),
            Protocol::Sctp => self.sctp.clone(),
            Protocol::Other(_) if self.other => PortSet::all(),
            Protocol::Other(_) => PortSet::none(),
        }
    }

    /// Returns whether the set contains a protocol and port. The port is ignored for protocols without ports.
    #[must_use]
    pub fn contains(&self, protocol: Protocol, port: u16) -> bool {
        match protocol {
            Protocol::Tcp => self.tcp.contains(port),
            Protocol::Udp => self.udp.contains(port),
            Protocol::Sctp => self.sctp.contains(port),
            Protocol::Other(_) => self.other,
        }
    }

    /// Returns whether the set is empty.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::none()
    }

    /// Returns whether the set contains everything.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.other && self.tcp.is_all() && self.udp.is_all() && self.sctp.is_all()
    }

    fn zip(&self, o: &Self, ports: impl Fn(&PortSet, &PortSet) -> PortSet, other: bool) -> Self {
        Self {
            tcp: ports(&self.tcp, &o.tcp),
            udp: ports(&self.udp, &o.udp),
            sctp: ports(&self.sctp, &o.sctp),
            other,
        }
    }

    /// Returns the union.
    #[must_use]
    pub fn union(&self, o: &Self) -> Self {
        self.zip(o, PortSet::union, self.other || o.other)
    }

    /// Returns the intersection.
    #[must_use]
    pub fn intersection(&self, o: &Self) -> Self {
        self.zip(o, PortSet::intersection, self.other && o.other)
    }

    /// Returns what is in this set and not in `o`.
    #[must_use]
    pub fn difference(&self, o: &Self) -> Self {
        self.zip(o, PortSet::difference, self.other && !o.other)
    }
}

/// Collects a union. Each part costs its own size, not that of the result.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrafficSum {
    tcp: Vec<(u16, u16)>,
    udp: Vec<(u16, u16)>,
    sctp: Vec<(u16, u16)>,
    other: bool,
}

impl TrafficSum {
    /// Adds the ports from `first` to `last` inclusive; all other protocols for [`Protocol::Other`].
    pub(crate) fn add(&mut self, protocol: Protocol, first: u16, last: u16) {
        match protocol {
            Protocol::Tcp => self.tcp.push((first, last)),
            Protocol::Udp => self.udp.push((first, last)),
            Protocol::Sctp => self.sctp.push((first, last)),
            Protocol::Other(_) => self.other = true,
        }
    }

    /// Adds traffic.
    pub(crate) fn add_all(&mut self, traffic: &Traffic) {
        self.tcp.extend(traffic.tcp.ranges());
        self.udp.extend(traffic.udp.ranges());
        self.sctp.extend(traffic.sctp.ranges());
        self.other |= traffic.other;
    }

    /// Returns the union. `O(n log n)` in the ranges added.
    pub(crate) fn finish(self) -> Traffic {
        let [tcp, udp, sctp] = [self.tcp, self.udp, self.sctp].map(PortSet::of_ranges);
        Traffic { tcp, udp, sctp, other: self.other }
    }
}

impl fmt::Display for Traffic {
    /// Formats the set: `TCP 80,443; UDP 53`, `all`, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("all");
        }
        if self.is_none() {
            return f.write_str("none");
        }
        let mut parts: Vec<String> = [("TCP", &self.tcp), ("UDP", &self.udp), ("SCTP", &self.sctp)]
            .into_iter()
            .filter(|(_, p)| !p.is_empty())
            .map(|(name, p)| if p.is_all() { name.to_owned() } else { format!("{name} {p}") })
            .collect();
        if self.other {
            parts.push("other protocols".to_owned());
        }
        f.write_str(&parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ports() -> impl Strategy<Value = PortSet> {
        let edge = prop_oneof![Just(0u16), Just(u16::MAX), 0u16..20, any::<u16>()];
        prop::collection::vec((edge.clone(), edge), 0..6).prop_map(|ranges| {
            ranges
                .into_iter()
                .fold(PortSet::none(), |acc, (a, b)| acc.union(&PortSet::range(a.min(b), a.max(b))))
        })
    }

    proptest! {
        #[test]
        fn the_algebra_is_that_of_sets(a in ports(), b in ports(), p in prop_oneof![0u16..22, any::<u16>(), Just(u16::MAX)]) {
            prop_assert_eq!(a.union(&b).contains(p), a.contains(p) || b.contains(p));
            prop_assert_eq!(a.intersection(&b).contains(p), a.contains(p) && b.contains(p));
            prop_assert_eq!(a.difference(&b).contains(p), a.contains(p) && !b.contains(p));
            prop_assert_eq!(a.complement().contains(p), !a.contains(p));
            prop_assert_eq!(a.count() + a.complement().count(), 65_536);
            prop_assert_eq!(&a.complement().complement(), &a);
            prop_assert_eq!(a.union(&a.complement()), PortSet::all());

        }
    }

    #[test]
    fn adjacent_ranges_merge_and_display_reads() {
        let set = PortSet::range(80, 80).union(&PortSet::range(81, 90)).union(&PortSet::range(443, 443));
        assert_eq!(set.to_string(), "80-90,443");
        assert!(PortSet::range(9, 3).is_empty());
        assert_eq!(Traffic::of(Protocol::Tcp, set).to_string(), "TCP 80-90,443");
        assert_eq!(Traffic::all().to_string(), "all");
    }
}

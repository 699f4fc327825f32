//! Ports, IP families and address ranges as text and as JSON values.

use palisade_analysis::Families;
use palisade_policy::{Family, IpRange, PortSet, Traffic, address::to_number};
use serde::Serialize;

/// The first port that is shown: no rule can name port 0, and no program listens on it.
const FIRST_PORT: u16 = 1;

/// Formats a range as a CIDR if it is one, else as first and last address.
pub(crate) fn range_text(range: &IpRange) -> String {
    let (first, last) = (to_number(range.first), to_number(range.last));
    let bits = if Family::of(range.first) == Family::V4 { 32 } else { 128 };
    let host_bits = (last - first).trailing_ones();
    let is_cidr = (last - first).count_ones() == host_bits && (first & (last - first)) == 0;
    if is_cidr && first != last { format!("{}/{}", range.first, bits - host_bits) } else { range.to_string() }
}

/// Traffic without port 0, as answers show it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct VisibleTraffic {
    /// Protocol names with their ports, which are not empty.
    protocols: Vec<(&'static str, PortSet)>,
    /// Whether the IP protocols without ports are included.
    other: bool,
}

impl VisibleTraffic {
    /// Returns traffic without port 0.
    pub(crate) fn of(traffic: &Traffic) -> Self {
        let real = PortSet::range(FIRST_PORT, u16::MAX);
        let all = [("TCP", &traffic.tcp), ("UDP", &traffic.udp), ("SCTP", &traffic.sctp)];
        let protocols = all.into_iter().map(|(name, ports)| (name, ports.intersection(&real)));
        Self { protocols: protocols.filter(|(_, ports)| !ports.is_empty()).collect(), other: traffic.other }
    }

    /// Whether it is empty.
    pub(crate) fn is_none(&self) -> bool {
        !self.other && self.protocols.is_empty()
    }

    /// Whether it is every port of every protocol.
    pub(crate) fn is_all(&self) -> bool {
        self.other && self.protocols.len() == 3 && self.protocols.iter().all(|(_, ports)| is_whole(ports))
    }

    /// Returns the protocols with ports: name, and ports as text (`80,443,8000-8100`; empty for all).
    pub(crate) fn protocols(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.protocols
            .iter()
            .map(|(name, ports)| (*name, if is_whole(ports) { String::new() } else { ports.to_string() }))
    }

    /// Whether the protocols without ports are included.
    pub(crate) fn has_other(&self) -> bool {
        self.other
    }

    /// Formats it: `TCP 80,443; UDP`, `all`, `none`.
    pub(crate) fn text(&self) -> String {
        if self.is_all() {
            return "all".to_owned();
        }
        if self.is_none() {
            return "none".to_owned();
        }
        let words = self.protocols().map(|(name, ports)| match &*ports {
            "" => name.to_owned(),
            ports => format!("{name} {ports}"),
        });
        let other = self.other.then(|| "other protocols".to_owned());
        words.chain(other).collect::<Vec<_>>().join("; ")
    }

    /// Returns the ranges of ports as JSON values.
    pub(crate) fn ranges(&self) -> Vec<JsonPorts> {
        let of = |(protocol, ports): &(&'static str, PortSet)| -> Vec<JsonPorts> {
            let range = |&(first, last): &(u16, u16)| JsonPorts { protocol, first, last };
            ports.ranges().iter().map(range).collect()
        };
        self.protocols.iter().flat_map(of).collect()
    }
}

fn is_whole(ports: &PortSet) -> bool {
    ports.ranges() == [(FIRST_PORT, u16::MAX)]
}

/// A range of destination ports, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct JsonPorts {
    protocol: &'static str,
    first: u16,
    last: u16,
}

/// Traffic, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct JsonTraffic {
    all: bool,
    ports: Vec<JsonPorts>,
    other_protocols: bool,
}

impl From<&Traffic> for JsonTraffic {
    fn from(traffic: &Traffic) -> Self {
        let shown = VisibleTraffic::of(traffic);
        Self { all: shown.is_all(), ports: shown.ranges(), other_protocols: shown.has_other() }
    }
}

/// A range of addresses, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct JsonRange {
    first: String,
    last: String,
}

impl From<&IpRange> for JsonRange {
    fn from(range: &IpRange) -> Self {
        Self { first: range.first.to_string(), last: range.last.to_string() }
    }
}

/// Returns the names of the families.
pub(crate) fn family_names(families: Families) -> Vec<String> {
    Family::BOTH.into_iter().filter(|f| families.contains(*f)).map(|f| f.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use palisade_policy::Protocol;

    use super::*;

    #[test]
    fn ranges_are_cidrs_where_they_can_be() {
        let text = |first: &str, last: &str| {
            range_text(&IpRange { first: first.parse().unwrap(), last: last.parse().unwrap() })
        };
        assert_eq!(text("10.0.0.0", "10.255.255.255"), "10.0.0.0/8");
        assert_eq!(text("0.0.0.0", "255.255.255.255"), "0.0.0.0/0");
        assert_eq!(text("10.0.0.1", "10.0.0.2"), "10.0.0.1-10.0.0.2");
        assert_eq!(text("10.0.0.1", "10.0.0.1"), "10.0.0.1");
        assert_eq!(text("2000::", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), "2000::/3");
        assert_eq!(text("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), "::/0");
    }

    #[test]
    fn port_0_is_never_shown() {
        let all = Traffic::all();
        assert_eq!(VisibleTraffic::of(&all).text(), "all");
        let named = Traffic::of(Protocol::Tcp, PortSet::range(1, u16::MAX));
        assert_eq!(VisibleTraffic::of(&named).text(), "TCP");
        assert!(VisibleTraffic::of(&Traffic::of(Protocol::Udp, PortSet::range(0, 0))).is_none());
        let rest = all.difference(&Traffic::of(Protocol::Tcp, PortSet::range(80, u16::MAX)));
        assert_eq!(VisibleTraffic::of(&rest).text(), "TCP 1-79; UDP; SCTP; other protocols");
    }
}

//! What a line of a recording holds, in every format.

use std::net::{IpAddr, Ipv4Addr};

use palisade_analysis::replay::RecordedFlow;
use palisade_policy::{DomainName, Protocol};

/// What a line holds.
pub(super) enum Line {
    /// A connection.
    Flow(Box<Seen>),
    /// Nothing to replay, and why: `replies`.
    Skipped(&'static str),
    /// The recorder lost this many connections.
    Lost(u64),
}

/// A connection, as it was recorded.
pub(super) struct Seen {
    pub(super) flow: RecordedFlow,
    /// Whether it passed.
    pub(super) passed: bool,
    /// How many connections or packets the record stands for.
    pub(super) count: u64,
    /// The names for which a DNS server answered the destination's address, sorted.
    pub(super) names: Vec<DomainName>,
}

/// Whether a connection is multicast, broadcast or link-local traffic, which the agent drops whatever the policies.
pub(crate) fn is_link_traffic(flow: &RecordedFlow) -> bool {
    let link_local = |address: IpAddr| matches!(address, IpAddr::V6(a) if a.is_unicast_link_local());
    let [from, to] = [flow.source.address, flow.destination.address];
    to.is_multicast() || to == Ipv4Addr::BROADCAST || link_local(to) || link_local(from)
}

/// Reads a protocol by name or number. ICMP is that of the address's family.
pub(super) fn protocol(text: &str, v6: bool) -> Option<Protocol> {
    match text.to_ascii_uppercase().as_str() {
        "TCP" | "6" => Some(Protocol::Tcp),
        "UDP" | "17" => Some(Protocol::Udp),
        "SCTP" | "132" => Some(Protocol::Sctp),
        "ICMP" | "ICMPV4" => Some(Protocol::Other(if v6 { 58 } else { 1 })),
        "ICMPV6" => Some(Protocol::Other(58)),
        other => other.trim_start_matches("IP PROTOCOL ").parse().ok().map(Protocol::Other),
    }
}

/// Returns the port of a record: protocols with ports must have one, and others have none.
pub(super) fn port(protocol: Protocol, port: Option<u16>) -> Result<u16, String> {
    match port.filter(|port| *port != 0) {
        Some(port) if protocol.has_ports() => Ok(port),
        None if protocol.has_ports() => {
            Err(format!("a {protocol} connection needs a destination port from 1 to 65535"))
        }
        _ => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_have_names_and_numbers() {
        for (text, expected) in [
            ("tcp", Some(Protocol::Tcp)),
            ("17", Some(Protocol::Udp)),
            ("ICMP", Some(Protocol::Other(1))),
            ("IP protocol 47", Some(Protocol::Other(47))),
            ("256", None),
            ("", None),
        ] {
            assert_eq!(protocol(text, false), expected, "{text}");
        }
        assert_eq!(protocol("icmp", true), Some(Protocol::Other(58)));
        assert!(port(Protocol::Tcp, None).is_err() && port(Protocol::Udp, Some(0)).is_err());
        assert_eq!(port(Protocol::Other(1), Some(8)), Ok(0));
    }
}

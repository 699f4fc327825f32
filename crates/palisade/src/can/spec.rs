//! The syntax of an end: `[NAMESPACE/][KIND/]NAME[:PORT[/PROTO]]`, an address, `node/NAME`, `svc/NAME`, `internet`.
//!
//! Only the grammar is here; [`palisade_names`] resolves names.

use std::{fmt, net::IpAddr, str::FromStr};

use palisade_names::{EndpointKind, PortSpec, UnknownKind};
use palisade_policy::Protocol;

/// One end as written, with the port and protocol if it has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    /// The endpoint.
    pub(crate) endpoint: EndpointSpec,
    /// The port.
    pub(crate) port: Option<PortSpec>,
    /// The protocol.
    pub(crate) protocol: Option<ProtocolSpec>,
}

/// The endpoint as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EndpointSpec {
    /// An address.
    Address(IpAddr),
    /// The public internet.
    Internet,
    /// An object of the cluster.
    Named {
        /// The namespace, if one was written.
        namespace: Option<String>,
        /// The kind, if one was written.
        kind: Option<EndpointKind>,
        /// The name.
        name: String,
    },
}

/// A protocol as written. ICMP has a different number in each IP family, so it isn't a [`Protocol`] yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProtocolSpec {
    /// TCP, UDP or SCTP.
    WithPorts(Protocol),
    /// Echo requests: ICMP over IPv4, ICMPv6 over IPv6.
    Icmp,
}

/// The word for all public addresses.
const INTERNET: &str = "internet";

/// The longest name that the API accepts (a DNS subdomain).
const LONGEST_NAME: usize = 253;

/// A syntax error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    #[error("empty; use [NAMESPACE/][KIND/]NAME, an address, node/NAME, svc/NAME or internet")]
    Empty,
    #[error("`[{0}` has no closing bracket; use [ADDRESS]:PORT")]
    Bracket(String),
    #[error("`{0}` is not an IPv6 address")]
    NotIpv6(String),
    #[error("`{0}` is a range of addresses; give one address of it")]
    Range(String),
    #[error("`{0}` has more than one colon; use [ADDRESS]:PORT for an IPv6 address with a port")]
    Colons(String),
    #[error("unexpected `{0}` after the bracket; use [ADDRESS]:PORT[/PROTO]")]
    AfterBracket(String),
    #[error("port `{0}` is neither a number from 1 to 65535 nor a port name")]
    Port(String),
    #[error("unknown protocol `{0}`; supported are TCP, UDP, SCTP and ICMP")]
    Protocol(String),
    #[error("ICMP has no ports; use NAME/ICMP")]
    IcmpPort,
    #[error("invalid name `{0}`: names consist of lower-case letters, digits, `-` and `.`")]
    Name(String),
    #[error("too many slashes in `{0}`; use [NAMESPACE/][KIND/]NAME")]
    Slashes(String),
    #[error("nodes have no namespace; use node/{0}")]
    NodeNamespace(String),
    #[error(transparent)]
    Kind(#[from] UnknownKind),
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(SpecError::Empty);
        }
        if let Some(rest) = text.strip_prefix('[') {
            return bracketed(rest);
        }
        let (endpoint, tail) = split_off_port(text)?;
        let (port, protocol) = tail;
        Ok(Self { endpoint: endpoint_of(endpoint)?, port, protocol })
    }
}

type Tail = (Option<PortSpec>, Option<ProtocolSpec>);

/// `ADDRESS]`, with `:PORT`, `:PORT/PROTO` or `/PROTO` after it.
fn bracketed(rest: &str) -> Result<Spec, SpecError> {
    let (inside, after) = rest.split_once(']').ok_or_else(|| SpecError::Bracket(rest.to_owned()))?;
    let address = inside.parse().map_err(|_| SpecError::NotIpv6(inside.to_owned()))?;
    let (port, protocol) = match (after.strip_prefix(':'), after.strip_prefix('/')) {
        _ if after.is_empty() => (None, None),
        (Some(tail), _) => port_and_protocol(tail)?,
        (_, Some(protocol)) => (None, Some(protocol_of(protocol)?)),
        _ => return Err(SpecError::AfterBracket(after.to_owned())),
    };
    Ok(Spec { endpoint: EndpointSpec::Address(IpAddr::V6(address)), port, protocol })
}

/// Splits a text into the endpoint, and the port and protocol.
fn split_off_port(text: &str) -> Result<(&str, Tail), SpecError> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text, (None, None)));
    }
    if let Some((endpoint, last)) = text.rsplit_once('/') {
        if endpoint.parse::<IpAddr>().is_ok() {
            if last.parse::<u8>().is_ok() {
                return Err(SpecError::Range(text.to_owned()));
            }
            return match protocol_of(last)? {
                // Literally, `fd00::7:80/TCP` is an address that ends in :80, which is not what the user meant.
                ProtocolSpec::WithPorts(_) if endpoint.contains(':') => {
                    Err(SpecError::Colons(text.to_owned()))
                }
                protocol => Ok((endpoint, (None, Some(protocol)))),
            };
        }
        // Names of objects have no capital letters, so a word in capitals can only be a protocol.
        if !endpoint.contains(':') && last.chars().any(|c| c.is_ascii_uppercase()) {
            return Ok((endpoint, (None, Some(protocol_of(last)?))));
        }
    }
    match text.split_once(':') {
        None => Ok((text, (None, None))),
        Some((_, tail)) if tail.contains(':') => Err(SpecError::Colons(text.to_owned())),
        Some((endpoint, tail)) => Ok((endpoint, port_and_protocol(tail)?)),
    }
}

/// `PORT` or `PORT/PROTO`.
fn port_and_protocol(tail: &str) -> Result<Tail, SpecError> {
    let (port, protocol) = match tail.split_once('/') {
        Some((port, protocol)) => (port, Some(protocol_of(protocol)?)),
        None => (tail, None),
    };
    if protocol == Some(ProtocolSpec::Icmp) {
        return Err(SpecError::IcmpPort);
    }
    let port = port_of(port)?;
    let protocol = match (&port, protocol) {
        // A number alone means TCP, as in the API; a named port has a protocol.
        (PortSpec::Number(_), None) => Some(ProtocolSpec::WithPorts(Protocol::Tcp)),
        (_, protocol) => protocol,
    };
    Ok((Some(port), protocol))
}

fn port_of(text: &str) -> Result<PortSpec, SpecError> {
    let wrong = || SpecError::Port(text.to_owned());
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return match text.parse() {
            Ok(n) if n > 0 => Ok(PortSpec::Number(n)),
            _ => Err(wrong()),
        };
    }
    // SEMANTICS A.3 (6): 1 to 15 letters, digits and hyphens. The API rejects other names, so no pod declares one.
    let letters = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if letters && (1..=15).contains(&text.len()) { Ok(PortSpec::Name(text.into())) } else { Err(wrong()) }
}

fn protocol_of(text: &str) -> Result<ProtocolSpec, SpecError> {
    match text.to_ascii_uppercase().as_str() {
        "TCP" => Ok(ProtocolSpec::WithPorts(Protocol::Tcp)),
        "UDP" => Ok(ProtocolSpec::WithPorts(Protocol::Udp)),
        "SCTP" => Ok(ProtocolSpec::WithPorts(Protocol::Sctp)),
        "ICMP" | "ICMPV6" => Ok(ProtocolSpec::Icmp),
        _ => Err(SpecError::Protocol(text.to_owned())),
    }
}

fn endpoint_of(text: &str) -> Result<EndpointSpec, SpecError> {
    if text == INTERNET {
        return Ok(EndpointSpec::Internet);
    }
    if let Ok(address) = text.parse() {
        return Ok(EndpointSpec::Address(address));
    }
    let parts: Vec<&str> = text.split('/').collect();
    let (namespace, kind, name) = match parts[..] {
        [name] => (None, None, name),
        [first, name] => match first.parse::<EndpointKind>() {
            Ok(kind) => (None, Some(kind), name),
            Err(_) => (Some(first), None, name),
        },
        [namespace, kind, name] => (Some(namespace), Some(kind.parse()?), name),
        _ => return Err(SpecError::Slashes(text.to_owned())),
    };
    if namespace.is_some() && kind == Some(EndpointKind::Node) {
        return Err(SpecError::NodeNamespace(name.to_owned()));
    }
    let namespace = namespace.map(name_of).transpose()?;
    Ok(EndpointSpec::Named { namespace, kind, name: name_of(name)? })
}

fn name_of(text: &str) -> Result<String, SpecError> {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if !text.is_empty() && text.len() <= LONGEST_NAME && text.bytes().all(legal) {
        Ok(text.to_owned())
    } else {
        Err(SpecError::Name(text.to_owned()))
    }
}

impl fmt::Display for ProtocolSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WithPorts(protocol) => protocol.fmt(f),
            Self::Icmp => f.write_str("ICMP"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: Option<ProtocolSpec> = Some(ProtocolSpec::WithPorts(Protocol::Tcp));
    const UDP: Option<ProtocolSpec> = Some(ProtocolSpec::WithPorts(Protocol::Udp));

    fn spec(text: &str) -> Spec {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn named(namespace: Option<&str>, kind: Option<EndpointKind>, name: &str) -> EndpointSpec {
        EndpointSpec::Named { namespace: namespace.map(Into::into), kind, name: name.into() }
    }

    fn error(text: &str) -> String {
        text.parse::<Spec>().expect_err(text).to_string()
    }

    #[test]
    fn names_in_every_form() {
        assert_eq!(spec("web").endpoint, named(None, None, "web"));
        assert_eq!(spec("shop/web").endpoint, named(Some("shop"), None, "web"));
        assert_eq!(
            spec("deploy/web").endpoint,
            named(None, Some(EndpointKind::Workload("Deployment")), "web")
        );
        assert_eq!(
            spec("shop/sts/db").endpoint,
            named(Some("shop"), Some(EndpointKind::Workload("StatefulSet")), "db")
        );
        assert_eq!(spec("svc/web:80").endpoint, named(None, Some(EndpointKind::Service), "web"));
        assert_eq!(spec("node/n1").endpoint, named(None, Some(EndpointKind::Node), "n1"));
        assert_eq!(spec("internet:443").endpoint, EndpointSpec::Internet);
        assert_eq!(spec("pod/internet").endpoint, named(None, Some(EndpointKind::Pod), "internet"));
    }

    #[test]
    fn ports_and_protocols() {
        let tail = |text: &str| (spec(text).port, spec(text).protocol);
        assert_eq!(tail("web"), (None, None));
        assert_eq!(tail("web:80"), (Some(PortSpec::Number(80)), TCP));
        assert_eq!(tail("shop/deploy/web:53/udp"), (Some(PortSpec::Number(53)), UDP));
        assert_eq!(tail("web:http"), (Some(PortSpec::Name("http".into())), None));
        assert_eq!(tail("shop/web/ICMP"), (None, Some(ProtocolSpec::Icmp)));
        assert_eq!(tail("web/UDP"), (None, UDP));
        assert_eq!(spec("shop/web/ICMP").endpoint, named(Some("shop"), None, "web"));
    }

    #[test]
    fn addresses_with_and_without_ports() {
        let address = |a: &str| EndpointSpec::Address(a.parse().unwrap());
        assert_eq!(spec("10.0.0.7").endpoint, address("10.0.0.7"));
        assert_eq!(
            spec("10.0.0.7:80/TCP"),
            Spec { endpoint: address("10.0.0.7"), port: Some(PortSpec::Number(80)), protocol: TCP }
        );
        assert_eq!(spec("fd00::7").endpoint, address("fd00::7"));
        assert_eq!(spec("[fd00::7]").endpoint, address("fd00::7"));
        assert_eq!(
            spec("[fd00::7]:53/UDP"),
            Spec { endpoint: address("fd00::7"), port: Some(PortSpec::Number(53)), protocol: UDP }
        );
        assert_eq!(spec("fd00::7/ICMP").protocol, Some(ProtocolSpec::Icmp));
        assert_eq!(spec("10.0.0.7/ICMP").protocol, Some(ProtocolSpec::Icmp));
        assert_eq!(spec("[fd00::7]/ICMP").protocol, Some(ProtocolSpec::Icmp));
    }

    #[test]
    fn syntax_errors_name_the_cure() {
        assert!(error("").contains("internet"));
        assert!(error("web:0").contains("1 to 65535"));
        assert!(error("web:65536").contains("1 to 65535"));
        assert!(error("web:").contains("1 to 65535"));
        assert!(error("web:80/QUIC").contains("supported are TCP"));
        assert!(error("web:80/ICMP").contains("ICMP has no ports"));
        assert!(error("web/XTCP").contains("supported are TCP"));
        assert!(error("10.0.0.0/8").contains("one address"));
        assert!(error("fd00::/8").contains("one address"));
        assert!(error("fd00::7:80/TCP").contains("[ADDRESS]:PORT"));
        assert!(error("a:b:c").contains("[ADDRESS]:PORT"));
        assert!(error("[fd00::7").contains("closing bracket"));
        assert!(error("[web]:80").contains("not an IPv6 address"));
        assert!(error("[fd00::7]80").contains("after the bracket"));
        assert!(error("Web").contains("lower-case"));
        assert!(error("shop/gateway/web").contains("is not a kind"));
        assert!(error("a/pod/b/c").contains("slashes"));
        assert!(error("shop/node/n1").contains("node/n1"));
        assert!(error("/web").contains("names consist of"));
    }
}

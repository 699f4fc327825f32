//! The syntax of an end: `[NAMESPACE/][KIND/]NAME[:PORT[/PROTO]]`, an address or range, a DNS name or URL, `node/NAME`,
//! `svc/NAME`, `ns/NAME`, `*`, `pod:LABELS@NAMESPACE`, `internet`.
//!
//! Only the grammar is here; [`palisade_names`] resolves names.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use palisade_names::{EndpointKind, PortSpec, UnknownKind};
use palisade_policy::Protocol;

mod made_up;
mod url;

pub(crate) use made_up::MadeUpNamespace;

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
    /// A range of addresses.
    Range(IpNet),
    /// The public internet.
    Internet,
    /// Every pod of a namespace, or of all.
    Everything {
        /// The namespace; all if there is none.
        namespace: Option<String>,
    },
    /// A pod that doesn't exist.
    MadeUp {
        /// Its labels.
        labels: Vec<(String, String)>,
        /// Its namespace.
        namespace: MadeUpNamespace,
    },
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    #[error(
        "empty; use [NAMESPACE/][KIND/]NAME, an address or range, node/NAME, svc/NAME, ns/NAME or internet"
    )]
    Empty,
    #[error("`[{0}` has no closing bracket; use [ADDRESS]:PORT")]
    Bracket(String),
    #[error("`{0}` is not an IPv6 address")]
    NotIpv6(String),
    #[error("invalid range `{0}`: use ADDRESS/LENGTH, and [ADDRESS/LENGTH]:PORT for IPv6 with a port")]
    Range(String),
    #[error("invalid label `{0}`; use pod:KEY=VALUE,KEY=VALUE@NAMESPACE")]
    Label(String),
    #[error("unknown scheme `{0}`; give HOST:PORT instead of a URL")]
    Scheme(String),
    #[error("`{0}`: * stands for all pods, alone or as NAMESPACE/*; it is no pattern")]
    Pattern(String),
    #[error("`{0}`: * stands for no name here; ask about one name, such as {1}")]
    NamePattern(String, String),
    #[error(
        "`{0}` is not ASCII; give the name in its ASCII form (xn--…), which DNS and domainNames of policies have"
    )]
    NotAscii(String),
    #[error("`{0}` has more than one colon; use [ADDRESS]:PORT for an IPv6 address with a port")]
    Colons(String),
    #[error("unexpected `{0}` after the bracket; use [ADDRESS]:PORT[/PROTO]")]
    AfterBracket(String),
    #[error("port `{0}` is neither a number from 1 to 65535 nor a port name")]
    Port(String),
    #[error("no port after the colon; use DST:PORT, or DST alone for the ports that it declares")]
    NoPort,
    #[error("`{0}`: give one port. `palisade connections --port` takes ranges, such as 8000-8100")]
    Ports(String),
    #[error("unknown protocol `{0}`; supported are TCP, UDP, SCTP and ICMP")]
    Protocol(String),
    #[error("ICMP has no ports; use NAME/ICMP")]
    IcmpPort,
    #[error("there is no name before the port; use NAME:PORT, ADDRESS:PORT or internet:PORT")]
    NoName,
    #[error("invalid name `{0}`: names consist of lower-case letters, digits, `-` and `.`")]
    Name(String),
    #[error("too many slashes in `{0}`; use [NAMESPACE/][KIND/]NAME")]
    Slashes(String),
    #[error("nodes have no namespace; use node/{0}")]
    NodeNamespace(String),
    #[error(transparent)]
    Kind(#[from] UnknownKind),
}

impl Spec {
    /// Returns the spec with a namespace for a name that has none. Without one, the name may be anywhere, and so may a name
    /// with dots, which says itself where it is.
    pub(crate) fn within(mut self, given: Option<&str>) -> Self {
        if let (Some(given), EndpointSpec::Named { namespace: own @ None, kind, name }) =
            (given, &mut self.endpoint)
            && *kind != Some(EndpointKind::Node)
            && !name.contains('.')
        {
            *own = Some(given.to_owned());
        }
        self
    }
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(SpecError::Empty);
        }
        if let Some(rest) = text.strip_prefix(made_up::PREFIX) {
            return made_up_pod(rest);
        }
        if let Some(url) = url::parse(text) {
            return of_url(&url.map_err(|scheme| SpecError::Scheme(scheme.to_owned()))?);
        }
        if let Some(rest) = text.strip_prefix('[') {
            return bracketed(rest);
        }
        if let Some(range) = range(text)? {
            return Ok(range);
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
    let endpoint = match (inside.parse(), inside.parse()) {
        (Ok(address), _) => EndpointSpec::Address(IpAddr::V6(address).to_canonical()),
        (_, Ok(net)) => EndpointSpec::Range(canonical(net)),
        _ => return Err(SpecError::NotIpv6(inside.to_owned())),
    };
    let (port, protocol) = tail_of(after)?.ok_or_else(|| SpecError::AfterBracket(after.to_owned()))?;
    Ok(Spec { endpoint, port, protocol })
}

/// Reads `:PORT`, `:PORT/PROTO`, `/PROTO` or nothing. `None` if it is something else.
fn tail_of(after: &str) -> Result<Option<Tail>, SpecError> {
    Ok(match (after.strip_prefix(':'), after.strip_prefix('/')) {
        _ if after.is_empty() => Some((None, None)),
        (Some(tail), _) => Some(port_and_protocol(tail)?),
        (_, Some(protocol)) => Some((None, Some(protocol_of(protocol)?))),
        _ => None,
    })
}

fn made_up_pod(text: &str) -> Result<Spec, SpecError> {
    let (labels, namespace, tail) = made_up::split(text);
    let (labels, namespace) = (made_up::labels(labels)?, made_up::namespace(namespace)?);
    let (port, protocol) = tail_of(tail)?.unwrap_or_default();
    Ok(Spec { endpoint: EndpointSpec::MadeUp { labels, namespace }, port, protocol })
}

/// A URL is what it connects to: its host, with its port or the scheme's.
fn of_url(url: &url::Url<'_>) -> Result<Spec, SpecError> {
    let spec: Spec = url.authority.parse()?;
    let given = spec.port.or_else(|| url.port.map(PortSpec::Number));
    Ok(Spec { port: given, protocol: Some(ProtocolSpec::WithPorts(url.protocol)), ..spec })
}

/// Reads a range, with a port or protocol after it: `10.0.0.0/8`, `10.0.0.0/8:443`. `None`: the text is none.
fn range(text: &str) -> Result<Option<Spec>, SpecError> {
    let spec = |net, (port, protocol)| Spec { endpoint: EndpointSpec::Range(net), port, protocol };
    let Some((address, rest)) = text.split_once('/') else { return Ok(None) };
    let Ok(address) = address.parse::<IpAddr>() else { return Ok(None) };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return Ok(None);
    }
    let wrong = || SpecError::Range(text.to_owned());
    let net = rest[..digits].parse().ok().and_then(|length| IpNet::new(address, length).ok());
    let tail = tail_of(&rest[digits..])?.ok_or_else(wrong)?;
    Ok(Some(spec(canonical(net.ok_or_else(wrong)?.trunc()), tail)))
}

/// Returns a range as policies see it: IPv4-mapped addresses of IPv6 are the IPv4 addresses (G-26).
pub(crate) fn canonical(net: IpNet) -> IpNet {
    let mapped = |net: IpNet| {
        let length = net.prefix_len().checked_sub(96)?;
        match net.addr().to_canonical() {
            address @ IpAddr::V4(_) => IpNet::new(address, length).ok(),
            IpAddr::V6(_) => None,
        }
    };
    match net {
        IpNet::V6(_) => mapped(net).unwrap_or(net),
        IpNet::V4(_) => net,
    }
}

/// Splits a text into the endpoint, and the port and protocol.
fn split_off_port(text: &str) -> Result<(&str, Tail), SpecError> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text, (None, None)));
    }
    if let Some((endpoint, last)) = text.rsplit_once('/') {
        if endpoint.parse::<IpAddr>().is_ok() {
            return match protocol_of(last)? {
                // Literally, `fd00::7:80/TCP` is an address that ends in :80, which is not what the user meant.
                ProtocolSpec::WithPorts(_) if endpoint.contains(':') => {
                    Err(SpecError::Colons(text.to_owned()))
                }
                protocol => Ok((endpoint, (None, Some(protocol)))),
            };
        }
        // Names of objects have no capital letters, so a word in capitals can only be a protocol.
        if ![endpoint, last].iter().any(|part| part.contains(':'))
            && last.chars().any(|c| c.is_ascii_uppercase())
        {
            return Ok((endpoint, (None, Some(protocol_of(last)?))));
        }
    }
    match text.split_once(':') {
        None => Ok((text, (None, None))),
        Some((_, tail)) if tail.contains(':') => Err(SpecError::Colons(text.to_owned())),
        Some(("", _)) => Err(SpecError::NoName),
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
    if text.is_empty() {
        return Err(SpecError::NoPort);
    }
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'-' || b == b',') {
        return Err(SpecError::Ports(text.to_owned()));
    }
    // SEMANTICS A.3 (6): 1 to 15 letters, digits and hyphens, at least one of them a letter. The API rejects other names, so no
    // pod declares one.
    let letters = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if letters && text.len() <= 15 { Ok(PortSpec::Name(text.into())) } else { Err(wrong()) }
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
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(EndpointSpec::Address(address.to_canonical()));
    }
    let parts: Vec<&str> = text.split('/').collect();
    match parts[..] {
        ["*"] => return Ok(EndpointSpec::Everything { namespace: None }),
        ["ns" | "namespace" | "namespaces", "*"] => return Ok(EndpointSpec::Everything { namespace: None }),
        [namespace, "*"] | ["ns" | "namespace" | "namespaces", namespace] => {
            return Ok(EndpointSpec::Everything { namespace: Some(name_of(namespace)?) });
        }
        _ if let Some(suffix) = host_below(text) => {
            return Err(SpecError::NamePattern(text.to_owned(), format!("www.{suffix}")));
        }
        _ if text.contains('*') => return Err(SpecError::Pattern(text.to_owned())),
        [name] if name.contains('.') => {
            return Ok(EndpointSpec::Named { namespace: None, kind: None, name: dotted_name(name)? });
        }
        _ => {}
    }
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

/// Returns the suffix of a pattern of domain names, `*.example.com`.
fn host_below(text: &str) -> Option<&str> {
    let suffix = text.strip_prefix("*.")?;
    (suffix.contains('.') && dotted_name(suffix).is_ok()).then_some(suffix)
}

/// Reads a name with dots, which may be a host's: case has no effect then, and labels may contain `_`.
fn dotted_name(text: &str) -> Result<String, SpecError> {
    if !text.is_ascii() {
        return Err(SpecError::NotAscii(text.to_owned()));
    }
    let lower = text.to_ascii_lowercase();
    name_of(&lower.replace('_', "-")).map_err(|_| SpecError::Name(text.to_owned()))?;
    Ok(lower)
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
mod tests;

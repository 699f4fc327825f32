//! URLs as ends: `http://web.shop:8080/path` means `web.shop:8080`.

use palisade_policy::Protocol;

/// The port and protocol of each scheme. Schemes without a usual port have none.
const SCHEMES: [(&str, Option<u16>, Protocol); 20] = [
    ("http", Some(80), Protocol::Tcp),
    ("https", Some(443), Protocol::Tcp),
    ("ws", Some(80), Protocol::Tcp),
    ("wss", Some(443), Protocol::Tcp),
    ("grpc", None, Protocol::Tcp),
    ("tcp", None, Protocol::Tcp),
    ("udp", None, Protocol::Udp),
    ("sctp", None, Protocol::Sctp),
    ("dns", Some(53), Protocol::Udp),
    ("ldap", Some(389), Protocol::Tcp),
    ("ldaps", Some(636), Protocol::Tcp),
    ("smtp", Some(25), Protocol::Tcp),
    ("ssh", Some(22), Protocol::Tcp),
    ("amqp", Some(5672), Protocol::Tcp),
    ("mongodb", Some(27_017), Protocol::Tcp),
    ("mysql", Some(3306), Protocol::Tcp),
    ("nats", Some(4222), Protocol::Tcp),
    ("postgres", Some(5432), Protocol::Tcp),
    ("postgresql", Some(5432), Protocol::Tcp),
    ("redis", Some(6379), Protocol::Tcp),
];

/// A URL, as far as connections depend on it.
#[derive(Debug)]
pub(super) struct Url<'t> {
    /// Host and port as written.
    pub(super) authority: &'t str,
    /// The port of the scheme.
    pub(super) port: Option<u16>,
    /// The protocol of the scheme.
    pub(super) protocol: Protocol,
}

/// Reads a URL. `None`: the text is none. `Some(Err(scheme))`: the scheme is not known.
pub(super) fn parse(text: &str) -> Option<Result<Url<'_>, &str>> {
    let (scheme, rest) = text.split_once("://")?;
    let found = SCHEMES.iter().find(|(name, ..)| scheme.eq_ignore_ascii_case(name));
    let Some((_, port, protocol)) = found else { return Some(Err(scheme)) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // A user name and password mean nothing for the connection.
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Some(Ok(Url { authority, port: *port, protocol: *protocol }))
}

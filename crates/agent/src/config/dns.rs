//! Settings of egress by name.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::list::Item;
use crate::names::DNS_PORT;

/// What happens to DNS of pods with rules by name while no agent reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DnsFail {
    /// It is dropped, and pods can't resolve names
    #[default]
    Closed,
    /// It passes, and its addresses are not learned: connections to them are denied unless they are known
    Open,
}

/// The address and port of a DNS server: `192.0.2.53`, `192.0.2.53:5353`, `2001:db8::53` or `[2001:db8::53]:5353`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DnsServer(pub SocketAddr);

/// A text that is no [`DnsServer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address, nor an address with a port")]
pub struct NoDnsServer;

impl FromStr for DnsServer {
    type Err = NoDnsServer;

    fn from_str(text: &str) -> Result<Self, NoDnsServer> {
        let alone = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, DNS_PORT));
        let server = alone.or_else(|_| text.parse()).map_err(|_| NoDnsServer)?;
        Some(Self(server)).filter(|server| server.0.port() != 0).ok_or(NoDnsServer)
    }
}

impl fmt::Display for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.port() {
            DNS_PORT => write!(f, "{}", self.0.ip()),
            _ => write!(f, "{}", self.0),
        }
    }
}

impl Item for DnsServer {
    const WHAT: &'static str = "an address, such as 192.0.2.53 or 2001:db8::53, or one with a port, such as 192.0.2.53:5353 or [2001:db8::53]:5353";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_they_are_written() {
        for text in ["192.0.2.53", "192.0.2.53:5353", "2001:db8::53", "[2001:db8::53]:5353"] {
            assert_eq!(text.parse::<DnsServer>().unwrap().to_string(), text);
        }
        assert_eq!("192.0.2.53:53".parse(), "192.0.2.53".parse::<DnsServer>());
        for bad in
            ["", "dns", "192.0.2.53:", "192.0.2.53:0", "192.0.2.53:70000", "[2001:db8::53]", "fe80::1%eth0"]
        {
            assert_eq!(bad.parse::<DnsServer>(), Err(NoDnsServer), "{bad}");
        }
    }
}

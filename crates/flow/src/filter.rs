//! Filters: which records to show.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{End, Record, Verdict};

/// A filter. All conditions must hold; of several values of one condition, any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// The source.
    pub from: Vec<Peer>,
    /// The destination.
    pub to: Vec<Peer>,
    /// The source or the destination.
    pub either: Vec<Peer>,
    /// The source's or the destination's namespace.
    pub namespaces: Vec<Peer>,
    /// The verdict.
    pub verdicts: Vec<Verdict>,
    /// A policy that isolates, or whose rule decided.
    pub policies: Vec<PolicyName>,
    /// The destination port.
    pub ports: Vec<Port>,
    /// Not before this time.
    pub since: Option<Timestamp>,
}

impl Filter {
    /// Returns whether a record meets all conditions.
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        fn any<T>(of: &[T], matches: impl Fn(&T) -> bool) -> bool {
            of.is_empty() || of.iter().any(matches)
        }
        let either = |peer: &Peer| peer.matches(&record.source) || peer.matches(&record.destination);
        any(&self.from, |peer| peer.matches(&record.source))
            && any(&self.to, |peer| peer.matches(&record.destination))
            && any(&self.either, either)
            && any(&self.namespaces, either)
            && any(&self.verdicts, |verdict| *verdict == record.verdict)
            && any(&self.policies, |policy| policy.matches(record))
            && any(&self.ports, |port| port.matches(record))
            && self.since.is_none_or(|since| record.time >= since)
    }
}

/// Why a condition can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not a peer.
    #[error("{0:?} is not a pod (NAMESPACE/NAME), a namespace (NAMESPACE/), an address or a CIDR")]
    Peer(String),
    /// Not a policy.
    #[error("{0:?} is not the name of a policy: NAME or NAMESPACE/NAME")]
    Policy(String),
    /// Not a port.
    #[error("{0:?} is not a port, such as 443 or 53/UDP")]
    Port(String),
}

/// An end of connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Peer {
    /// A pod, or the pods of a workload of that name.
    Named {
        /// The namespace.
        namespace: String,
        /// The name of the pod or of the workload.
        name: String,
    },
    /// All pods of a namespace.
    Namespace(String),
    /// All addresses of a network.
    Network(IpNet),
}

impl Peer {
    fn matches(&self, end: &End) -> bool {
        match self {
            Self::Network(network) => network.contains(&end.address),
            Self::Namespace(namespace) => {
                end.pod.as_ref().is_some_and(|pod| pod.namespace.as_ref() == Some(namespace))
            }
            Self::Named { namespace, name } => end.pod.as_ref().is_some_and(|pod| {
                let of_workload = end.workload.as_ref().is_some_and(|workload| workload.name == *name);
                pod.namespace.as_ref() == Some(namespace) && (pod.name == *name || of_workload)
            }),
        }
    }
}

impl FromStr for Peer {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(address.into()));
        }
        if let Ok(network) = text.parse() {
            return Ok(Self::Network(network));
        }
        match text.split_once('/') {
            Some((namespace, "")) if is_namespace(namespace) => Ok(Self::Namespace(namespace.to_owned())),
            Some((namespace, name)) if is_namespace(namespace) && is_name(name) => {
                Ok(Self::Named { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(FilterError::Peer(text.to_owned())),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named { namespace, name } => write!(f, "{namespace}/{name}"),
            Self::Namespace(namespace) => write!(f, "{namespace}/"),
            Self::Network(network) => write!(f, "{network}"),
        }
    }
}

/// The name of a policy, with or without its namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PolicyName {
    namespace: Option<String>,
    name: String,
}

impl PolicyName {
    fn matches(&self, record: &Record) -> bool {
        let decided = record.rule.iter().filter(|rule| rule.decided).map(|rule| &rule.policy);
        record.policies.iter().chain(decided).any(|policy| {
            policy.name == self.name && (self.namespace.is_none() || self.namespace == policy.namespace)
        })
    }
}

impl FromStr for PolicyName {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        if !is_name(name) || namespace.is_some_and(|namespace| !is_namespace(namespace)) {
            return Err(FilterError::Policy(text.to_owned()));
        }
        Ok(Self { namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A destination port, of one protocol or of any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Port {
    port: u16,
    protocol: Option<String>,
}

impl Port {
    fn matches(&self, record: &Record) -> bool {
        record.port == Some(self.port)
            && self.protocol.as_ref().is_none_or(|protocol| *protocol == record.protocol)
    }
}

impl FromStr for Port {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let wrong = || FilterError::Port(text.to_owned());
        let (port, protocol) = match text.split_once('/') {
            Some((port, protocol)) => (port, Some(protocol.to_ascii_uppercase())),
            None => (text, None),
        };
        if protocol.as_deref().is_some_and(|protocol| !matches!(protocol, "TCP" | "UDP" | "SCTP")) {
            return Err(wrong());
        }
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        Ok(Self { port, protocol })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.protocol {
            Some(protocol) => write!(f, "{}/{protocol}", self.port),
            None => write!(f, "{}", self.port),
        }
    }
}

/// Whether a text may be part of an object's name. Names that the API server would not accept come from files.
fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(['/', ' '])
}

/// Namespaces have neither dots nor colons, so that a mistyped network is none.
fn is_namespace(text: &str) -> bool {
    is_name(text) && !text.contains(['.', ':'])
}

/// The types of conditions are text in JSON.
macro_rules! as_text {
    ($($name:ty),*) => {$(
        impl TryFrom<String> for $name {
            type Error = FilterError;

            fn try_from(text: String) -> Result<Self, FilterError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}
as_text!(Peer, PolicyName, Port);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::example;

    fn matches(change: impl FnOnce(&mut Filter)) -> bool {
        let mut filter = Filter::default();
        change(&mut filter);
        let text = serde_json::to_string(&filter).unwrap();
        assert_eq!(serde_json::from_str::<Filter>(&text).unwrap(), filter);
        filter.matches(&example())
    }

    fn peers(texts: &[&str]) -> Vec<Peer> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn peers_are_pods_workloads_namespaces_and_networks() {
        assert!(matches(|_| {}));
        for (source, matched) in [
            ("shop/web-0", true),
            ("shop/web", true),
            ("shop/", true),
            ("10.0.0.2", true),
            ("10.0.0.0/24", true),
            ("shop/db", false),
            ("other/web-0", false),
            ("10.0.0.1", false),
            ("fd00::/8", false),
        ] {
            assert_eq!(matches(|filter| filter.from = peers(&[source])), matched, "{source}");
            assert_eq!(matches(|filter| filter.from = peers(&["x/y", source])), matched, "{source}");
        }
        assert!(matches(|filter| filter.either = peers(&["shop/db"])));
        assert!(matches(|filter| filter.namespaces = peers(&["x/", "shop/"])));
        let both = |namespace: &str, pod: &str| {
            matches(|filter| (filter.namespaces, filter.either) = (peers(&[namespace]), peers(&[pod])))
        };
        assert!(both("shop/", "shop/db") && !both("shop/", "shop/x") && !both("x/", "shop/db"));
        assert!(!matches(|filter| filter.to = peers(&["shop/web"])));
    }

    #[test]
    fn policies_ports_and_times_are_conditions() {
        let policy = |text: &str| matches(|filter| filter.policies = vec![text.parse().unwrap()]);
        assert!(policy("closed") && policy("shop/closed") && !policy("other/closed") && !policy("open"));
        let port = |text: &str| matches(|filter| filter.ports = vec![text.parse().unwrap()]);
        assert!(port("5432") && port("5432/tcp") && !port("5432/UDP") && !port("80"));
        let since = |text: &str| matches(|filter| filter.since = Some(text.parse().unwrap()));
        assert!(since("2026-11-28T10:00:00Z") && !since("2026-11-28T10:00:01Z"));
        assert!(matches(|filter| filter.verdicts = vec![Verdict::Dropped]));
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for text in ["", "web", "/", "/web", "a/b/c", "10.0.0.0/33", "a b/c"] {
            assert!(text.parse::<Peer>().is_err(), "{text}");
        }
        for text in ["", "0", "65536", "53/", "53/ICMP", "x"] {
            assert!(text.parse::<Port>().is_err(), "{text}");
        }
        for text in ["", "/", "a/", "a/b/c"] {
            assert!(text.parse::<PolicyName>().is_err(), "{text}");
        }
    }
}

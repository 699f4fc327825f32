//! One record.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What happened to packets of one connection, or to connections: source, destination, verdict, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The record's number on its node. Later records have greater ones.
    pub id: u64,
    /// When the last of the packets was seen, by the node's clock.
    pub time: Timestamp,
    /// The node that saw them.
    pub node: String,
    /// What happened to them.
    pub verdict: Verdict,
    /// Whether the policies of the source (egress) or of the destination (ingress) decided.
    pub direction: Direction,
    /// The sender.
    pub source: End,
    /// The receiver, after a Service's address was translated.
    pub destination: End,
    /// What the connection was opened to, if that was translated. Only of forwarded connections: a denied packet does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_to: Option<OpenedTo>,
    /// The protocol, such as `TCP`.
    pub protocol: String,
    /// The destination port. `None` for protocols without ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The policies that isolate the pod, or the one whose rule decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Object>,
    /// The rule that decided, or else the one that came closest to allow the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
    /// The reason as text, in the words of `palisade explain`.
    pub reason: Vec<String>,
    /// The generation of the kernel's table when the record was made.
    pub generation: u64,
    /// How many packets the record stands for; of forwarded connections, how many connections.
    pub count: u64,
    /// That these connections have ended, with what was counted. `None` if they have begun, and of packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

/// An address that was translated to that of the destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpenedTo {
    /// The address.
    pub address: IpAddr,
    /// The port. `None` for protocols without ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The Service that has the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Object>,
}

/// What was counted of connections until they ended, in both directions together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Packets. `None` unless the node counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
    /// Bytes of the packets, with IP headers. `None` unless the node counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How long the longest of them existed, with the time until connection tracking gave it up. `None` unless the node notes times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<u64>,
}

/// What happened to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is the first packet of a connection, and passed.
    Forwarded,
    /// A policy denied it.
    Dropped,
    /// It passed, and a policy in audit mode would have denied it.
    Audited,
}

/// The policies that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Those of the destination.
    Ingress,
    /// Those of the source.
    Egress,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The address.
    pub address: IpAddr,
    /// The pod that has the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Object>,
    /// The pod's workload. The namespace is the pod's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// The pod's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The node that has the address, if no pod has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The host names for which DNS servers answered the address, of those that rules have: the first ones, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

/// What a pod is part of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// The kind in the API's spelling.
    pub kind: String,
    /// The name.
    pub name: String,
}

/// An object of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Object {
    /// The kind in the API's spelling.
    pub kind: String,
    /// The namespace. `None` for objects without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The policy.
    pub policy: Object,
    /// The field, such as `ingress[0]`.
    pub field: String,
    /// The rule's name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it is written: file and line, or object and field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Whether the rule decided. Else it came closest.
    pub decided: bool,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forwarded => "forwarded",
            Self::Dropped => "dropped",
            Self::Audited => "audited",
        })
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// `shop/web`, or `web` for an object without a namespace.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The Service, else the address, with the port.
impl fmt::Display for OpenedTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.service, self.address, self.port) {
            (Some(service), _, Some(port)) => write!(f, "service {service}:{port}"),
            (Some(service), _, None) => write!(f, "service {service}"),
            (None, address, Some(port)) => write!(f, "{}", std::net::SocketAddr::new(address, port)),
            (None, address, None) => write!(f, "{address}"),
        }
    }
}

/// The pod, else the node, else the name with the address, else the address.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.pod, &self.node) {
            (Some(pod), _) => write!(f, "{pod}"),
            (None, Some(node)) => write!(f, "node {node}"),
            (None, None) => match self.names.first() {
                Some(name) => write!(f, "{name} ({})", self.address),
                None => write!(f, "{}", self.address),
            },
        }
    }
}

impl Record {
    /// Formats the protocol and the port: `TCP 80`, `ICMP`.
    #[must_use]
    pub fn port_text(&self) -> String {
        self.port.map_or_else(|| self.protocol.clone(), |port| format!("{} {port}", self.protocol))
    }
}

#[cfg(test)]
pub(crate) fn example() -> Record {
    let pod = |name: &str| Object {
        kind: "Pod".to_owned(),
        namespace: Some("shop".to_owned()),
        name: name.to_owned(),
    };
    let policy = Object { kind: "NetworkPolicy".to_owned(), ..pod("closed") };
    Record {
        id: 7,
        time: "2026-11-28T10:00:00.25Z".parse().unwrap(),
        node: "n1".to_owned(),
        verdict: Verdict::Dropped,
        direction: Direction::Ingress,
        source: End {
            address: [10, 0, 0, 2].into(),
            pod: Some(pod("web-0")),
            workload: Some(Workload { kind: "StatefulSet".to_owned(), name: "web".to_owned() }),
            labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
            node: None,
            names: Vec::new(),
        },
        destination: End {
            address: [10, 0, 0, 1].into(),
            pod: Some(pod("db")),
            workload: None,
            labels: BTreeMap::new(),
            node: None,
            names: Vec::new(),
        },
        opened_to: None,
        protocol: "TCP".to_owned(),
        port: Some(5432),
        policies: vec![policy.clone()],
        rule: Some(Rule {
            policy,
            field: "ingress[0]".to_owned(),
            name: None,
            at: Some("policy.yaml:9".to_owned()),
            decided: false,
        }),
        reason: vec!["isolated by NetworkPolicy shop/closed".to_owned()],
        generation: 12,
        count: 3,
        ended: None,
    }
}

/// A connection to a Service that has ended.
#[cfg(test)]
pub(crate) fn forwarded() -> Record {
    Record {
        verdict: Verdict::Forwarded,
        opened_to: Some(OpenedTo {
            address: [10, 96, 0, 9].into(),
            port: Some(80),
            service: Some(Object {
                kind: "Service".to_owned(),
                namespace: Some("shop".to_owned()),
                name: "db".to_owned(),
            }),
        }),
        ended: Some(Ended { packets: Some(9), bytes: Some(1200), milliseconds: None }),
        ..example()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_of_json_and_read_back() {
        let line = serde_json::to_string(&example()).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), example());
        assert!(
            line.starts_with(r#"{"id":7,"time":"2026-11-28T10:00:00.25Z","node":"n1","verdict":"dropped""#),
            "{line}"
        );
    }

    #[test]
    fn a_forwarded_connection_has_what_it_was_opened_to_and_what_was_counted() {
        let line = serde_json::to_string(&forwarded()).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), forwarded());
        assert!(line.contains(r#""verdict":"forwarded""#), "{line}");
        assert!(line.contains(r#""ended":{"packets":9,"bytes":1200}"#), "{line}");
        let opened_to = forwarded().opened_to.unwrap();
        assert_eq!(opened_to.to_string(), "service shop/db:80");
        let unnamed = OpenedTo { service: None, ..opened_to };
        assert_eq!(unnamed.to_string(), "10.96.0.9:80");
        assert_eq!(OpenedTo { port: None, ..unnamed }.to_string(), "10.96.0.9");
    }

    #[test]
    fn ends_are_named_by_pod_node_or_address() {
        let record = example();
        assert_eq!((record.source.to_string(), record.port_text()), ("shop/web-0".into(), "TCP 5432".into()));
        let node = End { pod: None, node: Some("n2".to_owned()), ..record.source.clone() };
        let outside = End { pod: None, ..record.source };
        assert_eq!((node.to_string(), outside.to_string()), ("node n2".into(), "10.0.0.2".into()));
        let named = End { names: vec!["api.example.com".into(), "cdn.example.com".into()], ..outside };
        assert_eq!(named.to_string(), "api.example.com (10.0.0.2)");
    }
}

//! Answers in the form that programs read, for JSON.
//!
//! Versioned schemas consist of these types. Renderers add other data, such as files and lines.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use palisade_policy::{Family, IpRange, PortSet, Traffic};
use serde::Serialize;

use crate::{
    connections::Edge,
    end::{ConnectionEnd, NodeAddresses, WorkloadPods},
    families::Families,
};

/// A range of ports of one protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ports {
    /// `TCP`, `UDP` or `SCTP`; `other` is every other IP protocol.
    pub protocol: &'static str,
    /// The first port; absent for `other`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<u16>,
    /// The last port, inclusive; absent for `other`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u16>,
}

/// Converts traffic to ranges, by protocol. Ranges are sorted, disjoint and not adjacent.
#[must_use]
pub fn ports(traffic: &Traffic) -> Vec<Ports> {
    let of = |protocol, set: &PortSet| {
        let range = move |&(first, last)| Ports { protocol, first: Some(first), last: Some(last) };
        set.ranges().iter().map(range).collect::<Vec<_>>()
    };
    let mut out = of("TCP", &traffic.tcp);
    out.extend(of("UDP", &traffic.udp));
    out.extend(of("SCTP", &traffic.sctp));
    if traffic.other {
        out.push(Ports { protocol: "other", first: None, last: None });
    }
    out
}

/// Returns the shortest list of CIDRs with exactly these addresses, in order.
#[must_use]
pub fn cidrs(ranges: &[IpRange]) -> Vec<IpNet> {
    let nets = |range: &IpRange| -> Vec<IpNet> {
        match (range.first, range.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect()
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect()
            }
            // A range has one family.
            _ => Vec::new(),
        }
    };
    ranges.iter().flat_map(nets).collect()
}

/// An end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum End {
    /// A workload or some of its pods.
    Workload(Workload),
    /// A pod.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The kind of its workload.
        workload_kind: String,
        /// The name of its workload.
        workload_name: String,
    },
    /// All pods of a namespace.
    Namespace {
        /// Its name.
        name: String,
    },
    /// Equivalent pods.
    Class {
        /// The pods, by workload.
        members: Vec<Workload>,
    },
    /// The node that a pod runs on.
    OwnNode {
        /// All such nodes.
        nodes: Vec<Node>,
    },
    /// Nodes.
    Nodes {
        /// The nodes.
        nodes: Vec<Node>,
    },
    /// External addresses.
    External {
        /// `IPv4` or `IPv6`.
        family: String,
        /// The shortest list of CIDRs with these addresses.
        cidrs: Vec<String>,
        /// The same addresses as ranges.
        ranges: Vec<Range>,
    },
    /// The ingress controller.
    IngressController {
        /// Its pods, if they are known.
        pods: Vec<Workload>,
    },
}

/// Pods of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The names of the pods, if they are not all running pods of the workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<Vec<String>>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// A range of addresses, inclusive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The first address.
    pub first: IpAddr,
    /// The last address.
    pub last: IpAddr,
}

/// The connections that one end may open to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// The client.
    pub from: End,
    /// The server.
    pub to: End,
    /// `IPv4`, `IPv6`.
    pub families: Vec<&'static str>,
    /// The protocols and destination ports.
    pub ports: Vec<Ports>,
    /// Whether every pair of addresses of the ends may use all of it.
    pub exact: bool,
}

impl Connection {
    /// Converts an edge between these ends.
    #[must_use]
    pub fn new(from: &ConnectionEnd, to: &ConnectionEnd, edge: &Edge<'_>) -> Self {
        Self {
            from: from.into(),
            to: to.into(),
            families: families(edge.families),
            ports: ports(edge.traffic),
            exact: edge.exact,
        }
    }
}

/// Returns the names of families.
#[must_use]
pub fn families(families: Families) -> Vec<&'static str> {
    let names = [(Family::V4, "IPv4"), (Family::V6, "IPv6")];
    names.into_iter().filter(|(family, _)| families.contains(*family)).map(|(_, name)| name).collect()
}

impl From<&WorkloadPods> for Workload {
    fn from(w: &WorkloadPods) -> Self {
        let pods = || w.pods.iter().map(ToString::to_string).collect();
        Self {
            namespace: w.namespace.to_string(),
            kind: w.kind.to_string(),
            name: w.name.to_string(),
            pods: (!w.whole).then(pods),
        }
    }
}

fn nodes(nodes: &[NodeAddresses]) -> Vec<Node> {
    nodes.iter().map(|n| Node { name: n.name.to_string(), addresses: n.addresses.clone() }).collect()
}

impl From<&ConnectionEnd> for End {
    fn from(end: &ConnectionEnd) -> Self {
        match end {
            ConnectionEnd::Workload(w) => Self::Workload(w.into()),
            ConnectionEnd::Pod { key, workload_kind, workload_name } => Self::Pod {
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                workload_kind: workload_kind.to_string(),
                workload_name: workload_name.to_string(),
            },
            ConnectionEnd::Namespace(name) => Self::Namespace { name: name.to_string() },
            ConnectionEnd::Class(all) => Self::Class { members: all.iter().map(Into::into).collect() },
            ConnectionEnd::OwnNode(all) => Self::OwnNode { nodes: nodes(all) },
            ConnectionEnd::Nodes(all) => Self::Nodes { nodes: nodes(all) },
            ConnectionEnd::External(e) => Self::External {
                family: e.family.to_string(),
                cidrs: cidrs(&e.ranges).iter().map(ToString::to_string).collect(),
                ranges: e.ranges.iter().map(|r| Range { first: r.first, last: r.last }).collect(),
            },
            ConnectionEnd::IngressController(pods) => {
                Self::IngressController { pods: pods.iter().map(Into::into).collect() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::Protocol;
    use serde_json::json;

    use super::*;
    use crate::end::ExternalRanges;

    #[test]
    fn shapes_serialize_as_structures() {
        let range = |a: &str, b: &str| IpRange { first: a.parse().unwrap(), last: b.parse().unwrap() };
        let external = ConnectionEnd::External(ExternalRanges {
            family: Family::V4,
            ranges: vec![range("0.0.0.0", "9.255.255.255"), range("11.0.0.0", "255.255.255.255")],
            spanned: Vec::new(),
        });
        let End::External { cidrs, .. } = End::from(&external) else { panic!("{external}") };
        let expected = ["0.0.0.0/5", "8.0.0.0/7", "11.0.0.0/8", "12.0.0.0/6", "16.0.0.0/4", "32.0.0.0/3"];
        assert_eq!(cidrs[..6], expected);
        let web = ConnectionEnd::Workload(WorkloadPods {
            namespace: "shop".into(),
            name: "web".into(),
            kind: "Deployment".into(),
            pods: vec!["web-0".into()],
            whole: false,
        });
        let traffic = Traffic::of(Protocol::Tcp, PortSet::range(80, 81))
            .union(&Traffic::of(Protocol::Other(1), PortSet::none()));
        let v4 = Families { v4: true, v6: false };
        let edge = Edge { from: 0, to: 0, families: v4, traffic: &traffic, exact: true, through: &[] };
        let shape = serde_json::to_value(Connection::new(&web, &web, &edge)).unwrap();
        let end = json!({"type": "workload", "namespace": "shop", "kind": "Deployment", "name": "web", "pods": ["web-0"]});
        assert_eq!(
            shape,
            json!({
                "from": end,
                "to": end,
                "families": ["IPv4"],
                "ports": [{"protocol": "TCP", "first": 80, "last": 81}, {"protocol": "other"}],
                "exact": true,
            })
        );
    }

    #[test]
    fn the_whole_space_is_one_cidr() {
        let space = |a: &str, b: &str| IpRange { first: a.parse().unwrap(), last: b.parse().unwrap() };
        let all =
            [space("0.0.0.0", "255.255.255.255"), space("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")];
        assert_eq!(cidrs(&all).iter().map(ToString::to_string).collect::<Vec<_>>(), ["0.0.0.0/0", "::/0"]);
    }
}

//! Policies in the normalized form to which all policy APIs are decoded.
//!
//! Defaulting (SEMANTICS A.2) and validation (A.3) are done before a value of these types exists.

use std::{fmt, sync::Arc};

use ipnet::IpNet;

use crate::{
    Direction, DomainPattern, IpRange, Labels, Mode, Name, Pod, PortSet, Protocol, Selector, Traffic,
    address::without,
};

/// The place in the user's files, or in an object of the cluster, where something is written. Lines and columns count
/// from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file as the user named it; `-` for standard input. For an object of a cluster: kubectl's name of the object
    /// and the field, such as `networkpolicy/shop/web spec.ingress[0]`, with line and column 0.
    pub file: Name,
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl Origin {
    /// Returns the origin of a field of an object of a cluster. `object` is kubectl's name of it, such as
    /// `networkpolicy/shop/web`; `field` is empty for the object itself.
    #[must_use]
    pub fn of_object(object: &str, field: &str) -> Self {
        let file = if field.is_empty() { object.into() } else { format!("{object} {field}").into() };
        Self { file, line: 0, column: 0 }
    }

    /// Returns the line; `None` if there is no file.
    #[must_use]
    pub fn line(&self) -> Option<u32> {
        Some(self.line).filter(|line| *line > 0)
    }

    /// Formats the place within its object or file: `line 15`, `spec.ingress[0]`.
    #[must_use]
    pub fn within(&self) -> String {
        match self.line() {
            Some(line) => format!("line {line}"),
            None => self.file.split_once(' ').map_or(&*self.file, |(_, field)| field).to_owned(),
        }
    }
}

impl fmt::Display for Origin {
    /// Formats `file:line`, or the file alone if there are no lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line() {
            Some(line) => write!(f, "{}:{line}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

/// The tiers, in order of evaluation (SEMANTICS D1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Cluster-wide policies before NetworkPolicy, ordered by priority.
    Admin,
    /// NetworkPolicy.
    Developer,
    /// Cluster-wide policies after NetworkPolicy, ordered by priority.
    Baseline,
}

/// Identity of a policy: kind, namespace (empty for cluster-scoped kinds) and name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// The kind in the API's spelling, such as `NetworkPolicy`.
    pub kind: Name,
    /// The namespace; empty for cluster-scoped kinds.
    pub namespace: Name,
    /// The name.
    pub name: Name,
}

impl PolicyKey {
    /// Makes the key of a NetworkPolicy.
    pub fn network_policy(namespace: impl Into<Name>, name: impl Into<Name>) -> Self {
        Self { kind: "NetworkPolicy".into(), namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PolicyKey {
    /// Formats `NetworkPolicy shop/allow-web`, or `ClusterNetworkPolicy deny-all`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

impl fmt::Debug for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The identity.
    pub key: PolicyKey,
    /// The tier. In [`Tier::Developer`] every rule's action is [`Action::Accept`].
    pub tier: Tier,
    /// The priority in a cluster-wide tier, lower first; 0 for NetworkPolicy.
    pub priority: i32,
    /// The pods to which it applies. For NetworkPolicy the namespaces are [`NamespaceMatch::Named`] with its own
    /// namespace.
    pub subject: PodMatch,
    /// The ingress rules. `None`: the policy doesn't apply to ingress. For NetworkPolicy, `Some` means that it
    /// isolates.
    pub ingress: Option<Vec<Rule>>,
    /// The egress rules, likewise.
    pub egress: Option<Vec<Rule>>,
    /// The mode that its annotation sets. [`crate::Cluster::mode_of`] has the one in effect.
    pub mode: Option<Mode>,
    /// The origin of the object, if it is known.
    pub origin: Option<Origin>,
}

impl Policy {
    /// Orders the policies of a cluster-wide tier: by priority, then ClusterNetworkPolicy before its predecessors, then
    /// by name (SEMANTICS G-11, G-14). The order is total, so ties are resolved deterministically.
    #[must_use]
    pub fn precedence(a: &Self, b: &Self) -> std::cmp::Ordering {
        let rank = |p: &Self| (p.priority, &*p.key.kind != "ClusterNetworkPolicy");
        rank(a).cmp(&rank(b)).then_with(|| a.key.name.cmp(&b.key.name)).then_with(|| a.key.cmp(&b.key))
    }

    /// Returns the rules of one direction; `None` if the policy doesn't apply to it.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// Selects namespaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceMatch {
    /// The namespace with this name, whether it exists or not (SEMANTICS A17, G-22).
    Named(Name),
    /// Every existing namespace with matching labels.
    Selected(Selector),
}

/// Selects the pods with matching labels in some namespaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodMatch {
    /// The namespaces.
    pub namespaces: NamespaceMatch,
    /// The pods in these namespaces.
    pub pods: Selector,
}

impl PodMatch {
    /// Returns whether it selects a pod with `labels` in the namespace `namespace`. `namespace_labels` are the labels
    /// of the namespace, `None` if it doesn't exist (G-22).
    #[must_use]
    pub fn matches(&self, namespace: &str, namespace_labels: Option<&Labels>, labels: &Labels) -> bool {
        let namespace_matches = match &self.namespaces {
            NamespaceMatch::Named(name) => &**name == namespace,
            NamespaceMatch::Selected(selector) => namespace_labels.is_some_and(|l| selector.matches(l)),
        };
        namespace_matches && self.pods.matches(labels)
    }
}

/// The action of a rule on a connection that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Allow the connection in this direction.
    Accept,
    /// Drop it.
    Deny,
    /// Leave the decision to the next tier.
    Pass,
}

/// A rule. It matches a connection if a peer and a port match (SEMANTICS A24).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The name, in the APIs whose rules have names. It doesn't affect the meaning.
    pub name: Option<Name>,
    /// The action.
    pub action: Action,
    /// The peers, any of which must match the other end. `None` (absent or empty `from`/`to`): every address, inside or
    /// outside the cluster.
    pub peers: Option<Vec<PeerEntry>>,
    /// The destination ports, any of which must match. `None`: every protocol and port.
    pub ports: Option<Vec<PortEntry>>,
    /// The origin of the rule.
    pub origin: Option<Origin>,
}

/// A peer and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerEntry {
    /// The peer.
    pub peer: Peer,
    /// The origin.
    pub origin: Option<Origin>,
}

/// A port match and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortEntry {
    /// The ports.
    pub port: PortMatch,
    /// The origin.
    pub origin: Option<Origin>,
}

/// A peer of a rule: matches the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Running pods (SEMANTICS A.6).
    Pods(PodMatch),
    /// Addresses in the CIDR and in none of its exceptions, without regard to their owner (SEMANTICS A.7). Host bits
    /// are masked.
    Block(IpBlock),
    /// The addresses of nodes with matching labels, and so their host-network pods (SEMANTICS C14).
    Nodes(Selector),
    /// Addresses that were learned for names that the pattern matches, without regard to their owner (SEMANTICS C.6).
    /// None as long as nothing was learned.
    DomainName(DomainPattern),
}

/// A CIDR with exceptions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpBlock {
    /// The range.
    pub cidr: IpNet,
    /// The exceptions; sorted.
    pub except: Arc<[IpNet]>,
}

impl IpBlock {
    /// Returns the addresses of the block without its exceptions, which may overlap each other (SEMANTICS A.3.9): sorted,
    /// disjoint, not adjacent.
    #[must_use]
    pub fn ranges(&self) -> Vec<IpRange> {
        without(IpRange::of_net(&self.cidr), self.except.iter().map(IpRange::of_net))
    }

    /// Returns whether the block contains `address`.
    #[must_use]
    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        self.cidr.contains(&address) && !self.except.iter().any(|e| e.contains(&address))
    }
}

/// Destination ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortMatch {
    /// Ports `first` to `last` inclusive of a protocol. "Every port" is 0 to 65535.
    Numbers {
        /// TCP, UDP or SCTP.
        protocol: Protocol,
        /// The first port.
        first: u16,
        /// The last port.
        last: u16,
    },
    /// The container ports of the destination pod with this name (SEMANTICS A27). Never matches if the destination
    /// isn't a pod.
    Named {
        /// The protocol that the container port must have; `None`: any (ClusterNetworkPolicy, C15).
        protocol: Option<Protocol>,
        /// The container port name.
        name: Name,
    },
}

impl PortMatch {
    /// Returns the traffic that it matches. A name is resolved by the pod at the destination, if there is one
    /// (SEMANTICS A27).
    #[must_use]
    pub fn traffic(&self, destination: Option<&Pod>) -> Traffic {
        match self {
            Self::Numbers { protocol, first, last } => Traffic::of(*protocol, PortSet::range(*first, *last)),
            Self::Named { protocol, name } => {
                let ports = destination.into_iter().flat_map(|pod| pod.named_ports(name, *protocol));
                ports.fold(Traffic::none(), |sum, (protocol, port)| {
                    sum.union(&Traffic::of(protocol, PortSet::range(port, port)))
                })
            }
        }
    }
}

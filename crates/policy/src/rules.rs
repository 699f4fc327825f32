//! Policies in the normalised form into which all policy APIs are read.
//!
//! Defaulting (SEMANTICS A.2) and validation (A.3) have happened before a value of these types exists.

use std::{fmt, sync::Arc};

use ipnet::IpNet;

use crate::{Direction, IpRange, Labels, Name, Protocol, Selector, address::without};

/// Where something stands in the user's files. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file as the user named it; `-` for standard input. For an object of a live cluster, what kubectl calls it and
    /// the field, as in `networkpolicy/shop/web spec.ingress[0]`, with line and column 0.
    pub file: Name,
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl Origin {
    /// A place in an object of a live cluster: what kubectl calls the object, such as `networkpolicy/shop/web`, and the
    /// field, empty for the object itself.
    #[must_use]
    pub fn live(object: &str, field: &str) -> Self {
        let file = if field.is_empty() { object.into() } else { format!("{object} {field}").into() };
        Self { file, line: 0, column: 0 }
    }

    /// The line; `None` where there is no file.
    #[must_use]
    pub fn line(&self) -> Option<u32> {
        Some(self.line).filter(|line| *line > 0)
    }

    /// Where in its object or file: `line 15`, `spec.ingress[0]`.
    #[must_use]
    pub fn within(&self) -> String {
        match self.line() {
            Some(line) => format!("line {line}"),
            None => self.file.split_once(' ').map_or(&*self.file, |(_, field)| field).to_owned(),
        }
    }
}

impl fmt::Display for Origin {
    /// `file:line`, or the file alone where there are no lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line() {
            Some(line) => write!(f, "{}:{line}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

/// The tiers, in the order in which they are asked (SEMANTICS D1).
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
    /// The key of a NetworkPolicy.
    pub fn network_policy(namespace: impl Into<Name>, name: impl Into<Name>) -> Self {
        Self { kind: "NetworkPolicy".into(), namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PolicyKey {
    /// `NetworkPolicy shop/allow-web`, or `ClusterNetworkPolicy deny-all`.
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

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its identity.
    pub key: PolicyKey,
    /// The tier that it belongs to. In [`Tier::Developer`] every rule's action is [`Action::Accept`].
    pub tier: Tier,
    /// Precedence in a cluster-wide tier, lower first; 0 for NetworkPolicy.
    pub priority: i32,
    /// The pods on which it acts: for NetworkPolicy [`NamespaceMatch::Named`] with its own namespace.
    pub subject: PodMatch,
    /// The ingress rules. `None`: the policy doesn't touch ingress. NetworkPolicy: `Some` means it isolates.
    pub ingress: Option<Vec<Rule>>,
    /// The egress rules, likewise.
    pub egress: Option<Vec<Rule>>,
    /// Where the object begins, if it came from a file.
    pub origin: Option<Origin>,
}

impl Policy {
    /// The order in which the policies of a cluster-wide tier are asked: by priority, then ClusterNetworkPolicy
    /// before its predecessors, then by name (SEMANTICS G-11, G-14). Total, so that ties never depend on chance.
    #[must_use]
    pub fn precedence(a: &Self, b: &Self) -> std::cmp::Ordering {
        let rank = |p: &Self| (p.priority, &*p.key.kind != "ClusterNetworkPolicy");
        rank(a).cmp(&rank(b)).then_with(|| a.key.name.cmp(&b.key.name)).then_with(|| a.key.cmp(&b.key))
    }

    /// The rules of one direction; `None` if the policy doesn't touch it.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// A choice of namespaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceMatch {
    /// The namespace with this name, whether it is known or not (SEMANTICS A17, G-22).
    Named(Name),
    /// Every known namespace with such labels.
    Selected(Selector),
}

/// A choice of pods: those with such labels in those namespaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodMatch {
    /// The namespaces.
    pub namespaces: NamespaceMatch,
    /// The pods in them.
    pub pods: Selector,
}

impl PodMatch {
    /// Whether it chooses a pod with `labels` in the namespace `namespace`, whose labels are `namespace_labels`, or
    /// `None` if no such namespace is known (G-22).
    #[must_use]
    pub fn matches(&self, namespace: &str, namespace_labels: Option<&Labels>, labels: &Labels) -> bool {
        let namespace_matches = match &self.namespaces {
            NamespaceMatch::Named(name) => &**name == namespace,
            NamespaceMatch::Selected(selector) => namespace_labels.is_some_and(|l| selector.matches(l)),
        };
        namespace_matches && self.pods.matches(labels)
    }
}

/// What a rule does with a connection that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Accept it in this direction.
    Accept,
    /// Drop it.
    Deny,
    /// Leave it to the next tier.
    Pass,
}

/// One rule. It matches a connection if some peer matches and some port matches (SEMANTICS A24).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What its author calls it, in the APIs that have names of rules. Means nothing.
    pub name: Option<Name>,
    /// What it does.
    pub action: Action,
    /// The other end: any of these. `None` (absent or empty `from`/`to`): every address, inside or outside.
    pub peers: Option<Vec<PeerEntry>>,
    /// The destination ports: any of these. `None`: every protocol and port.
    pub ports: Option<Vec<PortEntry>>,
    /// Where it stands.
    pub origin: Option<Origin>,
}

/// A peer and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerEntry {
    /// The peer.
    pub peer: Peer,
    /// Where it stands.
    pub origin: Option<Origin>,
}

/// A port match and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortEntry {
    /// The ports.
    pub port: PortMatch,
    /// Where it stands.
    pub origin: Option<Origin>,
}

/// The other end of a connection, as a rule names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Live pods (SEMANTICS A.6).
    Pods(PodMatch),
    /// Addresses in `cidr` and in none of `except`, whoever owns them (SEMANTICS A.7). Host bits are masked.
    Block(IpBlock),
    /// The addresses of nodes with such labels, and with them their host-network pods (SEMANTICS C14).
    Nodes(Selector),
}

/// A CIDR with exceptions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpBlock {
    /// The range.
    pub cidr: IpNet,
    /// The ranges taken out of it; sorted.
    pub except: Arc<[IpNet]>,
}

impl IpBlock {
    /// Returns the addresses of the block without its exceptions, which may overlap each other (SEMANTICS A.3.9): sorted,
    /// disjoint, not adjacent.
    #[must_use]
    pub fn ranges(&self) -> Vec<IpRange> {
        without(IpRange::of_net(&self.cidr), self.except.iter().map(IpRange::of_net))
    }

    /// Whether the block holds `address`.
    #[must_use]
    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        self.cidr.contains(&address) && !self.except.iter().any(|e| e.contains(&address))
    }
}

/// The destination ports that a rule names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortMatch {
    /// `first` to `last` of `protocol`, both included. "Every port" is 0 to 65535.
    Numbers {
        /// TCP, UDP or SCTP.
        protocol: Protocol,
        /// The first port.
        first: u16,
        /// The last port.
        last: u16,
    },
    /// What the destination pod calls by this name (SEMANTICS A27). Never matches where the destination is no pod.
    Named {
        /// The protocol that the container port must have; `None`: any (ClusterNetworkPolicy, C15).
        protocol: Option<Protocol>,
        /// The container port name.
        name: Name,
    },
}

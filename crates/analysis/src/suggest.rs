//! Policies that allow the connections that were seen, and as little else as selectors can tell apart.
//!
//! ```text
//!  SeenFlow ─► demands: subject, direction, peer, port ─► rules: one per set of ports ─► policies of each namespace
//!               (demand)                                 (rules, ports, blocks)           (policies)  │
//!                                   what else is allowed ◄─ every seen flow is decided ◄──────────────┘
//!                                        (excess)                    (verify)
//! ```
//!
//! What was seen may be what an attacker did. So each rule keeps the connections that it stands for, and their number per rule
//! is limited ([`LimitHit`]).

mod blocks;
mod demand;
mod dns;
mod excess;
mod groups;
mod names;
mod policies;
mod ports;
mod rules;
mod verify;

use std::{collections::BTreeSet, fmt, net::IpAddr};

use palisade_policy::{
    Cluster, Direction, DomainName, Flow, Labels, Name, Policy, Protocol, Traffic, Workload,
};

use crate::{edit::DeclaredWorkloads, end::ConnectionEnd};

pub use demand::is_system_namespace;
pub use verify::DeniedFlow;

use demand::Demands;
use groups::Groups;

/// What a policy selects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SuggestStyle {
    /// The pods of one workload.
    #[default]
    PerWorkload,
    /// All pods of a namespace.
    PerNamespace,
}

/// From what policies are suggested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SuggestBasis {
    /// Recorded connections.
    #[default]
    Records,
    /// Connections that manifests show to be needed. [`Seen::line`] is the number of what shows it.
    Needs,
}

/// A connection that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenFlow {
    /// The connection.
    pub flow: Flow,
    /// Whether it is one of the pod's own node, which needs no rule.
    pub from_own_node: bool,
    /// How often it was seen.
    pub seen: Seen,
    /// The names by which a destination outside the cluster is to be allowed, instead of its address. The cluster of the
    /// question has the address among those that were learned for them.
    pub names: Vec<DomainName>,
}

/// How often connections were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The number of different connections.
    pub connections: u64,
    /// The number of records.
    pub records: u64,
    /// The number of connections or packets for which the records stand.
    pub count: u64,
    /// The line of the first record.
    pub line: usize,
}

impl Seen {
    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.line = if self.connections == 0 { other.line } else { self.line.min(other.line) };
        self.connections = self.connections.saturating_add(other.connections);
        self.records = self.records.saturating_add(other.records);
        self.count = self.count.saturating_add(other.count);
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct SuggestQuestion<'a> {
    /// The cluster in which the flows are.
    pub cluster: &'a Cluster,
    /// What manifests declare about the labels of workloads.
    pub workloads: &'a DeclaredWorkloads,
    /// What was seen.
    pub flows: &'a [SeenFlow],
    /// What a policy selects.
    pub style: SuggestStyle,
    /// From what policies are suggested.
    pub basis: SuggestBasis,
    /// The only namespace that gets policies. `None`: all in which a pod is an end of a flow, apart from those of the system.
    pub namespace: Option<&'a Name>,
}

/// One end of connections that were seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SeenEnd {
    /// Pods.
    Pods(SeenPods),
    /// A node.
    Node(Name, IpAddr),
    /// Any other address.
    Address(IpAddr),
}

/// Pods that were seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SeenPods {
    /// The pods of a workload.
    Workload {
        /// The namespace.
        namespace: Name,
        /// The workload.
        workload: Workload,
    },
    /// Pods without a workload that have the same labels.
    Alike {
        /// The namespace.
        namespace: Name,
        /// The labels.
        labels: Labels,
        /// The name of the first.
        first: Name,
    },
}

impl SeenPods {
    /// Returns the namespace.
    #[must_use]
    pub fn namespace(&self) -> &Name {
        match self {
            Self::Workload { namespace, .. } | Self::Alike { namespace, .. } => namespace,
        }
    }
}

impl fmt::Display for SeenPods {
    /// `shop/deployment/web`, `shop/pod/debug`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload { namespace, workload } => {
                write!(f, "{namespace}/{}/{}", workload.kind.to_lowercase(), workload.name)
            }
            Self::Alike { namespace, first, .. } => write!(f, "{namespace}/pod/{first}"),
        }
    }
}

impl fmt::Display for SeenEnd {
    /// `shop/deployment/web`, `node n1 (192.0.2.1)`, `192.0.2.1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods(pods) => pods.fmt(f),
            Self::Node(name, address) => write!(f, "node {name} ({address})"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Connections that a rule stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenConnection {
    /// The client.
    pub from: SeenEnd,
    /// The server.
    pub to: SeenEnd,
    /// The protocol.
    pub protocol: Protocol,
    /// The port; 0 for protocols without ports.
    pub port: u16,
    /// How often it was seen.
    pub seen: Seen,
}

/// What a policy is there for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It isolates all pods of its namespace.
    DefaultDeny,
    /// It lets all pods of its namespace reach DNS.
    Dns {
        /// Whether no DNS server is known, so that its usual labels are selected.
        usual: bool,
    },
    /// It lets all pods of the cluster reach the DNS servers in its namespace.
    DnsServers,
    /// It lets pods reach DNS, and hosts by the names that were recorded.
    Names {
        /// The pods; all of the namespace if `None`.
        pods: Option<SeenPods>,
        /// Their namespace.
        namespace: Name,
        /// Whether no DNS server is known, so that its usual labels are selected.
        usual: bool,
    },
    /// It allows what was seen of these pods; all pods of the namespace if `None`.
    Seen(Option<SeenPods>),
}

/// A policy of a suggestion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuggestedPolicy {
    /// The policy.
    pub policy: Policy,
    /// What it is there for.
    pub purpose: Purpose,
    /// What each ingress rule stands for.
    pub ingress: Vec<Vec<SeenConnection>>,
    /// What each egress rule stands for.
    pub egress: Vec<Vec<SeenConnection>>,
}

/// Connections that were left out, because there are too many of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitHit {
    /// The pods whose policy it is; all of the namespace if `None`.
    pub subject: Option<SeenPods>,
    /// The namespace.
    pub namespace: Name,
    /// The direction.
    pub direction: Direction,
    /// What there are too many of.
    pub limit: SuggestLimit,
    /// How many there are.
    pub number: usize,
}

/// What is limited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SuggestLimit {
    /// At most [`MAX_PORTS`] ranges of ports at one peer.
    Ports(SeenEnd),
    /// At most [`MAX_PEERS`] peers in one direction of a policy.
    Peers,
}

/// The most ranges of ports at one peer. Applications use a few; a scan uses thousands.
pub const MAX_PORTS: usize = 64;
/// The most peers in one direction of a policy.
pub const MAX_PEERS: usize = 256;

/// Which pairs of workloads may connect. Only pairs with an end in a namespace that has suggested policies count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excess {
    /// All pairs.
    pub pairs: u64,
    /// Those that may connect by today's policies, on any port.
    pub today: u64,
    /// Those that were seen.
    pub seen: u64,
    /// Those that may connect by the suggestion, on any port. DNS does not count.
    pub suggested: u64,
    /// What the suggestion allows apart from what was seen and DNS: the first [`MAX_EXCESS`].
    pub more: Vec<ExcessEdge>,
    /// How many there are of them.
    pub more_total: u64,
}

/// The most entries of [`Excess::more`].
pub const MAX_EXCESS: usize = 1000;

/// One end of connections that a suggestion allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExcessEnd {
    /// Pods.
    Pods(SeenPods),
    /// Anything else.
    Other(ConnectionEnd),
}

impl fmt::Display for ExcessEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods(pods) => pods.fmt(f),
            Self::Other(end) => end.fmt(f),
        }
    }
}

/// Connections that a suggestion allows though they were not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExcessEdge {
    /// The client.
    pub from: ExcessEnd,
    /// The server.
    pub to: ExcessEnd,
    /// The protocols and ports.
    pub traffic: Traffic,
}

/// Suggested policies, and what they do.
#[derive(Clone, Debug)]
pub struct Suggestion {
    /// The policies, by namespace. Those that deny come first.
    pub policies: Vec<SuggestedPolicy>,
    /// The namespaces that have suggested policies.
    pub namespaces: BTreeSet<Name>,
    /// Namespaces of the system that have none, because they were not asked for.
    pub system: BTreeSet<Name>,
    /// What was left out.
    pub limits: Vec<LimitHit>,
    /// The connections that need a rule or not, and are allowed.
    pub allowed: Seen,
    /// The connections that are denied, by policies that are not part of the suggestion or because of a limit.
    pub denied: Vec<DeniedFlow>,
    /// Connections of which no end is in these namespaces.
    pub elsewhere: Seen,
    /// What else is allowed.
    pub excess: Excess,
}

/// Suggests policies. `O(flows × policies + pods + classes²)`.
#[must_use]
pub fn suggest(question: &SuggestQuestion<'_>) -> Suggestion {
    let groups = Groups::new(question.cluster, question.workloads, question.style);
    let demands = Demands::collect(question, &groups);
    let (policies, limits) = policies::policies(&demands, &groups, question.basis);
    let after = verify::with_policies(question.cluster, &demands.namespaces, &policies);
    let (allowed, denied) = verify::verify(&after, question.flows, &groups);
    let excess = excess::excess(question.cluster, &after, &demands, &groups);
    let Demands { namespaces, system, elsewhere, .. } = demands;
    Suggestion { policies, namespaces, system, limits, allowed, denied, elsewhere, excess }
}

#[cfg(test)]
mod tests;

//! Flows, and the decisions about them with their reasons.

use std::{fmt, net::IpAddr};

use crate::{
    Action, Name, ObjectKey, Origin, Peer, PolicyKey, PortMatch, Protocol, Tier, rules::NamespaceMatch,
};

/// One end of a flow: an address and its owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// A pod, with the address that the packets carry.
    Pod {
        /// The pod.
        key: ObjectKey,
        /// One of its addresses.
        address: IpAddr,
    },
    /// The network stack of a node, which host-network pods share.
    Node {
        /// The node.
        name: Name,
        /// One of its addresses.
        address: IpAddr,
    },
    /// Any other address.
    External(IpAddr),
}

impl Endpoint {
    /// Returns the address that packets carry.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        match self {
            Self::Pod { address, .. } | Self::Node { address, .. } | Self::External(address) => *address,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { key, address } => write!(f, "{key} ({address})"),
            Self::Node { name, address } => write!(f, "node {name} ({address})"),
            Self::External(address) => write!(f, "{address}"),
        }
    }
}

/// One new connection, after destination NAT and before source NAT (SEMANTICS G-1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// The client.
    pub source: Endpoint,
    /// The server.
    pub destination: Endpoint,
    /// The IP protocol.
    pub protocol: Protocol,
    /// The destination port; 0 for protocols without ports.
    pub port: u16,
    /// Whether the client connected to a service and the destination was translated. It matters only if both ends are
    /// the same pod (G-6).
    pub through_service: bool,
}

/// Whether a connection is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The connection is allowed.
    Allow,
    /// Packets are dropped silently (G-12).
    Deny,
}

impl Verdict {
    /// Returns whether the verdict is [`Verdict::Allow`].
    #[must_use]
    pub fn is_allow(self) -> bool {
        self == Self::Allow
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_allow() { "allowed" } else { "denied" })
    }
}

/// The decision about a flow. Both sides must allow it (SEMANTICS A36).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The egress side, decided by the policies of the source pod.
    pub egress: Side,
    /// The ingress side, decided by the policies of the destination pod.
    pub ingress: Side,
}

impl Decision {
    /// Returns [`Verdict::Allow`] if both sides allow.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.egress.verdict.is_allow() && self.ingress.verdict.is_allow() {
            Verdict::Allow
        } else {
            Verdict::Deny
        }
    }
}

/// One direction of a [`Decision`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// The verdict.
    pub verdict: Verdict,
    /// The reason.
    pub reason: Reason,
    /// The rules that matched before and passed the flow to the next tier: at most one of the Admin tier and one of the
    /// Baseline tier, in this order.
    pub passed: Vec<RuleRef>,
}

/// The reason for the verdict of a side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The pod connects to itself, which no policy can deny (SEMANTICS A41).
    Itself,
    /// The end isn't a running pod, so no policy applies to it.
    NoSubject,
    /// The peer is the pod's own node (SEMANTICS A39, G-5).
    OwnNode,
    /// No policy isolates the pod in this direction (SEMANTICS A33), and no cluster-wide rule matched.
    NotIsolated,
    /// The pod connects to itself through a service. NetworkPolicies isolate it, but don't apply here (G-6).
    Hairpin,
    /// This rule matched.
    Rule(RuleRef),
    /// These policies isolate the pod, and none of their rules matches.
    Isolated {
        /// The isolating policies, each with its origin.
        policies: Vec<(PolicyKey, Option<Origin>)>,
        /// The rules that came closest, best first; empty if the policies have no rules.
        near: Vec<NearMiss>,
    },
}

/// A reference to a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// The policy.
    pub policy: PolicyKey,
    /// The index of the rule in the policy's rules of this direction, from 0.
    pub index: usize,
    /// The name of the rule, if any.
    pub name: Option<Name>,
    /// The policy's tier.
    pub tier: Tier,
    /// The policy's priority in a cluster-wide tier. `None` for policies without one: NetworkPolicy, and
    /// BaselineAdminNetworkPolicy, which comes last (SEMANTICS G-14).
    pub priority: Option<i32>,
    /// The action.
    pub action: Action,
    /// The origin of the rule.
    pub origin: Option<Origin>,
}

/// A rule that almost matched, and why it didn't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// The rule.
    pub rule: RuleRef,
    /// Whether a peer of the rule matches.
    pub peer_matches: bool,
    /// Whether a port of the rule matches.
    pub port_matches: bool,
    /// What the rule requires and the flow doesn't have.
    pub missing: Missing,
    /// The origin of the peer or port that doesn't match, or of the rule.
    pub origin: Option<Origin>,
}

/// What a rule requires and a flow doesn't have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No peer of the rule matches.
    Peer {
        /// The peer that comes closest; `None` if the rule lists no peer.
        closest: Option<Peer>,
        /// How many other peers the rule lists.
        others: usize,
    },
    /// A peer matches, but none of these ports does.
    Ports(Vec<PortMatch>),
}

impl fmt::Display for NamespaceMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => write!(f, "namespace {name}"),
            Self::Selected(s) if s.is_everything() => f.write_str("every namespace"),
            Self::Selected(s) => write!(f, "namespaces {s}"),
        }
    }
}

//! The question (a [`Flow`]) and the answer (a [`Decision`] with its [`Reason`]s).

use std::{fmt, net::IpAddr};

use crate::{
    Action, Name, ObjectKey, Origin, Peer, PolicyKey, PortMatch, Protocol, Tier, rules::NamespaceMatch,
};

/// Seen from the pod that a policy selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Connections to the pod.
    Ingress,
    /// Connections from the pod.
    Egress,
}

impl Direction {
    /// Both, egress first: the order in which a packet meets them.
    pub const BOTH: [Self; 2] = [Self::Egress, Self::Ingress];

    /// The other one.
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Self::Egress => Self::Ingress,
            Self::Ingress => Self::Egress,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Ingress { "ingress" } else { "egress" })
    }
}

/// One end of a flow: an address, and who has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// A live pod, with the address of it that the packets carry.
    Pod {
        /// Which pod.
        key: ObjectKey,
        /// Which of its addresses.
        address: IpAddr,
    },
    /// A node's own network stack, or a pod that shares it.
    Node {
        /// Which node.
        name: Name,
        /// Which of its addresses.
        address: IpAddr,
    },
    /// Any other address.
    External(IpAddr),
}

impl Endpoint {
    /// The address that packets carry.
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
    /// Who opens it.
    pub source: Endpoint,
    /// Who is called.
    pub destination: Endpoint,
    /// The IP protocol.
    pub protocol: Protocol,
    /// The destination port; 0 for protocols without ports.
    pub port: u16,
    /// Whether it was addressed to a service and translated. Matters only where both ends are one pod (G-6).
    pub through_service: bool,
}

/// Allowed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The connection passes.
    Allow,
    /// It is dropped silently (G-12).
    Deny,
}

impl Verdict {
    /// Whether it is [`Verdict::Allow`].
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

/// The answer: what each side says. Both must allow (SEMANTICS A36).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What the source pod's egress says.
    pub egress: Side,
    /// What the destination pod's ingress says.
    pub ingress: Side,
}

impl Decision {
    /// Allowed if both sides allow.
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
    /// What it says.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The rules that matched before and left it to the next tier: one of the Admin tier, one of the Baseline tier, or
    /// both, in this order.
    pub passed: Vec<RuleRef>,
}

/// Why a side says what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The pod reaches itself, which nothing can forbid (SEMANTICS A41).
    Itself,
    /// That end is no live pod: no policy acts on it.
    NoSubject,
    /// The peer is the pod's own node (SEMANTICS A39, G-5).
    OwnNode,
    /// No policy isolates the pod in this direction (SEMANTICS A33), and no cluster-wide rule matched.
    NotIsolated,
    /// A pod reaches itself through a service although NetworkPolicies isolate it (G-6).
    Hairpin,
    /// This rule decided.
    Rule(RuleRef),
    /// These policies isolate the pod, and no rule of theirs matches.
    Isolated {
        /// The isolating policies with their positions.
        policies: Vec<(PolicyKey, Option<Origin>)>,
        /// The rules that came closest, best first; empty where the policies have no rules.
        near: Vec<NearMiss>,
    },
}

/// Which rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// The policy.
    pub policy: PolicyKey,
    /// The index of the rule in the policy's list of this direction, from 0.
    pub index: usize,
    /// What its author calls it, where he does.
    pub name: Option<Name>,
    /// The policy's tier.
    pub tier: Tier,
    /// The policy's precedence in a cluster-wide tier; `None` where it has none of its own: NetworkPolicy, and
    /// BaselineAdminNetworkPolicy, which comes last (SEMANTICS G-14).
    pub priority: Option<i32>,
    /// What the rule does.
    pub action: Action,
    /// Where the rule stands.
    pub origin: Option<Origin>,
}

/// A rule that nearly matched, and what kept it from matching.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// The rule.
    pub rule: RuleRef,
    /// Whether some peer of it matches.
    pub peer_matches: bool,
    /// Whether some port of it matches.
    pub port_matches: bool,
    /// What the rule requires and the flow doesn't have.
    pub missing: Missing,
    /// Where the failing peer or port stands, if one stands out.
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

//! Edits of single objects.

use std::sync::Arc;

use palisade_policy::{
    Direction, Labels, Name, Origin, Peer, Policy, PolicyKey, PortMatch, Rule, Selector, Tier, Workload,
};

/// An edit of one object. Several edits are applied in order: indexes refer to the lists that earlier ones left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Edit the rules of a policy in one direction.
    Rules {
        /// The policy.
        policy: PolicyKey,
        /// The position of the policy.
        origin: Option<Origin>,
        /// The direction of the rules.
        direction: Direction,
        /// The edit of the list of rules.
        action: RuleEdit,
    },
    /// Replace the pods that a NetworkPolicy selects.
    Subject {
        /// The policy.
        policy: PolicyKey,
        /// The position of the policy.
        origin: Option<Origin>,
        /// The new selector.
        selector: Selector,
    },
    /// Make a NetworkPolicy apply to a direction whose rules its `policyTypes` ignore.
    Direction {
        /// The policy.
        policy: PolicyKey,
        /// The position of the policy.
        origin: Option<Origin>,
        /// The direction.
        direction: Direction,
        /// The rules that are ignored so far.
        rules: Vec<Rule>,
    },
    /// Add a policy.
    NewPolicy(Arc<Policy>),
    /// Add labels to the pods of a workload, or to a bare pod.
    Labels {
        /// The namespace of the workload.
        namespace: Name,
        /// The workload.
        workload: Workload,
        /// The labels to add.
        labels: Labels,
    },
}

/// An edit of a list of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleEdit {
    /// Insert a rule before the one with this index, or append it.
    AddRule {
        /// The index.
        at: usize,
        /// The rule.
        rule: Rule,
    },
    /// Add peers to a rule.
    AddPeers {
        /// The index of the rule.
        rule: usize,
        /// The peers.
        peers: Vec<Peer>,
    },
    /// Add ports to a rule.
    AddPorts {
        /// The index of the rule.
        rule: usize,
        /// The ports.
        ports: Vec<PortMatch>,
    },
    /// Replace a peer of a rule.
    ReplacePeer {
        /// The index of the rule.
        rule: usize,
        /// The index of the peer.
        index: usize,
        /// The new peer.
        peer: Peer,
    },
    /// Replace a port of a rule by one or several.
    ReplacePort {
        /// The index of the rule.
        rule: usize,
        /// The index of the port.
        index: usize,
        /// The new ports. Not empty.
        ports: Vec<PortMatch>,
    },
    /// Remove peers of a rule, but not all.
    RemovePeers {
        /// The index of the rule.
        rule: usize,
        /// The indexes of the peers, sorted.
        gone: Vec<usize>,
    },
    /// Remove ports of a rule, but not all.
    RemovePorts {
        /// The index of the rule.
        rule: usize,
        /// The indexes of the ports, sorted.
        gone: Vec<usize>,
    },
    /// Remove the rules with these indexes, sorted.
    RemoveRules(Vec<usize>),
}

impl Edit {
    /// Returns the policy that is edited or added; `None` for an edit of a workload.
    #[must_use]
    pub fn policy(&self) -> Option<&PolicyKey> {
        match self {
            Self::Rules { policy, .. } | Self::Subject { policy, .. } | Self::Direction { policy, .. } => {
                Some(policy)
            }
            Self::NewPolicy(policy) => Some(&policy.key),
            Self::Labels { .. } => None,
        }
    }

    /// Returns the position of the edited policy.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Rules { origin, .. } | Self::Subject { origin, .. } | Self::Direction { origin, .. } => {
                origin.as_ref()
            }
            Self::NewPolicy(_) | Self::Labels { .. } => None,
        }
    }

    /// Returns the direction, if the edit concerns one.
    #[must_use]
    pub fn direction(&self) -> Option<Direction> {
        match self {
            Self::Rules { direction, .. } | Self::Direction { direction, .. } => Some(*direction),
            Self::NewPolicy(policy) => match (&policy.ingress, &policy.egress) {
                (Some(_), None) => Some(Direction::Ingress),
                (None, Some(_)) => Some(Direction::Egress),
                _ => None,
            },
            Self::Subject { .. } | Self::Labels { .. } => None,
        }
    }

    /// Returns whether an edit adds a selector that matches every pod of a namespace, because nothing tells the asked ones
    /// apart: it also matches pods that don't exist yet.
    #[must_use]
    pub fn selects_every_pod(&self) -> bool {
        let every = |peer: &Peer| matches!(peer, Peer::Pods(choice) if choice.pods.is_everything());
        let in_rule = |rule: &Rule| rule.peers.iter().flatten().any(|entry| every(&entry.peer));
        match self {
            Self::Rules { action, .. } => match action {
                RuleEdit::AddRule { rule, .. } => in_rule(rule),
                RuleEdit::AddPeers { peers, .. } => peers.iter().any(every),
                _ => false,
            },
            Self::NewPolicy(policy) => {
                policy.subject.pods.is_everything()
                    || policy.ingress.iter().chain(&policy.egress).flatten().any(in_rule)
            }
            Self::Subject { .. } | Self::Direction { .. } | Self::Labels { .. } => false,
        }
    }

    /// Returns the size, for sorting: what is easier to review is smaller.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Rules { action, .. } => match action {
                RuleEdit::ReplacePort { .. } | RuleEdit::ReplacePeer { .. } | RuleEdit::AddPorts { .. } => 1,
                RuleEdit::AddPeers { .. } | RuleEdit::RemovePeers { .. } | RuleEdit::RemovePorts { .. } => 2,
                RuleEdit::RemoveRules(rules) => 1 + rules.len(),
                RuleEdit::AddRule { .. } => 3,
            },
            Self::Subject { .. } | Self::Direction { .. } | Self::Labels { .. } => 1,
            Self::NewPolicy(policy) => 4 + usize::from(policy.tier != Tier::Developer),
        }
    }
}

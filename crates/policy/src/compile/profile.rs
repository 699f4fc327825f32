//! What one direction of a pod's policies says, as questions over a whole cluster ask for it: the compiler's own
//! flattening of the tiers, without a node, tables or groups.

use super::{
    budget::Budget,
    definition::Definition,
    ranges::{self, Span},
};
use crate::{
    Direction, Family, IpRange, Name, Peer, Pod, Policy, Protocol, Traffic, address::from_number,
    rules::IpBlock,
};

/// The rules that decide one direction of a pod, in order. Pods with equal profiles are equal subjects: equality is
/// that of rules, so the order and the names of NetworkPolicies never show (SEMANTICS A35).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Profile(Definition);

impl Profile {
    /// What `policies` say in one direction; `None` if none of them touches it, and everything is allowed. They must
    /// be those that select `subject`, of which the named ports alone are looked at. What the subject's own node sends
    /// to it is always allowed, whatever a profile says (SEMANTICS A39, D9).
    #[must_use]
    pub fn new(direction: Direction, subject: &Pod, policies: &[&Policy]) -> Option<Self> {
        Definition::new(direction, subject, policies, &Budget::UNLIMITED).map(Self)
    }

    /// Every peer that some rule names, with the index of the rule. Rules without peers hold everyone.
    pub fn peers(&self) -> impl Iterator<Item = (usize, &Peer)> {
        self.0.rules().enumerate().flat_map(|(i, rule)| rule.peers.iter().flatten().map(move |p| (i, p)))
    }

    /// The port names that only the peer can resolve: what the profile says may depend on its ports of these names.
    pub fn port_names(&self) -> impl Iterator<Item = &Name> {
        self.0.rules().flat_map(|rule| rule.ports.names.iter().map(|(_, name)| name))
    }

    /// What is allowed for a peer that the rules with these indexes name, and whose named ports are `ports`; all tiers
    /// flattened (SEMANTICS D). Ports matter for egress to live pods alone: pass none for any other peer.
    #[must_use]
    pub fn allowed(&self, named_by: &[usize], ports: &[(Name, Protocol, u16)]) -> Traffic {
        let mut named_by = named_by.to_vec();
        named_by.sort_unstable();
        self.0.flatten(&named_by, ports)
    }
}

/// The addresses of a block, without its exceptions: sorted, disjoint, not adjacent.
#[must_use]
pub fn block_ranges(block: &IpBlock) -> Vec<IpRange> {
    let family = Family::of_net(&block.cidr);
    let range =
        |(first, last): Span| IpRange { first: from_number(family, first), last: from_number(family, last) };
    ranges::block_spans(block).into_iter().map(range).collect()
}

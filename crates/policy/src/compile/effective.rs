//! The effective rules of one direction of a pod, for queries over a whole cluster. Uses the compiler's flattening of the
//! tiers, without a node, tables or peer sets.

use super::{budget::Budget, definition::Definition};
use crate::{Direction, Mode, Name, Peer, Pod, Policy, Protocol, Traffic};

/// The rules that decide one direction of a pod, in order.
///
/// Pods with equal effective rules are interchangeable as subjects. The order and the names of NetworkPolicies don't
/// affect equality (SEMANTICS A35).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EffectiveRules(Definition);

impl EffectiveRules {
    /// Returns the rules that `policies` set for one direction of `subject`; `None` if no policy touches the direction,
    /// so that everything is allowed.
    ///
    /// `policies` must be the policies that select `subject`. Of the subject only the named ports are read. Traffic from
    /// the subject's own node is always allowed, whatever the rules are (SEMANTICS A39, D9).
    #[must_use]
    pub fn new(direction: Direction, subject: &Pod, policies: &[&Policy]) -> Option<Self> {
        Definition::new(Mode::Enforce, direction, subject, policies, &Budget::UNLIMITED).map(Self)
    }

    /// Iterates over the peers of all rules, each with the index of its rule. A rule without peers matches every peer.
    pub fn peers(&self) -> impl Iterator<Item = (usize, &Peer)> {
        self.0.rules().enumerate().flat_map(|(i, rule)| rule.peers.iter().flatten().map(move |p| (i, p)))
    }

    /// Iterates over the port names that only the peer can resolve: the result may depend on the peer's ports with these
    /// names.
    pub fn port_names(&self) -> impl Iterator<Item = &Name> {
        self.0.rules().flat_map(|rule| rule.ports.names.iter().map(|(_, name)| name))
    }

    /// Returns the traffic that is allowed for a peer that the rules with the indexes `named_by` match and whose named
    /// ports are `ports`. All tiers are flattened (SEMANTICS D).
    ///
    /// Ports matter only for egress to running pods. For any other peer pass none.
    #[must_use]
    pub fn allowed(&self, named_by: &[usize], ports: &[(Name, Protocol, u16)]) -> Traffic {
        let mut named_by = named_by.to_vec();
        named_by.sort_unstable();
        self.0.flatten(&named_by, ports)
    }
}

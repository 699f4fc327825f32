//! What policies in audit mode would decide.

use std::{collections::BTreeMap, net::IpAddr};

use super::{AddressChanges, PolicyTableId};
use crate::{Direction, Traffic};

/// For the local addresses that policies in audit mode select: what would decide if every policy were enforced.
///
/// An address that no such policy selects in a direction is in none of these maps; what decides there is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditPlan {
    /// The policy table that would decide the ingress of an address.
    pub ingress: BTreeMap<IpAddr, PolicyTableId>,
    /// The policy table that would decide its egress.
    pub egress: BTreeMap<IpAddr, PolicyTableId>,
    /// The traffic that a pod could send to itself through a service, if not all of it would be allowed.
    pub hairpin: BTreeMap<IpAddr, Traffic>,
}

/// The difference of two [`AuditPlan`]s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditChanges {
    /// Changes of the tables for ingress.
    pub ingress: AddressChanges,
    /// Changes of the tables for egress.
    pub egress: AddressChanges,
    /// Changes of the traffic that pods could send to themselves.
    pub hairpin: AddressChanges<Traffic>,
}

impl AuditPlan {
    /// Returns whether a policy in audit mode selects a local address in any direction.
    #[must_use]
    pub fn has(&self, local: IpAddr) -> bool {
        self.ingress.contains_key(&local) || self.egress.contains_key(&local)
    }

    /// Returns whether policies in audit mode select no local address.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ingress.is_empty() && self.egress.is_empty()
    }

    /// Returns the tables of one direction.
    #[must_use]
    pub fn dispatch(&self, direction: Direction) -> &BTreeMap<IpAddr, PolicyTableId> {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

impl AuditChanges {
    pub(super) fn between(from: &AuditPlan, to: &AuditPlan) -> Self {
        Self {
            ingress: AddressChanges::between(&from.ingress, &to.ingress),
            egress: AddressChanges::between(&from.egress, &to.egress),
            hairpin: AddressChanges::between(&from.hairpin, &to.hairpin),
        }
    }

    pub(super) fn apply(&self, plan: &mut AuditPlan) {
        self.ingress.apply(&mut plan.ingress);
        self.egress.apply(&mut plan.egress);
        self.hairpin.apply(&mut plan.hairpin);
    }

    /// Returns whether there are no changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

//! What the kernel holds in addition to the plan or in its place.

use std::{collections::BTreeSet, net::IpAddr};

use palisade_policy::Direction;

use super::report::Report;

/// Local addresses with the direction concerned.
pub(super) type Addresses = BTreeSet<(Direction, IpAddr)>;

/// Addresses that don't have the rules of the plan, as far as the kernel has confirmed it.
#[derive(Debug, Default)]
pub(super) struct Degraded {
    /// The addresses that the kernel drops in the separate cut-off table. `None` if unknown: at first, and after the kernel
    /// refused to change it.
    pub(super) cut_off_table: Option<Addresses>,
    /// Local addresses that the cut-off table drops because the kernel rejected their policies.
    pub(super) rejected: Addresses,
    /// Local addresses that the cut-off table drops because their policies are not known yet.
    pub(super) unknown: Addresses,
    /// Local addresses that are cut off, by either table.
    pub(super) cut_off: Addresses,
    /// Local addresses for which the kernel allows more than the policies do, or for which its state is unknown.
    pub(super) not_enforced: Addresses,
}

impl Degraded {
    /// Copies the addresses into a report.
    pub(super) fn fill(&self, report: &mut Report) {
        report.cut_off = self.cut_off.iter().copied().collect();
        report.not_enforced = self.not_enforced.iter().copied().collect();
    }
}

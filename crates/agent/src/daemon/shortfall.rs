//! Pods whose policies the kernel rejected: cut off (fail closed), or not enforced.

use std::net::IpAddr;

use palisade_policy::Direction;
use tracing::field::display;

use crate::{Reconciler, Report};

/// Local addresses with the direction concerned.
pub(super) type Addresses = Vec<(Direction, IpAddr)>;

/// The most addresses of each sort that are logged one by one.
const MAX_LOGGED: usize = 20;

/// What the kernel holds in place of the plan, as of the last report.
#[derive(Debug, Default)]
pub(super) struct Shortfall {
    /// Addresses that are cut off: everything is denied in that direction.
    pub(super) cut_off: Addresses,
    /// Addresses whose policies are not enforced.
    pub(super) not_enforced: Addresses,
    /// Why the kernel rejects the plan. `None` while the kernel holds it.
    pub(super) rejection: Option<String>,
}

/// How a report changed a [`Shortfall`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    Unchanged,
    /// Other addresses are concerned.
    Changed,
    /// No address is concerned any longer.
    Ended,
}

impl Shortfall {
    /// Takes the addresses out of a report.
    pub(super) fn update(&mut self, report: &mut Report) -> Transition {
        let was_empty = self.is_empty();
        let cut_off = std::mem::take(&mut report.cut_off);
        let not_enforced = std::mem::take(&mut report.not_enforced);
        let has_changed = (&cut_off, &not_enforced) != (&self.cut_off, &self.not_enforced);
        (self.cut_off, self.not_enforced) = (cut_off, not_enforced);
        match (has_changed, self.is_empty()) {
            (true, false) => Transition::Changed,
            (_, true) if !was_empty => Transition::Ended,
            _ => Transition::Unchanged,
        }
    }

    /// Whether every pod has the rules that its policies require.
    pub(super) fn is_empty(&self) -> bool {
        self.cut_off.is_empty() && self.not_enforced.is_empty()
    }

    /// Logs the pods, those that are not enforced last.
    pub(super) fn log(&self, reconciler: &Reconciler) {
        for (direction, address) in self.cut_off.iter().take(MAX_LOGGED) {
            log_cut_off(reconciler, *direction, *address);
        }
        if let Some(addresses) = self.cut_off.len().checked_sub(MAX_LOGGED).filter(|n| *n > 0) {
            tracing::error!(addresses, "further pods are cut off");
        }
        for (direction, address) in self.not_enforced.iter().take(MAX_LOGGED) {
            log_not_enforced(reconciler, *direction, *address);
        }
        if let Some(addresses) = self.not_enforced.len().checked_sub(MAX_LOGGED).filter(|n| *n > 0) {
            tracing::error!(addresses, "policies of further pods are not enforced");
        }
    }

    /// Why the agent isn't ready although it has programmed a snapshot.
    pub(super) fn not_ready(&self) -> String {
        let mut text = "the kernel rejects the plan".to_owned();
        if !self.not_enforced.is_empty() {
            text += &format!("; policies of {} pod addresses are NOT ENFORCED", self.not_enforced.len());
        }
        if !self.cut_off.is_empty() {
            text += &format!("; {} pod addresses are cut off", self.cut_off.len());
        }
        if self.is_empty() {
            text += "; the rules that it holds allow no more than the policies do";
        }
        text
    }
}

/// Logs that a pod is cut off. `pod` is omitted if the pod is gone.
pub(super) fn log_cut_off(reconciler: &Reconciler, direction: Direction, address: IpAddr) {
    let pod = reconciler.owner(address).map(|pod| display(&pod.key));
    tracing::error!(pod, %address, %direction, "cut off pod, the kernel rejected its policies");
}

/// Logs that a pod's policies are not enforced. `pod` is omitted if the pod is gone.
pub(super) fn log_not_enforced(reconciler: &Reconciler, direction: Direction, address: IpAddr) {
    let pod = reconciler.owner(address).map(|pod| display(&pod.key));
    tracing::error!(
        pod, %address, %direction,
        "policies of pod are not enforced, the kernel rejected them and refused to cut off the pod"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_changes_what_is_concerned_and_ends_it() {
        let address = IpAddr::from([10, 0, 0, 1]);
        let report =
            |cut_off: &[(Direction, IpAddr)]| Report { cut_off: cut_off.to_vec(), ..Report::default() };
        let mut shortfall = Shortfall::default();
        assert_eq!(shortfall.update(&mut report(&[])), Transition::Unchanged);
        let concerned = [(Direction::Ingress, address)];
        assert_eq!(shortfall.update(&mut report(&concerned)), Transition::Changed);
        assert_eq!(shortfall.update(&mut report(&concerned)), Transition::Unchanged);
        assert!(shortfall.not_ready().contains("1 pod addresses are cut off"));
        assert_eq!(shortfall.update(&mut report(&[])), Transition::Ended);
        assert_eq!(shortfall.update(&mut report(&[])), Transition::Unchanged);
    }
}

//! Closes pods when the kernel rejects a plan, and records what the kernel has accepted.

use std::{collections::BTreeSet, net::IpAddr};

use palisade_policy::{Direction, NodePlan};

use super::{NodeAgent, degraded::Addresses, report::Report};
use crate::{DataPlane, DataPlaneError, Programmed, ReviewScope, fallback, stale::restricted};

impl<D: DataPlane> NodeAgent<D> {
    /// Clears the cut-off table after the kernel has accepted the plan.
    pub(super) fn clear_cut_off(&mut self, report: &mut Report) -> Result<(), ()> {
        self.degraded.cut_off.clear();
        self.degraded.not_enforced.clear();
        self.set_cut_off_table(Addresses::new(), report)
    }

    /// Closes the pods for which the kernel allows more than the plan: by a fallback plan, else in the separate cut-off table.
    /// Records what the kernel accepted, not what was requested.
    pub(super) fn fail_closed(&mut self, report: &mut Report) {
        let mut is_known = self.holds_programmed_plan(report);
        let wanted = self.reconciler.plan();
        if is_known && !wanted.audit.is_empty() {
            // Pods must not be cut off for what is only recorded.
            let without_audit = wanted.without_audit();
            is_known = self.program_without_audit(&without_audit, report);
        }
        let fallback = fallback::plan(self.reconciler.plan(), self.plane.programmed());
        let mut too_open = self.too_open(is_known);
        if !(is_known && too_open.is_empty()) {
            match self.program_fallback(is_known, &fallback, report) {
                Ok(programmed) => {
                    report.commits.push(programmed);
                    report.committed = Some(self.started + self.now());
                    is_known = true;
                }
                Err(error) => {
                    report.errors.push(error);
                    // A change of several transactions may be partly applied.
                    is_known = is_known && self.holds_programmed_plan(report);
                }
            }
            too_open = self.too_open(is_known);
        }
        // If this is refused, the table's old content may still apply, or another program may have removed it.
        let dropped = if self.set_cut_off_table(too_open.clone(), report).is_ok() {
            too_open.clone()
        } else {
            Addresses::new()
        };
        self.degraded.not_enforced = too_open.difference(&dropped).copied().collect();
        self.degraded.cut_off = dropped;
        if is_known {
            self.degraded.cut_off.extend(fallback::cut_off(self.plane.programmed()));
        }
    }

    /// Programs the plan without what policies in audit mode would decide. Returns whether it is known what the kernel holds.
    fn program_without_audit(&mut self, plan: &NodePlan, report: &mut Report) -> bool {
        match self.program_fallback(true, plan, report) {
            Ok(programmed) => {
                report.commits.push(programmed);
                report.committed = Some(self.started + self.now());
                true
            }
            Err(error) => {
                report.errors.push(error);
                self.holds_programmed_plan(report)
            }
        }
    }

    /// Local addresses for which the kernel allows more than the plan. All isolated ones if its state is not known.
    fn too_open(&self, is_known: bool) -> Addresses {
        fallback::too_open(self.reconciler.plan(), is_known.then_some(self.plane.programmed()))
    }

    fn program_fallback(
        &mut self,
        is_known: bool,
        fallback: &NodePlan,
        report: &mut Report,
    ) -> Result<Programmed, DataPlaneError> {
        let begin = self.now();
        let (done, ends) = if is_known {
            // As small a change as possible: the kernel may be short of memory.
            let delta = self.plane.programmed().delta_to(fallback);
            let ends = restricted(self.plane.programmed(), fallback, &delta);
            (self.plane.commit(&delta), ends)
        } else {
            (self.plane.start(fallback), self.reconciler.local_addresses())
        };
        report.commit += self.now() - begin;
        if done.is_ok() {
            self.review_later(ReviewScope { ends, labelled: false });
        }
        done
    }

    fn holds_programmed_plan(&mut self, report: &mut Report) -> bool {
        self.plane.holds().unwrap_or_else(|error| {
            report.errors.push(error);
            false
        })
    }

    /// Drops the traffic of exactly these addresses, whose policies are not known yet, until the next call. Before the first snapshot
    /// addresses are only added: what a previous run has cut off stays so.
    ///
    /// # Errors
    /// If the kernel rejects the change.
    pub fn close_unknown(&mut self, addresses: BTreeSet<(Direction, IpAddr)>) -> Result<(), DataPlaneError> {
        if self.degraded.unknown == addresses {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.degraded.unknown, addresses);
        let done = if self.reconciler.is_waiting() {
            self.plane.cut_off_also(&self.degraded.unknown)
        } else {
            let mut report = Report::default();
            _ = self.set_cut_off_table(self.degraded.rejected.clone(), &mut report);
            report.errors.pop().map_or(Ok(()), Err)
        };
        if done.is_err() {
            self.degraded.unknown = before;
        }
        done
    }

    /// Whether addresses are closed because their policies are not known yet.
    #[must_use]
    pub fn has_closed_unknown(&self) -> bool {
        !self.degraded.unknown.is_empty()
    }

    /// Makes the kernel drop the traffic of exactly these addresses, and of those whose policies are not known yet, in the separate
    /// cut-off table.
    fn set_cut_off_table(&mut self, rejected: Addresses, report: &mut Report) -> Result<(), ()> {
        let addresses: Addresses = rejected.union(&self.degraded.unknown).copied().collect();
        self.degraded.rejected = rejected;
        if addresses.is_empty() && self.degraded.cut_off_table.as_ref().is_some_and(BTreeSet::is_empty) {
            return Ok(());
        }
        match self.plane.cut_off(&addresses) {
            Ok(()) => {
                self.degraded.cut_off_table = Some(addresses);
                Ok(())
            }
            Err(error) => {
                self.degraded.cut_off_table = None;
                report.errors.push(error);
                Err(())
            }
        }
    }
}

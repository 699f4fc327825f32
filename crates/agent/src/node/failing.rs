//! When the kernel refuses a plan: what is closed instead, and what is really closed.

use std::{collections::BTreeSet, net::IpAddr};

use palisade_policy::{Direction, NodePlan};

use super::{NodeAgent, Report};
use crate::{DataPlane, DataPlaneError, Programmed, closed, stale::narrowed};

type Addresses = BTreeSet<(Direction, IpAddr)>;

/// What is known to be in the kernel beside the plan, or in its place.
#[derive(Debug, Default)]
pub(super) struct Failing {
    /// What the kernel drops in a table of its own; `None` where that is unknown: at first, and when it refused to change it.
    apart: Option<Addresses>,
    /// Local addresses that are cut off, by the one table or the other.
    cut_off: Addresses,
    /// Local addresses that the kernel lets do more than policies allow, or that nobody knows of.
    not_enforced: Addresses,
}

impl Failing {
    /// Says in a report what the kernel holds.
    pub(super) fn tell(&self, report: &mut Report) {
        report.cut_off = self.cut_off.iter().copied().collect();
        report.not_enforced = self.not_enforced.iter().copied().collect();
    }
}

impl<D: DataPlane> NodeAgent<D> {
    /// The kernel holds the plan: nothing else may be in its way.
    pub(super) fn all_is_well(&mut self, report: &mut Report) -> Result<(), ()> {
        self.failing.cut_off.clear();
        self.failing.not_enforced.clear();
        self.cut_off_apart(Addresses::new(), report)
    }

    /// Closes the pods that the kernel leaves too open: by the plan with them closed, else in a table of its own. Notes what
    /// the kernel took, and not what was meant.
    pub(super) fn fail_closed(&mut self, report: &mut Report) {
        let wanted = self.reconciler.plan();
        let fallback = closed::plan(wanted, self.plane.programmed());
        let mut held = self.holds_what_is_programmed(report);
        let mut open = self.open(held);
        if !(held && open.is_empty()) {
            match self.close(held, &fallback, report) {
                Ok(programmed) => {
                    report.commits.push(programmed);
                    held = true;
                }
                Err(error) => {
                    report.errors.push(error);
                    // A change of several transactions may have got half way.
                    held = held && self.holds_what_is_programmed(report);
                }
            }
            open = self.open(held);
        }
        // Should it be refused, what was said before may still be there, or somebody may have removed it.
        let apart =
            if self.cut_off_apart(open.clone(), report).is_ok() { open.clone() } else { Addresses::new() };
        self.failing.not_enforced = open.difference(&apart).copied().collect();
        self.failing.cut_off = apart;
        if held {
            self.failing.cut_off.extend(closed::cut_off(self.plane.programmed()));
        }
    }

    /// Local addresses that the kernel lets do more than the plan, as far as it is known what it holds.
    fn open(&self, is_known: bool) -> Addresses {
        closed::open(self.reconciler.plan(), is_known.then_some(self.plane.programmed()))
    }

    fn close(
        &mut self,
        held: bool,
        fallback: &NodePlan,
        report: &mut Report,
    ) -> Result<Programmed, DataPlaneError> {
        let begin = self.now();
        let (done, concerned) = if held {
            // As small as it can be: it may be memory that is missing.
            let delta = self.plane.programmed().delta_to(fallback);
            let concerned = narrowed(self.plane.programmed(), fallback, &delta);
            (self.plane.commit(&delta), concerned)
        } else {
            (self.plane.start(fallback), self.reconciler.local_addresses())
        };
        report.commit += self.now() - begin;
        if done.is_ok() {
            self.review_later(concerned);
        }
        done
    }

    fn holds_what_is_programmed(&mut self, report: &mut Report) -> bool {
        self.plane.holds().unwrap_or_else(|error| {
            report.errors.push(error);
            false
        })
    }

    /// Makes the kernel drop what these addresses send or receive, without our table; nothing else is dropped that way.
    fn cut_off_apart(&mut self, addresses: Addresses, report: &mut Report) -> Result<(), ()> {
        if addresses.is_empty() && self.failing.apart.as_ref().is_some_and(BTreeSet::is_empty) {
            return Ok(());
        }
        match self.plane.cut_off(&addresses) {
            Ok(()) => {
                self.failing.apart = Some(addresses);
                Ok(())
            }
            Err(error) => {
                self.failing.apart = None;
                report.errors.push(error);
                Err(())
            }
        }
    }
}

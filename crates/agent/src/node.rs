//! One node's agent: the reconciler's actions performed on a data plane.

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    time::{Duration, Instant},
};

use palisade_policy::{Change, Cluster, Delta, Direction, Interner, Name, NodePlan};

use crate::{
    Action, DataPlane, DataPlaneError, Input, Programmed, Reconciler, closed,
    review::Pace,
    stale::{Host, is_allowed, narrowed},
};

/// What one input led to.
#[derive(Debug, Default)]
pub struct Report {
    /// What was programmed, commit by commit; empty if nothing had to change.
    pub commits: Vec<Programmed>,
    /// How long compiling took.
    pub compile: Duration,
    /// How long the kernel transactions took.
    pub commit: Duration,
    /// How long looking through open connections took.
    pub review: Duration,
    /// When the next look through open connections may begin, if some wait for it: call [`NodeAgent::tick`] then, unless
    /// another change comes first. Some tens of milliseconds away as a rule, a quarter of a second at most.
    pub review_due: Option<Instant>,
    /// Connections that were cut because they are denied now.
    pub revoked: usize,
    /// Connections cut earlier that are allowed again.
    pub restored: usize,
    /// What went wrong, worst last. Not empty: enforcement is not what it should be, and [`Report::cut_off`] says for
    /// whom; it is tried again at the next tick.
    pub errors: Vec<DataPlaneError>,
    /// Whether the last of the errors is that open connections could not be looked through; the kernel took the plan then.
    pub review_failed: bool,
    /// Local addresses that are cut off because their policies can't be programmed.
    pub cut_off: Vec<(Direction, IpAddr)>,
}

/// The agent of one node: a [`Reconciler`] and the one executor of its actions.
///
/// It works on the thread that calls it. Dropping it leaves the rules in the kernel.
#[derive(Debug)]
pub struct NodeAgent<D> {
    reconciler: Reconciler,
    plane: D,
    started: Instant,
    clock: Clock,
    /// One end of each connection that may carry our revocation mark.
    revoked: BTreeSet<IpAddr>,
    /// One end of each connection that is to be decided anew; `None`: nothing was committed since the last review.
    unreviewed: Option<BTreeSet<IpAddr>>,
    pace: Pace,
}

/// The time since the agent was made.
struct Clock(Box<dyn Fn() -> Duration + Send>);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&(self.0)(), f)
    }
}

impl<D: DataPlane> NodeAgent<D> {
    /// An agent that waits for its first snapshot and touches nothing.
    pub fn new(node: Name, plane: D) -> Self {
        let started = Instant::now();
        Self {
            reconciler: Reconciler::new(node),
            plane,
            started,
            clock: Clock(Box::new(move || started.elapsed())),
            revoked: BTreeSet::new(),
            unreviewed: None,
            pace: Pace::default(),
        }
    }

    /// The whole cluster, at first or again.
    pub fn snapshot(&mut self, cluster: Cluster) -> Report {
        self.handle(Input::Snapshot(cluster))
    }

    /// Some changes, programmed together: one transaction as a rule, whatever their number.
    pub fn apply(&mut self, changes: Vec<Change>) -> Report {
        self.handle(Input::Changes(changes))
    }

    /// Lets time pass: what was refused may be tried again, and connections that wait for their review
    /// ([`Report::review_due`]) get it.
    pub fn tick(&mut self) -> Report {
        self.handle(Input::Tick)
    }

    /// Has the connections of all isolated local pods decided anew at the next [`NodeAgent::tick`]: for when packets may
    /// have met other rules than those of the plan.
    pub fn review_all(&mut self) {
        let plan = self.plane.programmed();
        let all: Vec<IpAddr> =
            plan.ingress.keys().chain(plan.egress.keys()).chain(plan.hairpin.keys()).copied().collect();
        self.unreviewed.get_or_insert_default().extend(all);
    }

    /// What gives equal names, labels and ports one place in memory. A source that decodes with it keeps no text twice.
    #[must_use]
    pub fn interner(&self) -> &Interner {
        self.reconciler.interner()
    }

    /// What the kernel should hold.
    #[must_use]
    pub fn plan(&self) -> &NodePlan {
        self.reconciler.plan()
    }

    /// What is known, and what was decided about it.
    #[must_use]
    pub fn reconciler(&self) -> &Reconciler {
        &self.reconciler
    }

    /// What the kernel holds.
    #[must_use]
    pub fn data_plane(&mut self) -> &mut D {
        &mut self.plane
    }

    fn handle(&mut self, input: Input) -> Report {
        let mut report = Report::default();
        let begin = self.now();
        let mut actions = self.reconciler.handle(input, begin);
        report.compile = self.now() - begin;
        while !actions.is_empty() {
            let mut next = Vec::new();
            for action in actions {
                if let Some(answer) = self.perform(action, &mut report) {
                    next.extend(self.reconciler.handle(answer, self.now()));
                }
            }
            actions = next;
        }
        self.review_connections(&mut report);
        report
    }

    fn now(&self) -> Duration {
        (self.clock.0)()
    }

    /// Performs one action; returns what to tell the reconciler about it.
    fn perform(&mut self, action: Action, report: &mut Report) -> Option<Input> {
        let begin = self.now();
        let done = match action {
            Action::Start => {
                // An earlier run may have left connections open or cut: all local ones are looked at.
                let local = self.reconciler.local_addresses();
                self.plane.start(self.reconciler.plan()).map(|programmed| (programmed, local))
            }
            Action::Commit(delta) => self.commit(&delta),
            Action::Resync => {
                let delta = self.plane.programmed().delta_to(self.reconciler.plan());
                self.commit(&delta)
            }
            Action::FailClosed => {
                self.fail_closed(report);
                return None;
            }
        };
        report.commit += self.now() - begin;
        match done {
            Ok((programmed, narrowed)) => {
                report.commits.push(programmed);
                self.unreviewed.get_or_insert_default().extend(narrowed);
                Some(Input::Committed)
            }
            Err(error) => {
                report.errors.push(error);
                Some(Input::Refused)
            }
        }
    }

    fn commit(&mut self, delta: &Delta) -> Result<(Programmed, BTreeSet<IpAddr>), DataPlaneError> {
        let narrowed = narrowed(self.plane.programmed(), self.reconciler.plan(), delta);
        Ok((self.plane.commit(delta)?, narrowed))
    }

    /// Programs the plan with the pods cut off whose policies the kernel does not hold.
    fn fail_closed(&mut self, report: &mut Report) {
        let fallback = closed::plan(self.reconciler.plan(), self.plane.programmed());
        report.cut_off = closed::cut_off(&fallback).collect();
        let delta = self.plane.programmed().delta_to(&fallback);
        let narrowed = narrowed(self.plane.programmed(), &fallback, &delta);
        match self.plane.commit(&delta) {
            Ok(programmed) => {
                report.commits.push(programmed);
                self.unreviewed.get_or_insert_default().extend(narrowed);
            }
            // Nothing more can be done from here: what the kernel holds stays, and the next tick tries again.
            Err(error) => report.errors.push(error),
        }
    }

    /// Decides existing connections anew: after the commit, so that what begins later meets the new rules and what
    /// began before is in the kernel's list. Where the last review was a moment ago, this one waits and serves what
    /// comes meanwhile, too.
    fn review_connections(&mut self, report: &mut Report) {
        let Some(narrowed) = &self.unreviewed else { return };
        let concerned: BTreeSet<IpAddr> = narrowed.union(&self.revoked).copied().collect();
        if concerned.is_empty() {
            self.unreviewed = None;
            return;
        }
        let begin = self.now();
        if self.pace.is_due(begin) {
            let outcome = self.try_review(&concerned, report);
            let end = self.now();
            report.review = end - begin;
            match outcome {
                Ok(()) => {
                    self.unreviewed = None;
                    self.pace.done(begin, end);
                }
                // The next review looks at all of them again.
                Err(error) => {
                    self.pace.failed(end);
                    self.unreviewed = Some(concerned);
                    report.errors.push(error);
                    report.review_failed = true;
                }
            }
        }
        report.review_due = self.unreviewed.is_some().then(|| self.started + self.pace.next());
    }

    fn try_review(
        &mut self,
        concerned: &BTreeSet<IpAddr>,
        report: &mut Report,
    ) -> Result<(), DataPlaneError> {
        let host = Host { addresses: self.plane.host_addresses()?, is_exempt: self.plane.exempts_own_node() };
        let mut revoked = BTreeSet::new();
        for (connection, entry) in self.plane.connections(concerned)? {
            let allowed = is_allowed(self.plane.programmed(), &host, &connection);
            match (allowed, connection.revoked) {
                (false, false) => {
                    self.plane.revoke(&entry)?;
                    report.revoked += 1;
                }
                (true, true) => {
                    self.plane.restore(&entry)?;
                    report.restored += 1;
                }
                (true, false) | (false, true) => {}
            }
            if !allowed {
                // The end by which it was found is enough to find it again.
                let by_source = concerned.contains(&connection.source);
                revoked.insert(if by_source { connection.source } else { connection.destination });
            }
        }
        self.revoked = revoked;
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! The agent of one node: performs the reconciler's actions on a data plane.

mod degraded;
mod fail_closed;
mod report;

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    time::{Duration, Instant},
};

use palisade_policy::{Change, Cluster, Delta, Interner, Name, NodePlan};

pub use report::Report;

use crate::{
    Action, DataPlane, DataPlaneError, FiveTuple, Input, Programmed, Reconciler, TrackedConnection,
    review_schedule::ReviewSchedule,
    stale::{Host, denied, is_allowed, restricted},
};
use degraded::Degraded;

/// The agent of one node: a [`Reconciler`] and the executor of its actions.
///
/// It works on the calling thread. Dropping it leaves the rules in the kernel.
#[derive(Debug)]
pub struct NodeAgent<D> {
    reconciler: Reconciler,
    plane: D,
    started: Instant,
    clock: Clock,
    /// One end of each connection that has our revocation label but is not in the set of revoked connections.
    only_labelled: BTreeSet<IpAddr>,
    /// One end of each connection that needs a review. `None` if nothing was committed since the last review.
    unreviewed: Option<BTreeSet<IpAddr>>,
    schedule: ReviewSchedule,
    degraded: Degraded,
}

/// The time since the agent was created.
struct Clock(Box<dyn Fn() -> Duration + Send>);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&(self.0)(), f)
    }
}

impl<D: DataPlane> NodeAgent<D> {
    /// Creates an agent that waits for its first snapshot and touches nothing until then.
    pub fn new(node: Name, plane: D) -> Self {
        let started = Instant::now();
        Self {
            reconciler: Reconciler::new(node),
            plane,
            started,
            clock: Clock(Box::new(move || started.elapsed())),
            only_labelled: BTreeSet::new(),
            unreviewed: None,
            schedule: ReviewSchedule::default(),
            degraded: Degraded::default(),
        }
    }

    /// Applies a snapshot of the whole cluster.
    pub fn snapshot(&mut self, cluster: Cluster) -> Report {
        self.handle(Input::Snapshot(cluster))
    }

    /// Applies changes together: usually in one transaction, whatever their number.
    pub fn apply(&mut self, changes: Vec<Change>) -> Report {
        self.handle(Input::Changes(changes))
    }

    /// Retries what is due: a rejected plan, and a pending review of connections ([`Report::review_due`]).
    pub fn tick(&mut self) -> Report {
        self.handle(Input::Tick)
    }

    /// Reads what the kernel holds and changes it to the plan, else closes the pods for which it allows more. For when the kernel
    /// may hold something other than what was programmed, and a repair has failed.
    pub fn resync(&mut self) -> Report {
        self.handle(Input::Diverged)
    }

    /// Requests a review of the connections of all local pods at the next [`NodeAgent::tick`]. For when packets may have met
    /// rules other than those of the plan.
    pub fn review_all(&mut self) {
        let all = self.all_ends();
        self.review_later(all);
    }

    /// The interner for names, labels and ports. A source that decodes with it stores each text once.
    #[must_use]
    pub fn interner(&self) -> &Interner {
        self.reconciler.interner()
    }

    /// The plan that the kernel should hold.
    #[must_use]
    pub fn plan(&self) -> &NodePlan {
        self.reconciler.plan()
    }

    /// The reconciler: the known cluster and its plan.
    #[must_use]
    pub fn reconciler(&self) -> &Reconciler {
        &self.reconciler
    }

    /// The data plane: what the kernel holds.
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
                if let Some(result) = self.perform(action, &mut report) {
                    next.extend(self.reconciler.handle(result, self.now()));
                }
            }
            actions = next;
        }
        self.review_connections(&mut report);
        self.degraded.fill(&mut report);
        report
    }

    /// One end of each connection that a review after a start has to check.
    fn all_ends(&mut self) -> BTreeSet<IpAddr> {
        let mut ends = self.reconciler.local_addresses();
        ends.extend(self.plane.revoked().iter().map(|tuple| tuple.source));
        // If connections can't be listed, the review that follows reports it.
        ends.extend(self.plane.labelled().unwrap_or_default());
        ends
    }

    fn now(&self) -> Duration {
        (self.clock.0)()
    }

    /// Performs one action. Returns the result as an input for the reconciler.
    fn perform(&mut self, action: Action, report: &mut Report) -> Option<Input> {
        let begin = self.now();
        let done = match action {
            Action::Start | Action::Resync => {
                // A previous run or another program may have left connections established or revoked. All connections of
                // local pods are reviewed, and all revoked ones, also of pods that are gone.
                let started = self.plane.start(self.reconciler.plan());
                started.map(|programmed| (programmed, self.all_ends()))
            }
            Action::Commit(delta) => self.commit(&delta),
            Action::FailClosed => {
                self.fail_closed(report);
                return None;
            }
        };
        report.commit += self.now() - begin;
        match done {
            Ok((programmed, ends)) => {
                report.commits.push(programmed);
                report.committed = Some(self.started + self.now());
                self.review_later(ends);
                match self.clear_cut_off(report) {
                    Ok(()) => Some(Input::Committed),
                    Err(()) => Some(Input::Refused),
                }
            }
            Err(error) => {
                report.errors.push(error);
                Some(Input::Refused)
            }
        }
    }

    fn commit(&mut self, delta: &Delta) -> Result<(Programmed, BTreeSet<IpAddr>), DataPlaneError> {
        let ends = restricted(self.plane.programmed(), self.reconciler.plan(), delta);
        Ok((self.plane.commit(delta)?, ends))
    }

    /// Adds ends whose connections need a review.
    fn review_later(&mut self, ends: BTreeSet<IpAddr>) {
        self.unreviewed.get_or_insert_default().extend(ends);
    }

    /// Re-evaluates established connections. This happens after the commit: a connection that begins later meets the new rules,
    /// and one that began before is in the kernel's list. Shortly after the last review this one is postponed, and
    /// includes what is committed meanwhile.
    fn review_connections(&mut self, report: &mut Report) {
        let Some(ends) = &self.unreviewed else { return };
        if ends.is_empty() && self.only_labelled.is_empty() && !self.plane.has_revoked() {
            self.unreviewed = None;
            return;
        }
        let ends = ends.clone();
        let begin = self.now();
        if self.schedule.is_due(begin) {
            let outcome = self.review(&ends, report);
            let end = self.now();
            report.review = end - begin;
            match outcome {
                Ok(()) => {
                    self.unreviewed = None;
                    self.schedule.succeeded(begin, end);
                }
                // The next review checks the same connections again.
                Err(error) => {
                    self.schedule.failed(end);
                    report.errors.push(error);
                    report.review_failed = true;
                }
            }
        }
        report.review_due = self.unreviewed.is_some().then(|| self.started + self.schedule.next());
    }

    /// Reviews the connections of these ends, and revoked connections that may be allowed now. Lists no connections if there are
    /// none to check.
    fn review(&mut self, ends: &BTreeSet<IpAddr>, report: &mut Report) -> Result<(), DataPlaneError> {
        let host = Host { addresses: self.plane.host_addresses()?, is_exempt: self.plane.exempts_own_node() };
        let mut concerned: BTreeSet<IpAddr> = ends.union(&self.only_labelled).copied().collect();
        concerned.extend(allowed_again(&self.plane, &host).map(|tuple| tuple.source));
        if concerned.is_empty() {
            return Ok(());
        }
        let connections = self.plane.connections(&concerned)?;
        let Verdicts { to_revoke, denied, to_unlabel, to_restore } = judge(&self.plane, &host, &connections);
        let revoked = self.plane.revoke(&to_revoke)?;
        report.revoked += revoked.revoked;
        report.not_remembered += revoked.not_remembered;
        self.plane.restore(&to_restore, &to_unlabel)?;
        report.restored += to_restore.len();
        let end = |tuple: &FiveTuple| {
            if concerned.contains(&tuple.source) { tuple.source } else { tuple.destination }
        };
        self.only_labelled = denied.iter().filter(|tuple| !self.plane.is_revoked(tuple)).map(end).collect();
        Ok(())
    }
}

/// Returns the revoked connections that the plan allows now. `O(revoked connections)`.
fn allowed_again<D: DataPlane>(plane: &D, host: &Host) -> impl Iterator<Item = FiveTuple> {
    plane.revoked().into_iter().filter(|tuple| is_allowed(plane.programmed(), host, tuple))
}

/// The result of a review.
struct Verdicts<'a, E> {
    /// Connections to revoke, each with the orientation that is denied.
    to_revoke: Vec<(FiveTuple, &'a E)>,
    /// All tracked connections that are denied, whether revoked now or before.
    denied: Vec<FiveTuple>,
    /// Entries whose revocation label must be removed.
    to_unlabel: Vec<&'a E>,
    /// Connections to restore: those of `to_unlabel`, and revoked ones without an entry that are allowed again.
    to_restore: Vec<FiveTuple>,
}

fn judge<'a, D: DataPlane>(
    plane: &D,
    host: &Host,
    connections: &'a [(TrackedConnection, D::ConntrackEntry)],
) -> Verdicts<'a, D::ConntrackEntry> {
    let plan = plane.programmed();
    let mut out = Verdicts {
        to_revoke: Vec::new(),
        denied: Vec::new(),
        to_unlabel: Vec::new(),
        to_restore: Vec::new(),
    };
    let mut allowed_again: BTreeSet<FiveTuple> = allowed_again(plane, host).collect();
    for (connection, entry) in connections {
        match denied(plan, host, connection, |tuple| plane.is_revoked(tuple)) {
            Some(tuple) => {
                out.denied.push(tuple);
                let is_remembered = !tuple.outlives_its_entry() || plane.is_revoked(&tuple);
                if !connection.revoked || !is_remembered {
                    out.to_revoke.push((tuple, entry));
                }
            }
            None if connection.revoked => {
                out.to_unlabel.push(entry);
                allowed_again.insert(connection.tuple);
            }
            None => {}
        }
    }
    out.to_restore.extend(allowed_again);
    out
}

#[cfg(test)]
mod tests;

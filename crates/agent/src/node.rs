//! One node's agent: the reconciler's actions performed on a data plane.

mod failing;

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    time::{Duration, Instant},
};

use palisade_policy::{Change, Cluster, Delta, Direction, Interner, Name, NodePlan};

use crate::{
    Action, Connection, DataPlane, DataPlaneError, FiveTuple, Input, Programmed, Reconciler,
    review::Pace,
    stale::{Host, denied, is_allowed, narrowed},
};
use failing::Failing;

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
    /// Connections that were cut and can't be remembered, because too many are.
    pub not_remembered: usize,
    /// What went wrong, worst last. Not empty: enforcement is not what it should be, and [`Report::cut_off`] and
    /// [`Report::not_enforced`] say for whom; it is tried again at a later tick.
    pub errors: Vec<DataPlaneError>,
    /// Whether the last of the errors is that open connections could not be looked through; the kernel took the plan then.
    pub review_failed: bool,
    /// Local addresses that are cut off because their policies can't be programmed: the kernel took that.
    pub cut_off: Vec<(Direction, IpAddr)>,
    /// Local addresses that policies isolate and that the kernel refused to close as well, or of which it can't be known what
    /// it does with them. Their policies are not enforced.
    pub not_enforced: Vec<(Direction, IpAddr)>,
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
    /// One end of each connection that carries our revocation label and is not remembered apart from that.
    only_labelled: BTreeSet<IpAddr>,
    /// One end of each connection that is to be decided anew; `None`: nothing was committed since the last review.
    unreviewed: Option<BTreeSet<IpAddr>>,
    pace: Pace,
    failing: Failing,
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
            only_labelled: BTreeSet::new(),
            unreviewed: None,
            pace: Pace::default(),
            failing: Failing::default(),
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

    /// The kernel may hold something else than it was given, and mending that has failed: makes it hold the plan from what it
    /// really holds, else closes the pods that it leaves too open.
    pub fn disturbed(&mut self) -> Report {
        self.handle(Input::Disturbed)
    }

    /// Has the connections of all local pods decided anew at the next [`NodeAgent::tick`]: for when packets may have met other
    /// rules than those of the plan.
    pub fn review_all(&mut self) {
        let all = self.all_concerned();
        self.review_later(all);
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
        self.failing.tell(&mut report);
        report
    }

    /// An end of each connection that a review after a start has to look at.
    fn all_concerned(&mut self) -> BTreeSet<IpAddr> {
        let mut concerned = self.reconciler.local_addresses();
        concerned.extend(self.plane.revoked().iter().map(|tuple| tuple.source));
        // Where connections can't be listed, the review that follows says so.
        concerned.extend(self.plane.labelled().unwrap_or_default());
        concerned
    }

    fn now(&self) -> Duration {
        (self.clock.0)()
    }

    /// Performs one action; returns what to tell the reconciler about it.
    fn perform(&mut self, action: Action, report: &mut Report) -> Option<Input> {
        let begin = self.now();
        let done = match action {
            Action::Start | Action::Resync => {
                // An earlier run, or what others did, may have left connections open or cut: all local ones are looked at,
                // and all that are cut, also where their pods are gone.
                let started = self.plane.start(self.reconciler.plan());
                started.map(|programmed| (programmed, self.all_concerned()))
            }
            Action::Commit(delta) => self.commit(&delta),
            Action::FailClosed => {
                self.fail_closed(report);
                return None;
            }
        };
        report.commit += self.now() - begin;
        match done {
            Ok((programmed, narrowed)) => {
                report.commits.push(programmed);
                self.review_later(narrowed);
                match self.all_is_well(report) {
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
        let narrowed = narrowed(self.plane.programmed(), self.reconciler.plan(), delta);
        Ok((self.plane.commit(delta)?, narrowed))
    }

    /// Remembers whose connections are to be decided anew.
    fn review_later(&mut self, ends: BTreeSet<IpAddr>) {
        self.unreviewed.get_or_insert_default().extend(ends);
    }

    /// Decides existing connections anew: after the commit, so that what begins later meets the new rules and what
    /// began before is in the kernel's list. Where the last review was a moment ago, this one waits and serves what
    /// comes meanwhile, too.
    fn review_connections(&mut self, report: &mut Report) {
        let Some(narrowed) = &self.unreviewed else { return };
        if narrowed.is_empty() && self.only_labelled.is_empty() && !self.plane.has_revoked() {
            self.unreviewed = None;
            return;
        }
        let narrowed = narrowed.clone();
        let begin = self.now();
        if self.pace.is_due(begin) {
            let outcome = self.try_review(&narrowed, report);
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
                    report.errors.push(error);
                    report.review_failed = true;
                }
            }
        }
        report.review_due = self.unreviewed.is_some().then(|| self.started + self.pace.next());
    }

    /// Looks at the connections of these ends, and of those that were cut and may be allowed now. Where there are none,
    /// the kernel is not asked.
    fn try_review(&mut self, narrowed: &BTreeSet<IpAddr>, report: &mut Report) -> Result<(), DataPlaneError> {
        let host = Host { addresses: self.plane.host_addresses()?, is_exempt: self.plane.exempts_own_node() };
        let mut concerned: BTreeSet<IpAddr> = narrowed.union(&self.only_labelled).copied().collect();
        concerned.extend(allowed_again(&self.plane, &host).map(|tuple| tuple.source));
        if concerned.is_empty() {
            return Ok(());
        }
        let connections = self.plane.connections(&concerned)?;
        let Verdicts { denied, cut, allowed, forgotten } = judge(&self.plane, &host, &connections);
        let revoked = self.plane.revoke(&denied)?;
        report.revoked += revoked.cut;
        report.not_remembered += revoked.not_remembered;
        self.plane.restore(&forgotten, &allowed)?;
        report.restored += forgotten.len();
        let end = |tuple: &FiveTuple| {
            if concerned.contains(&tuple.source) { tuple.source } else { tuple.destination }
        };
        self.only_labelled = cut.iter().filter(|tuple| !self.plane.is_revoked(tuple)).map(end).collect();
        Ok(())
    }
}

/// The remembered connections that the plan allows now. `O(remembered)`.
fn allowed_again<D: DataPlane>(plane: &D, host: &Host) -> impl Iterator<Item = FiveTuple> {
    plane.revoked().into_iter().filter(|tuple| is_allowed(plane.programmed(), host, tuple))
}

/// What a review does.
struct Verdicts<'a, E> {
    /// Connections to revoke, each with the orientation that is denied.
    denied: Vec<(FiveTuple, &'a E)>,
    /// All tracked connections that are denied, revoked now or before.
    cut: Vec<FiveTuple>,
    /// Entries whose label goes.
    allowed: Vec<&'a E>,
    /// The tuples of these, and those of connections without an entry that are allowed again.
    forgotten: Vec<FiveTuple>,
}

fn judge<'a, D: DataPlane>(
    plane: &D,
    host: &Host,
    connections: &'a [(Connection, D::Entry)],
) -> Verdicts<'a, D::Entry> {
    let plan = plane.programmed();
    let mut out =
        Verdicts { denied: Vec::new(), cut: Vec::new(), allowed: Vec::new(), forgotten: Vec::new() };
    let mut allowed_again: BTreeSet<FiveTuple> = allowed_again(plane, host).collect();
    for (connection, entry) in connections {
        match denied(plan, host, connection, |tuple| plane.is_revoked(tuple)) {
            Some(tuple) => {
                out.cut.push(tuple);
                let is_remembered = !tuple.outlives_its_entry() || plane.is_revoked(&tuple);
                if !connection.revoked || !is_remembered {
                    out.denied.push((tuple, entry));
                }
            }
            None if connection.revoked => {
                out.allowed.push(entry);
                allowed_again.insert(connection.tuple);
            }
            None => {}
        }
    }
    out.forgotten.extend(allowed_again);
    out
}

#[cfg(test)]
mod tests;

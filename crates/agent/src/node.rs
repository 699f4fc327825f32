//! The agent of one node: performs the reconciler's actions on a data plane.

mod degraded;
mod fail_closed;
mod report;
mod review;

use std::{
    collections::HashSet,
    fmt,
    time::{Duration, Instant},
};

use palisade_policy::{Change, Cluster, Delta, Deny, Interner, Mode, Name, NodePlan};

pub use report::Report;
pub use review::ReviewState;

use crate::{
    Action, DataPlane, DataPlaneError, Input, Programmed, Reconciler, ReviewScope, other_pods::OtherPods,
    stale::restricted,
};
use degraded::Degraded;
use review::Reviews;

/// The agent of one node: a [`Reconciler`] and the executor of its actions.
///
/// It works on the calling thread. Dropping it leaves the rules in the kernel.
///
/// Changes are committed before a call returns. The review of established connections that follows is done in steps, one with each call,
/// so that it delays no change: while [`Report::review_due`] is set, the caller calls [`NodeAgent::tick`] at that time.
#[derive(Debug)]
pub struct NodeAgent<D: DataPlane> {
    reconciler: Reconciler,
    plane: D,
    started: Instant,
    clock: Clock,
    reviews: Reviews<D::ConntrackEntry>,
    degraded: Degraded,
    /// The version of [`Reconciler::pod_sources`] that the data plane has.
    sources: u64,
    other_pods: OtherPods,
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
        Self::in_mode(node, plane, Mode::Enforce)
    }

    /// [`NodeAgent::new`] with the mode of policies that set none ([`Cluster::mode`]).
    pub fn in_mode(node: Name, plane: D, mode: Mode) -> Self {
        let started = Instant::now();
        Self {
            reconciler: Reconciler::in_mode(node, mode),
            plane,
            started,
            clock: Clock(Box::new(move || started.elapsed())),
            reviews: Reviews::default(),
            degraded: Degraded::default(),
            sources: 0,
            other_pods: OtherPods::default(),
        }
    }

    /// Sets what happens to what policies deny where the namespace doesn't ([`Reconciler::denying_by`]).
    #[must_use]
    pub fn denying_by(self, deny: Deny) -> Self {
        Self { reconciler: self.reconciler.denying_by(deny), ..self }
    }

    /// Applies a snapshot of the whole cluster.
    pub fn snapshot(&mut self, cluster: Cluster) -> Report {
        self.handle(Input::Snapshot(cluster))
    }

    /// Applies changes together: usually in one transaction, whatever their number.
    pub fn apply(&mut self, changes: Vec<Change>) -> Report {
        self.handle(Input::Changes(changes))
    }

    /// Continues what is due: a rejected plan, and the review of connections ([`Report::review_due`]).
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
        let all = self.all_connections();
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
        let may_change_checks = input.may_change_namespaces();
        let concerned = match &input {
            Input::Changes(changes) => self.other_pods.concerned(changes, &self.reconciler),
            _ => HashSet::new(),
        };
        let is_snapshot = matches!(input, Input::Snapshot(_));
        let mut actions = self.reconciler.handle(input, begin);
        report.compile = self.now() - begin;
        if is_snapshot {
            self.other_pods.set_all(self.other_pods.is_followed(), &self.reconciler);
        }
        if self.other_pods.follow(concerned, &self.reconciler) || is_snapshot {
            self.plane.set_other_pods(&self.other_pods.addresses());
        }
        if may_change_checks {
            self.plane.set_unchecked_namespaces(self.reconciler.unchecked_namespaces());
        }
        let (sources, version) = self.reconciler.pod_sources();
        if self.sources != version {
            self.plane.set_allowed_sources(&sources.allowed);
            self.sources = version;
        }
        while !actions.is_empty() {
            let mut next = Vec::new();
            for action in actions {
                if let Some(result) = self.perform(action, &mut report) {
                    next.extend(self.reconciler.handle(result, self.now()));
                }
            }
            actions = next;
        }
        let Self { reviews, plane, clock, .. } = self;
        reviews.step(plane, || (clock.0)(), &mut report);
        report.review_due = self.reviews.due(self.now()).map(|due| self.started + due);
        self.degraded.fill(&mut report);
        report
    }

    /// Follows whether the data plane wants the addresses of pods of other nodes, which the node's links decide. `O(1)` unless that changes.
    pub fn follow_wish_for_other_pods(&mut self) {
        let is_wanted = self.plane.wants_other_pods();
        if is_wanted != self.other_pods.is_followed() && !self.reconciler.is_waiting() {
            self.other_pods.set_all(is_wanted, &self.reconciler);
            self.plane.set_other_pods(&self.other_pods.addresses());
        }
    }

    /// What a review after a start has to check: the connections of local pods, and all revoked ones.
    fn all_connections(&self) -> ReviewScope {
        let mut ends = self.reconciler.local_addresses();
        ends.extend(self.plane.revoked().iter().map(|tuple| tuple.source));
        ReviewScope { ends, labelled: true }
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
                self.plane.name_local(&self.reconciler.local_owners());
                // Whether they are wanted is known only when the links have been read, and then it would be too late for the first rules.
                self.other_pods.set_all(true, &self.reconciler);
                self.plane.set_other_pods(&self.other_pods.addresses());
                let started = self.plane.start(self.reconciler.plan());
                self.follow_wish_for_other_pods();
                started.map(|programmed| (programmed, self.all_connections()))
            }
            Action::Commit { delta, owners } => {
                self.plane.name_local(&owners);
                self.commit(&delta)
            }
            Action::FailClosed => {
                self.fail_closed(report);
                return None;
            }
        };
        report.commit += self.now() - begin;
        match done {
            Ok((programmed, scope)) => {
                report.commits.push(programmed);
                report.committed = Some(self.started + self.now());
                self.review_later(scope);
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

    fn commit(&mut self, delta: &Delta) -> Result<(Programmed, ReviewScope), DataPlaneError> {
        let ends = restricted(self.plane.programmed(), self.reconciler.plan(), delta);
        Ok((self.plane.commit(delta)?, ReviewScope { ends, labelled: false }))
    }

    /// Adds connections that need a review.
    fn review_later(&mut self, scope: ReviewScope) {
        let now = self.now();
        self.reviews.add(scope, now);
    }

    /// Lets the review of what is committed begin at the next [`NodeAgent::tick`], without the pause between reviews. Returns when that is
    /// due, `None` if all is reviewed.
    #[cfg(any(test, feature = "daemon"))]
    pub(crate) fn hurry_review(&mut self) -> Option<Instant> {
        self.reviews.hurry();
        self.reviews.due(self.now()).map(|due| self.started + due)
    }

    /// Lets the next review wait until [`NodeAgent::hurry_review`], at most as long as for the longest pause between reviews.
    #[cfg(any(test, feature = "daemon"))]
    pub(crate) fn hold_review(&mut self) {
        self.reviews.hold();
    }

    /// What the review of established connections is doing.
    #[must_use]
    pub fn review_state(&self) -> ReviewState {
        self.reviews.state(self.now())
    }
}

#[cfg(test)]
mod tests;

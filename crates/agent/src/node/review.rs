//! The review of established connections: which of them the committed rules deny, and which revoked ones they allow again.
//!
//! ```text
//!   commit ─► pending Scope ──┐ (the schedule permits)
//!                             ▼
//!   idle ─► Searching ─► Listing ─────────────► Judging ─► Restoring ─► idle
//!           revoked      the data plane lists   slices of  what is left
//!           connections  connections beside     the list   of the search
//!           allowed now  everything else
//! ```
//!
//! Changes go first: a review is done in steps, each bounded by [`SLICE`] and [`ACTIONS`], and between two steps the caller commits
//! whatever has arrived. The only part that takes long, listing connections, is done by the data plane at the same time.
//!
//! Invariants, for any sequence of commits between the steps:
//!
//! 1. **A step judges by the newest committed rules.** Verdict, memory and label of a connection are one step, on the thread that commits.
//!    No commit can come between the verdict and the revocation, so an older review never cuts what a newer change allows, and never
//!    restores what a newer change denies.
//! 2. **What a commit may deny is in a listing that begins after it.** Its scope is pending until a review begins, and that review lists
//!    after it has taken the scope. A commit during a review is pending for the next one, whatever the running one has seen.
//! 3. **A failed review loses nothing.** Its scope is pending again.
//! 4. **What a commit allows again is restored by a review that searches after it.** A revoked connection that the search has found and
//!    a later step has denied is not restored by this review: the commit between the two is pending, and its review searches again.
//! 5. **Every call makes at least one step if one is possible**, so reviews end under a continuous stream of changes too.
//!
//! A connection that begins after a commit meets its rules, and one that began before is in the listing.

use std::{collections::BTreeSet, mem, net::IpAddr, time::Duration};

use super::report::Report;
use crate::{
    DataPlane, DataPlaneError, FiveTuple, ReviewScope, TrackedConnection,
    review_schedule::{MAX_PAUSE, ReviewSchedule},
    stale::{Host, denied, is_allowed},
};

/// The most connections that one step judges: less than a millisecond of work.
const SLICE: usize = 512;
/// The most connections that one step revokes or restores. Each takes a request to the kernel, together about two milliseconds.
const ACTIONS: usize = 128;

/// What the review of established connections is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReviewState {
    /// How long ago the oldest commit was whose connections are not all reviewed. `None` if all are.
    pub unreviewed_for: Option<Duration>,
    /// Whether a review has begun. Otherwise it waits, because reviews are separated by pauses.
    pub is_running: bool,
    /// How many listed connections the running review has still to judge. `None` unless it has listed them.
    pub left: Option<usize>,
}

/// Reviews of established connections. `E`: the handle of a connection-tracking entry.
#[derive(Debug)]
pub(super) struct Reviews<E> {
    /// What was committed since the last review began, and when the first of it was.
    pending: Option<(ReviewScope, Duration)>,
    running: Option<Running<E>>,
    /// One end of each connection that has our revocation label but is not in the set of revoked connections.
    only_labelled: BTreeSet<IpAddr>,
    schedule: ReviewSchedule,
    /// Whether the next review begins without a pause.
    is_urgent: bool,
    /// Whether the next review waits for [`Reviews::hurry`], though not longer than for the longest pause.
    is_held: bool,
}

/// A review that has begun.
#[derive(Debug)]
struct Running<E> {
    /// What it covers, for the case that it fails, and since when that is committed.
    scope: ReviewScope,
    since: Duration,
    begun: Duration,
    host: Host,
    phase: Phase<E>,
    /// The revoked connections that the search has found to be allowed, unless a step has restored or denied them.
    to_restore: BTreeSet<FiveTuple>,
    /// The next value of [`Reviews::only_labelled`].
    only_labelled: BTreeSet<IpAddr>,
    /// Whether connections were listed.
    has_listed: bool,
    /// Whether any of them is denied, and so revoked.
    has_denied: bool,
    totals: Totals,
}

#[derive(Debug)]
enum Phase<E> {
    /// Searches the revoked connections after this one.
    Searching(Option<FiveTuple>),
    /// The data plane lists connections that have one of these addresses at either end.
    Listing(BTreeSet<IpAddr>),
    /// Judges what was listed with these ends, from the back.
    Judging(BTreeSet<IpAddr>, Vec<(TrackedConnection, E)>),
    /// Restores revoked connections that have no entry.
    Restoring,
}

#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    revoked: usize,
    restored: usize,
    not_remembered: usize,
}

impl<E> Default for Reviews<E> {
    fn default() -> Self {
        Self {
            pending: None,
            running: None,
            only_labelled: BTreeSet::new(),
            schedule: ReviewSchedule::default(),
            is_urgent: false,
            is_held: false,
        }
    }
}

/// What follows a step.
enum Next<E> {
    Phase(Phase<E>),
    Done,
}

impl<E> Reviews<E> {
    /// Adds what a commit may have denied. Must be called for every commit, also if it denies nothing: it may allow revoked connections.
    pub(super) fn add(&mut self, scope: ReviewScope, now: Duration) {
        match &mut self.pending {
            Some((pending, _)) => pending.extend(scope),
            None => self.pending = Some((scope, now)),
        }
    }

    /// Lets the review of what is committed begin without a pause, after the running one if there is one.
    #[cfg(any(test, feature = "daemon"))]
    pub(super) fn hurry(&mut self) {
        self.is_urgent |= self.pending.is_some();
        self.is_held = false;
    }

    /// Lets the next review wait for [`Reviews::hurry`], because something else walks the kernel's table at the moment: two walks at a time take
    /// twice as long each. It waits at most [`MAX_PAUSE`] after the oldest commit that it covers.
    #[cfg(any(test, feature = "daemon"))]
    pub(super) fn hold(&mut self) {
        self.is_held = true;
    }

    /// When the pending review may begin.
    fn next(&self, since: Duration) -> Duration {
        if self.is_urgent {
            return Duration::ZERO;
        }
        let held = if self.is_held { since + MAX_PAUSE } else { Duration::ZERO };
        self.schedule.next().max(held)
    }

    pub(super) fn state(&self, now: Duration) -> ReviewState {
        let running = self.running.as_ref();
        let since = running.map(|r| r.since).or(self.pending.as_ref().map(|(_, since)| *since));
        ReviewState {
            unreviewed_for: since.map(|since| now.saturating_sub(since)),
            is_running: running.is_some(),
            left: running.and_then(|r| match &r.phase {
                Phase::Judging(_, connections) => Some(connections.len()),
                _ => None,
            }),
        }
    }

    /// When the next step is possible: at once, when the data plane has listed, or when the schedule permits the next review.
    pub(super) fn due(&self, now: Duration) -> Option<Duration> {
        /// The first and the longest pause after which the data plane is asked whether the listing is complete. In between, an eighth of the
        /// time that it has taken so far.
        const POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
        match &self.running {
            Some(Running { phase: Phase::Listing(_), begun, .. }) => {
                Some(now + (now.saturating_sub(*begun) / 8).clamp(POLL.0, POLL.1))
            }
            Some(_) => Some(now),
            None => self.pending.as_ref().map(|(_, since)| self.next(*since).max(now)),
        }
    }

    /// Makes one step, if one is possible. Adds the outcome to the report when the review ends.
    pub(super) fn step<D>(&mut self, plane: &mut D, now: impl Fn() -> Duration, report: &mut Report)
    where
        D: DataPlane<ConntrackEntry = E>,
    {
        if self.running.is_none() && !self.begin(plane, now(), report) {
            return;
        }
        let Some(mut running) = self.running.take() else { return };
        let phase = mem::replace(&mut running.phase, Phase::Restoring);
        match running.advance(phase, &self.only_labelled, plane) {
            Ok(Next::Phase(phase)) => {
                running.phase = phase;
                self.running = Some(running);
            }
            Ok(Next::Done) => {
                self.only_labelled = mem::take(&mut running.only_labelled);
                let end = now();
                self.schedule.succeeded(running.begun, end);
                report.review_succeeded = true;
                running.finish(end, report);
            }
            Err(error) => self.failed(running, error, now(), report),
        }
    }

    /// Begins a review if something is pending and the schedule permits it.
    fn begin<D: DataPlane>(&mut self, plane: &mut D, now: Duration, report: &mut Report) -> bool {
        let Some((scope, since)) = &self.pending else { return false };
        if scope.is_empty() && self.only_labelled.is_empty() && !plane.has_revoked() {
            self.pending = None;
            (self.is_urgent, self.is_held) = (false, false);
            report.review_succeeded = true;
            return false;
        }
        if now < self.next(*since) {
            return false;
        }
        (self.is_urgent, self.is_held) = (false, false);
        let addresses = match plane.host_addresses() {
            Ok(addresses) => addresses,
            Err(error) => {
                self.schedule.failed(now);
                report.errors.push(error);
                report.review_failed = true;
                return false;
            }
        };
        let Some((scope, since)) = self.pending.take() else { return false };
        self.running = Some(Running {
            scope,
            since,
            begun: now,
            host: Host { addresses, is_exempt: plane.exempts_own_node() },
            phase: Phase::Searching(None),
            to_restore: BTreeSet::new(),
            only_labelled: BTreeSet::new(),
            has_listed: false,
            has_denied: false,
            totals: Totals::default(),
        });
        true
    }

    fn failed(&mut self, mut running: Running<E>, error: DataPlaneError, now: Duration, report: &mut Report) {
        self.schedule.failed(now);
        self.is_urgent = false;
        // The next review checks the same connections again.
        self.only_labelled.append(&mut running.only_labelled);
        let later = self.pending.take().map(|(scope, _)| scope).unwrap_or_default();
        running.scope.extend(later);
        self.pending = Some((mem::take(&mut running.scope), running.since));
        running.finish(now, report);
        report.errors.push(error);
        report.review_failed = true;
    }
}

impl<E> Running<E> {
    fn finish(self, now: Duration, report: &mut Report) {
        if self.has_listed {
            report.review = now.saturating_sub(self.begun);
        }
        report.revoked += self.totals.revoked;
        report.restored += self.totals.restored;
        report.not_remembered += self.totals.not_remembered;
    }

    fn advance<D>(
        &mut self,
        phase: Phase<E>,
        only_labelled: &BTreeSet<IpAddr>,
        plane: &mut D,
    ) -> Result<Next<E>, DataPlaneError>
    where
        D: DataPlane<ConntrackEntry = E>,
    {
        Ok(match phase {
            Phase::Searching(after) => match self.search(after, plane) {
                Some(last) => Next::Phase(Phase::Searching(Some(last))),
                None => self.list(only_labelled, plane)?,
            },
            Phase::Listing(ends) => match plane.listed() {
                None => Next::Phase(Phase::Listing(ends)),
                Some(connections) => Next::Phase(Phase::Judging(ends, connections?)),
            },
            Phase::Judging(ends, mut connections) => {
                self.judge(&ends, &mut connections, plane)?;
                match connections.is_empty() {
                    true => Next::Phase(Phase::Restoring),
                    false => Next::Phase(Phase::Judging(ends, connections)),
                }
            }
            Phase::Restoring => {
                self.restore(plane)?;
                if !self.to_restore.is_empty() {
                    return Ok(Next::Phase(Phase::Restoring));
                }
                if self.has_found_none_revoked() && !plane.has_revoked() {
                    plane.none_revoked()?;
                }
                Next::Done
            }
        })
    }

    /// Whether no connection that exists is revoked: all that were are listed, and those listed are restored.
    fn has_found_none_revoked(&self) -> bool {
        self.scope.labelled && self.has_listed && !self.has_denied
    }

    /// Searches a slice of the revoked connections for those that are allowed. Returns the last of the slice, or `None` at the end.
    fn search<D: DataPlane>(&mut self, after: Option<FiveTuple>, plane: &D) -> Option<FiveTuple> {
        let slice = plane.revoked_after(after.as_ref(), SLICE);
        let allowed = slice.iter().filter(|tuple| is_allowed(plane.programmed(), &self.host, tuple));
        self.to_restore.extend(allowed);
        slice.last().copied().filter(|_| slice.len() == SLICE)
    }

    /// Begins the listing. Lists nothing if there is nothing to review.
    fn list<D: DataPlane>(
        &mut self,
        only_labelled: &BTreeSet<IpAddr>,
        plane: &mut D,
    ) -> Result<Next<E>, DataPlaneError> {
        let mut wanted = self.scope.clone();
        wanted.ends.extend(only_labelled);
        wanted.ends.extend(self.to_restore.iter().map(|tuple| tuple.source));
        if wanted.is_empty() {
            return Ok(Next::Done);
        }
        self.has_listed = true;
        plane.begin_listing(&wanted)?;
        Ok(Next::Phase(Phase::Listing(wanted.ends)))
    }

    /// Judges a slice of the listed connections, and revokes or restores them.
    fn judge<D>(
        &mut self,
        ends: &BTreeSet<IpAddr>,
        connections: &mut Vec<(TrackedConnection, E)>,
        plane: &mut D,
    ) -> Result<(), DataPlaneError>
    where
        D: DataPlane<ConntrackEntry = E>,
    {
        let (mut denied_tuples, mut to_revoke, mut to_unlabel) = (Vec::new(), Vec::new(), Vec::new());
        let mut judged = 0;
        while judged < SLICE && to_revoke.len() + to_unlabel.len() < ACTIONS {
            let Some((connection, entry)) = connections.pop() else { break };
            judged += 1;
            match denied(plane.programmed(), &self.host, &connection, |tuple| plane.is_revoked(tuple)) {
                Some(tuple) => {
                    self.has_denied = true;
                    denied_tuples.push(tuple);
                    let is_remembered = !tuple.outlives_its_entry() || plane.is_revoked(&tuple);
                    if !connection.revoked || !is_remembered {
                        to_revoke.push((tuple, entry));
                    }
                }
                None if connection.revoked => to_unlabel.push((connection.tuple, entry)),
                None => {}
            }
        }
        if !to_revoke.is_empty() {
            let entries: Vec<(FiveTuple, &E)> =
                to_revoke.iter().map(|(tuple, entry)| (*tuple, entry)).collect();
            let summary = plane.revoke(&entries)?;
            self.totals.revoked += summary.revoked;
            self.totals.not_remembered += summary.not_remembered;
        }
        if !to_unlabel.is_empty() {
            let tuples: Vec<FiveTuple> = to_unlabel.iter().map(|(tuple, _)| *tuple).collect();
            let entries: Vec<&E> = to_unlabel.iter().map(|(_, entry)| entry).collect();
            plane.restore(&tuples, &entries)?;
            for tuple in &tuples {
                self.to_restore.remove(tuple);
            }
            self.totals.restored += tuples.len();
        }
        for tuple in denied_tuples {
            self.to_restore.remove(&tuple);
            if !plane.is_revoked(&tuple) {
                let end = if ends.contains(&tuple.source) { tuple.source } else { tuple.destination };
                self.only_labelled.insert(end);
            }
        }
        Ok(())
    }

    /// Restores a slice of the revoked connections that are allowed and were not listed, unless they are denied now.
    fn restore<D: DataPlane>(&mut self, plane: &mut D) -> Result<(), DataPlaneError> {
        let slice: Vec<FiveTuple> = self.to_restore.iter().take(ACTIONS).copied().collect();
        let plan = plane.programmed();
        let allowed: Vec<FiveTuple> =
            slice.iter().filter(|tuple| is_allowed(plan, &self.host, tuple)).copied().collect();
        if !allowed.is_empty() {
            plane.restore(&allowed, &[])?;
            self.totals.restored += allowed.len();
        }
        for tuple in &slice {
            self.to_restore.remove(tuple);
        }
        Ok(())
    }
}

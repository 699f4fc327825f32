//! When changes of our table by other programs are repaired.
//!
//! Until a change is repaired, packets may pass that policies deny, so a repair begins at once. But it reads or sends the
//! whole table, and a program that changes the table all the time would keep a core busy. So repairs have a time budget.

use std::time::{Duration, Instant};

use super::inbox::TableChange;

/// How often the table's generation is checked, in case notifications were missed.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// The shortest interval between two log lines about repairs.
const LOG_INTERVAL: Duration = Duration::from_secs(2);
/// Repairs take at most one part in this many of a core's time in the long run.
const SHARE: u32 = 2;
/// The time that repairs may take at once after an idle period.
const BURST: Duration = Duration::from_secs(1);
/// The longest delay of a repair, whatever repairs cost.
const MAX_DELAY: Duration = Duration::from_millis(250);
/// The pause after the kernel refused a repair.
const RETRY: Duration = Duration::from_secs(2);

/// The time that repairs may take: a token bucket.
#[derive(Debug)]
struct Budget {
    /// When all the time that was spent has been regained.
    regained: Instant,
    /// Repairs pause until then, because the kernel refused the last one.
    paused_until: Option<Instant>,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { regained: now, paused_until: None }
    }

    /// When the next repair may begin.
    fn next(&self) -> Instant {
        let by_cost = self.regained.checked_sub(BURST * SHARE).unwrap_or(self.regained);
        self.paused_until.map_or(by_cost, |pause| pause.max(by_cost))
    }

    fn spend(&mut self, begin: Instant, end: Instant) {
        let cost = end.saturating_duration_since(begin);
        // Limits the debt to what is regained within the longest delay.
        let latest = end + BURST * SHARE + MAX_DELAY;
        self.regained = (self.regained.max(begin) + cost * SHARE).min(latest);
        self.paused_until = None;
    }

    fn refused(&mut self, end: Instant) {
        self.paused_until = Some(end + RETRY);
    }
}

/// A pending change of the table, and the state of its repair.
#[derive(Debug)]
pub(super) struct Repairs {
    /// The change since the last repair.
    pending: Option<TableChange>,
    /// Why the last repair failed.
    failure: Option<String>,
    budget: Budget,
    /// When the table's generation was last checked.
    checked: Instant,
    /// When a repair was last logged, and the number of repairs since.
    logged: Option<Instant>,
    unlogged: u32,
}

impl Repairs {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            pending: None,
            failure: None,
            budget: Budget::new(now),
            checked: now,
            logged: None,
            unlogged: 0,
        }
    }

    /// Records a change of the table.
    pub(super) fn add(&mut self, change: TableChange) {
        if change.removed_table {
            // The reason for the last refusal may be gone with the table.
            self.budget.paused_until = None;
        }
        match &mut self.pending {
            Some(pending) => pending.removed_table |= change.removed_table,
            None => self.pending = Some(change),
        }
    }

    /// When the pending change is due for repair. `None` if no change is pending.
    pub(super) fn due(&self) -> Option<Instant> {
        self.pending.as_ref().map(|_| self.budget.next())
    }

    /// Takes the pending change if its repair is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<TableChange> {
        if self.due()? > now { None } else { self.pending.take() }
    }

    /// Whether the table's generation must be checked now. If so, the caller checks it.
    pub(super) fn take_check_due(&mut self, now: Instant) -> bool {
        let is_due = self.pending.is_none() && now.saturating_duration_since(self.checked) >= CHECK_INTERVAL;
        if is_due {
            self.checked = now;
        }
        is_due
    }

    /// Records the time that an attempt took.
    pub(super) fn spend(&mut self, begin: Instant, end: Instant) {
        self.budget.spend(begin, end);
    }

    /// Records a success. Returns the number of repairs to log, if it's time to log them.
    pub(super) fn succeeded(&mut self, now: Instant) -> Option<u32> {
        self.failure = None;
        self.unlogged += 1;
        if self.logged.is_some_and(|at| now.saturating_duration_since(at) < LOG_INTERVAL) {
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }

    /// Records a failure. The change stays pending.
    pub(super) fn failed(&mut self, change: TableChange, error: String, now: Instant) {
        self.failure = Some(error);
        self.budget.refused(now);
        self.pending = Some(change);
    }

    /// Why the table could not be repaired, if it couldn't.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Returns the delays of 100 repairs of changes that come at `interval`, if each repair takes `cost`.
    fn delays(interval: Duration, cost: Duration) -> Vec<Duration> {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let mut now = start;
        let delay = |index: u32| {
            let change = start + interval * index;
            now = now.max(change).max(budget.next());
            let begin = now;
            now += cost;
            budget.spend(begin, now);
            begin.saturating_duration_since(change)
        };
        (0..100).map(delay).collect()
    }

    #[test]
    fn cheap_repairs_are_never_delayed() {
        assert!(delays(ms(100), ms(40)).iter().all(Duration::is_zero));
    }

    #[test]
    fn expensive_repairs_are_delayed_once_the_burst_is_spent() {
        let delays = delays(ms(100), ms(80));
        assert!(delays[..20].iter().all(Duration::is_zero), "{delays:?}");
        assert!(!delays[99].is_zero());
    }

    #[test]
    fn the_delay_is_bounded_whatever_repairs_cost() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let mut now = start;
        for _ in 0..5 {
            budget.spend(now, now + ms(5000));
            now += ms(5000);
            assert!(budget.next() <= now + MAX_DELAY);
        }
        budget.refused(now);
        assert_eq!(budget.next(), now + RETRY);
    }

    #[test]
    fn removal_of_the_table_ends_the_pause() {
        let now = Instant::now();
        let mut repairs = Repairs::new(now);
        assert_eq!(repairs.due(), None);
        let change =
            |removed_table| TableChange { description: "removal of the table".to_owned(), removed_table };
        repairs.failed(change(false), "refused".to_owned(), now);
        assert!(repairs.due().unwrap() > now && repairs.take_due(now).is_none());
        repairs.add(change(true));
        assert!(repairs.take_due(now).unwrap().removed_table);
    }

    #[test]
    fn repairs_are_logged_at_intervals_with_their_number() {
        let now = Instant::now();
        let mut repairs = Repairs::new(now);
        assert_eq!(repairs.succeeded(now), Some(1));
        assert_eq!((repairs.succeeded(now + ms(100)), repairs.succeeded(now + ms(200))), (None, None));
        assert_eq!(repairs.succeeded(now + LOG_INTERVAL), Some(3));
    }

    #[test]
    fn the_generation_is_checked_at_intervals_unless_a_repair_is_pending() {
        let now = Instant::now();
        let mut repairs = Repairs::new(now);
        assert!(!repairs.take_check_due(now + CHECK_INTERVAL / 2));
        assert!(
            repairs.take_check_due(now + CHECK_INTERVAL) && !repairs.take_check_due(now + CHECK_INTERVAL)
        );
        repairs.add(TableChange { description: String::new(), removed_table: false });
        assert!(!repairs.take_check_due(now + CHECK_INTERVAL * 2));
    }
}

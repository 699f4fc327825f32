//! Putting right what others do to the table.
//!
//! Until it is done, packets pass that policies deny: so it begins at once. But it takes a reading of the table, or the
//! sending of the whole, and a program that never rests would keep a core busy with it. So mending has a budget.

use std::time::{Duration, Instant};

use super::Worker;
use crate::{daemon::inbox::Drifted, words};

/// How often the number of the kernel's table is looked at, should nobody tell of changes by others.
const LOOK: Duration = Duration::from_secs(10);

/// How often mending is told at most.
const TELL: Duration = Duration::from_secs(2);

/// The part of a core's time that mending may take in the long run: one in so many.
const SHARE: u32 = 2;
/// What may be taken at once after a rest.
const SAVINGS: Duration = Duration::from_secs(1);
/// The longest wait of a table for being mended, however much mending costs.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// The pause after the kernel refused.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(2);

/// The time that mending may take: what it saved while nothing was to be mended, and a share of what passes.
#[derive(Debug)]
struct Budget {
    /// When all that was spent is paid back.
    paid: Instant,
    /// Not before: the kernel refused a moment ago.
    pause: Option<Instant>,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { paid: now, pause: None }
    }

    /// When mending may begin.
    fn next(&self) -> Instant {
        let by_cost = self.paid.checked_sub(SAVINGS * SHARE).unwrap_or(self.paid);
        self.pause.map_or(by_cost, |pause| pause.max(by_cost))
    }

    fn spend(&mut self, begin: Instant, end: Instant) {
        let cost = end.saturating_duration_since(begin);
        // No more is owed than what the longest wait pays back.
        let most = end + SAVINGS * SHARE + LONGEST_WAIT;
        self.paid = (self.paid.max(begin) + cost * SHARE).min(most);
        self.pause = None;
    }

    fn refused(&mut self, end: Instant) {
        self.pause = Some(end + REST_AFTER_FAILURE);
    }
}

/// What others did, and what is being done about it.
#[derive(Debug)]
pub(super) struct Mending {
    /// What somebody did to the table since it was mended.
    drifted: Option<Drifted>,
    /// Why it can't be mended, if it can't.
    failing: Option<String>,
    budget: Budget,
    looked: Instant,
    /// When mending was told last, and how many times since it was not.
    told: Option<Instant>,
    untold: u32,
}

impl Mending {
    pub(super) fn new(now: Instant) -> Self {
        Self { drifted: None, failing: None, budget: Budget::new(now), looked: now, told: None, untold: 0 }
    }

    /// Notes what somebody did.
    pub(super) fn heard(&mut self, drifted: Drifted) {
        if drifted.gone {
            // Whoever was in the way may have gone with it.
            self.budget.pause = None;
        }
        match &mut self.drifted {
            Some(known) => known.gone |= drifted.gone,
            None => self.drifted = Some(drifted),
        }
    }

    /// When the table is to be mended, if it is.
    pub(super) fn due(&self) -> Option<Instant> {
        self.drifted.as_ref().map(|_| self.budget.next())
    }

    /// Why the table is not as it should be, if it is not.
    pub(super) fn failing(&self) -> Option<&str> {
        self.failing.as_deref()
    }

    /// How many times the table was mended since that was told, if it is to be told now.
    fn tell(&mut self, now: Instant) -> Option<u32> {
        self.untold += 1;
        if self.told.is_some_and(|at| now.saturating_duration_since(at) < TELL) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

impl Worker {
    /// Puts right what others did to the table, and has all open connections decided anew: those that began in the
    /// meantime met no rules.
    pub(super) fn mend(&mut self) {
        if self.agent.reconciler().is_waiting() {
            return;
        }
        self.look_at_the_table();
        let begin = Instant::now();
        if self.mending.due().is_none_or(|due| due > begin) {
            return;
        }
        let Some(drifted) = self.mending.drifted.take() else { return };
        let plane = self.agent.data_plane();
        // A table that is gone needs no reading.
        let outcome = if drifted.gone { plane.remake() } else { plane.repair() };
        let end = Instant::now();
        self.mending.budget.spend(begin, end);
        let what = drifted.what.clone();
        match outcome {
            // Nothing is programmed yet, so there is nothing to hold the kernel to.
            Ok(done) if done.transactions == 0 => tracing::debug!(what, "nothing was to be mended"),
            Ok(done) => {
                self.mending.failing = None;
                self.generation = done.generation;
                if let Some(times) = self.mending.tell(end) {
                    let (elements, milliseconds) = (done.elements, (end - begin).as_millis() as u64);
                    tracing::error!(
                        what,
                        times,
                        elements,
                        milliseconds,
                        "another program changed the table inet palisade: it is mended"
                    );
                }
                self.ledger.error("drift", what);
                self.agent.review_all();
                // Others may have touched what stands in the place of a plan that the kernel refuses.
                let is_behind = self.agent.reconciler().is_behind();
                let report = if is_behind { self.agent.disturbed() } else { self.agent.tick() };
                self.settle(report, None);
            }
            Err(error) => {
                let why = words::with_causes(&error);
                tracing::error!(
                    what,
                    why,
                    "another program changed the table inet palisade, and it can't be mended"
                );
                self.ledger.error("drift", format!("{what}: {why}"));
                self.mending.failing = Some(why);
                self.mending.budget.refused(end);
                self.mending.drifted = Some(drifted);
                // What the kernel holds is not what was programmed.
                let report = self.agent.disturbed();
                self.settle(report, None);
            }
        }
    }

    /// Should nobody tell of changes by others, the number of the table does.
    fn look_at_the_table(&mut self) {
        if self.mending.drifted.is_some() || self.mending.looked.elapsed() < LOOK {
            return;
        }
        self.mending.looked = Instant::now();
        match self.agent.data_plane().in_step() {
            Ok(true) => {}
            Ok(false) => {
                let what = "the table is not the one that was written last".to_owned();
                self.mending.heard(Drifted { what, gone: false });
            }
            Err(error) => self.not_heard("drift", &error.into(), "the table can't be looked at"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// How long each of many edits waits, one every `every`, where mending takes `cost`.
    fn waits(every: Duration, cost: Duration) -> Vec<Duration> {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let mut now = start;
        let wait = |index: u32| {
            let edit = start + every * index;
            now = now.max(edit).max(budget.next());
            let begin = now;
            now += cost;
            budget.spend(begin, now);
            begin.saturating_duration_since(edit)
        };
        (0..100).map(wait).collect()
    }

    #[test]
    fn edits_that_cost_little_are_mended_at_once_for_ever() {
        assert!(waits(ms(100), ms(40)).iter().all(Duration::is_zero));
    }

    #[test]
    fn what_was_saved_is_spent_at_once_and_then_mending_takes_its_share() {
        let waits = waits(ms(100), ms(80));
        assert!(waits[..20].iter().all(Duration::is_zero), "{waits:?}");
        assert!(!waits[99].is_zero());
    }

    #[test]
    fn however_much_mending_costs_the_next_comes_soon() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let mut now = start;
        for _ in 0..5 {
            budget.spend(now, now + ms(5000));
            now += ms(5000);
            assert!(budget.next() <= now + LONGEST_WAIT);
        }
        budget.refused(now);
        assert_eq!(budget.next(), now + REST_AFTER_FAILURE);
    }

    #[test]
    fn a_table_that_is_gone_waits_for_no_pause() {
        let now = Instant::now();
        let mut mending = Mending::new(now);
        assert_eq!(mending.due(), None);
        let drifted = |gone| Drifted { what: "removal of the table".to_owned(), gone };
        mending.heard(drifted(false));
        mending.budget.refused(now);
        assert!(mending.due().unwrap() > now);
        mending.heard(drifted(true));
        assert!(mending.due().unwrap() <= now && mending.drifted.unwrap().gone);
    }

    #[test]
    fn mending_is_told_now_and_then_with_a_count() {
        let now = Instant::now();
        let mut mending = Mending::new(now);
        assert_eq!(mending.tell(now), Some(1));
        assert_eq!((mending.tell(now + ms(100)), mending.tell(now + ms(200))), (None, None));
        assert_eq!(mending.tell(now + TELL), Some(3));
    }
}

//! When established connections are reviewed.
//!
//! A review walks the kernel's whole connection-tracking table, whatever it looks for: some 18 ms if the table has 262,144
//! buckets. If pods come and go by the thousand, not every change can have its own review. So reviews are separated by
//! pauses in proportion to their cost, and one review covers all changes since the last. The first after an idle period
//! is immediate. While each review is followed by the next, the pauses double up to the longest.

use std::time::Duration;

/// The first pause after a review is this many times its cost.
const PAUSE_FACTOR: u32 = 4;
/// The longest pause. A connection that is now denied survives at most this long after the commit, plus the duration of the
/// review.
pub(crate) const MAX_PAUSE: Duration = Duration::from_millis(250);
/// The pause after a failed review.
const RETRY: Duration = Duration::from_secs(1);

/// When the next review may begin. Times are durations since any fixed instant.
#[derive(Debug, Default)]
pub(crate) struct ReviewSchedule {
    next: Duration,
    /// The last pause.
    pause: Duration,
}

impl ReviewSchedule {
    /// When the next review may begin.
    pub(crate) fn next(&self) -> Duration {
        self.next
    }

    /// Records a failed review.
    pub(crate) fn failed(&mut self, end: Duration) {
        self.next = end + RETRY;
    }

    /// Records a successful review.
    pub(crate) fn succeeded(&mut self, begin: Duration, end: Duration) {
        let by_cost = end.saturating_sub(begin).saturating_mul(PAUSE_FACTOR);
        // It did not wait for longer than it had to, so changes arrive all the time.
        let follows = begin.saturating_sub(self.next) < self.pause;
        let doubled = if follows { self.pause * 2 } else { Duration::ZERO };
        self.pause = by_cost.max(doubled).min(MAX_PAUSE);
        self.next = end + self.pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_first_is_immediate_and_the_next_waits_in_proportion_to_its_cost() {
        let mut schedule = ReviewSchedule::default();
        assert_eq!(schedule.next(), ms(0));
        schedule.succeeded(ms(100), ms(118));
        assert_eq!(schedule.next(), ms(190));
    }

    #[test]
    fn the_pause_is_bounded_however_long_a_review_takes() {
        let mut schedule = ReviewSchedule::default();
        schedule.succeeded(ms(0), ms(900));
        assert_eq!(schedule.next(), ms(1150));
    }

    #[test]
    fn pauses_double_while_reviews_follow_each_other_and_start_again_after_an_idle_period() {
        let mut schedule = ReviewSchedule::default();
        let mut begin = ms(1000);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            schedule.succeeded(begin, begin + ms(5));
            pauses.push(schedule.next() - begin - ms(5));
            begin = schedule.next();
        }
        assert_eq!(pauses, [20, 40, 80, 160, 250, 250].map(ms));
        begin += ms(5000);
        assert!(schedule.next() < begin);
        schedule.succeeded(begin, begin + ms(5));
        assert_eq!(schedule.next(), begin + ms(25));
    }
}

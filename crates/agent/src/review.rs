//! When open connections are looked through.
//!
//! A review costs a walk over the kernel's whole table of connections, whatever is asked for: some 18 ms where the table
//! has 262,144 buckets. Where pods come and go by the thousand it must not be paid for each. So reviews rest between one
//! another in proportion to what they cost, and one review serves all changes since the last. The first after a rest is
//! immediate.

use std::time::Duration;

/// How many times the cost of a review passes before the next: reviews take a fifth of a core at most.
const REST: u32 = 4;
/// The longest pause. A connection that is denied now lives no longer than this after the commit, and than the review
/// itself takes.
const LONGEST_REST: Duration = Duration::from_millis(250);

/// The pause after a review that failed. Its error says what is wrong; saying it more often helps nobody.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Says when the next review may begin. Time is a duration since any fixed moment.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    next: Duration,
}

impl Pace {
    /// When the next review may begin.
    pub(crate) fn next(&self) -> Duration {
        self.next
    }

    /// Whether one may begin now.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        now >= self.next
    }

    /// Notes that one failed.
    pub(crate) fn failed(&mut self, end: Duration) {
        self.next = end + REST_AFTER_FAILURE;
    }

    /// Notes that one took place.
    pub(crate) fn done(&mut self, begin: Duration, end: Duration) {
        self.next = end + end.saturating_sub(begin).saturating_mul(REST).min(LONGEST_REST);
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
        let mut pace = Pace::default();
        assert!(pace.is_due(ms(0)));
        pace.done(ms(100), ms(118));
        assert!(!pace.is_due(ms(118)) && !pace.is_due(ms(189)));
        assert!(pace.is_due(ms(190)));
        assert_eq!(pace.next(), ms(190));
    }

    #[test]
    fn however_long_a_review_takes_the_next_comes() {
        let mut pace = Pace::default();
        pace.done(ms(0), ms(900));
        assert!(pace.is_due(ms(1150)));
    }
}

//! How long to wait after a failure.

use std::time::Duration;

/// Pauses that double from the first to the longest, each drawn from its upper half: thousands of agents that lost one
/// server at the same moment don't come back at the same moment.
#[derive(Clone, Debug)]
pub(crate) struct Pauses {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Pauses {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest: longest.max(first), failures: 0 }
    }

    /// The next pause, at least what the server asked for.
    pub(crate) fn next(&mut self, asked_for: Option<Duration>) -> Duration {
        // A server that asks for a day is mistaken, and would be obeyed by every node.
        const LONGEST_ASKED: Duration = Duration::from_secs(120);
        let full = self.first.saturating_mul(1 << self.failures.min(20)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        let asked = asked_for.unwrap_or_default().min(LONGEST_ASKED);
        spread(full, 0.5, 1.0).max(asked) + if asked.is_zero() { asked } else { spread(self.first, 0.0, 1.0) }
    }

    /// Something worked.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A random share of `full`, between `from` and `to`.
pub(crate) fn spread(full: Duration, from: f64, to: f64) -> Duration {
    full.mul_f64(from + (to - from) * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again_after_a_success() {
        let ms = Duration::from_millis;
        let mut pauses = Pauses::new(ms(100), ms(1000));
        for full in [100, 200, 400, 800, 1000, 1000, 1000] {
            let pause = pauses.next(None);
            assert!(ms(full / 2) <= pause && pause <= ms(full), "{pause:?} of {full}");
        }
        pauses.reset();
        assert!(pauses.next(None) <= ms(100));
        for _ in 0..100 {
            pauses.next(None);
        }
        assert!(pauses.next(None) <= ms(1000), "no overflow");
    }

    #[test]
    fn what_the_server_asks_for_is_the_least_within_reason() {
        let mut pauses = Pauses::new(Duration::from_millis(100), Duration::from_secs(1));
        let asked = Duration::from_secs(7);
        let pause = pauses.next(Some(asked));
        assert!(asked <= pause && pause <= asked + Duration::from_millis(100), "{pause:?}");
        assert!(pauses.next(Some(Duration::from_secs(86_400))) < Duration::from_secs(130));
    }

    #[test]
    fn two_agents_rarely_wait_equally_long() {
        let pause = || Pauses::new(Duration::from_secs(1), Duration::from_secs(1)).next(None);
        let distinct: std::collections::BTreeSet<_> = (0..20).map(|_| pause()).collect();
        assert!(distinct.len() > 10);
    }
}

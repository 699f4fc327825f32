//! How long to wait after a failure.

use std::time::Duration;

/// A server that requests a longer pause than this is misconfigured, and every node would obey it.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);

/// Exponential backoff with jitter.
///
/// The pauses double from the first to the longest. Each is drawn from its upper half, so thousands of agents that lost one server at
/// the same moment don't return at the same moment.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    initial: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max: max.max(initial), failures: 0 }
    }

    /// Returns the next pause. It is at least `retry_after`, up to [`MAX_RETRY_AFTER`].
    pub(crate) fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let full = self.initial.saturating_mul(1 << self.failures.min(20)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        let pause = jitter(full, 0.5, 1.0);
        match retry_after.unwrap_or_default().min(MAX_RETRY_AFTER) {
            Duration::ZERO => pause,
            retry_after => pause.max(retry_after) + jitter(self.initial, 0.0, 1.0),
        }
    }

    /// Starts again with the first pause.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Returns a random share of `full`, between `from` and `to`.
pub(crate) fn jitter(full: Duration, from: f64, to: f64) -> Duration {
    full.mul_f64(from + (to - from) * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again_after_a_success() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(1000));
        for full in [100, 200, 400, 800, 1000, 1000, 1000] {
            let pause = backoff.next(None);
            assert!(ms(full / 2) <= pause && pause <= ms(full), "{pause:?} of {full}");
        }
        backoff.reset();
        assert!(backoff.next(None) <= ms(100));
        for _ in 0..100 {
            backoff.next(None);
        }
        assert!(backoff.next(None) <= ms(1000), "no overflow");
    }

    #[test]
    fn retry_after_is_the_minimum_within_limits() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let retry_after = Duration::from_secs(7);
        let pause = backoff.next(Some(retry_after));
        assert!(retry_after <= pause && pause <= retry_after + Duration::from_millis(100), "{pause:?}");
        assert!(backoff.next(Some(Duration::from_secs(86_400))) < Duration::from_secs(130));
    }

    #[test]
    fn two_agents_rarely_wait_equally_long() {
        let pause = || Backoff::new(Duration::from_secs(1), Duration::from_secs(1)).next(None);
        let distinct: std::collections::BTreeSet<_> = (0..20).map(|_| pause()).collect();
        assert!(distinct.len() > 10);
    }
}

//! Whether established connections are re-evaluated, as a part of readiness: the first review after a start has to end, and the last one
//! to succeed. Failures are logged once and then at growing intervals.

use std::time::{Duration, Instant};

/// The first interval at which an unchanged failure is logged again. It doubles up to [`MAX_INTERVAL`].
const FIRST_INTERVAL: Duration = Duration::from_secs(60);
const MAX_INTERVAL: Duration = Duration::from_secs(3600);

/// Whether reviews of established connections succeed.
#[derive(Debug, Default)]
pub(super) struct Reviews {
    failure: Option<Failure>,
    /// Whether a review has succeeded since the start. Until then, connections that are older than the rules may continue although the
    /// rules deny them.
    has_succeeded: bool,
}

#[derive(Debug)]
struct Failure {
    error: String,
    logged: Instant,
    interval: Duration,
}

impl Reviews {
    /// Records a failure. Returns whether it must be logged.
    pub(super) fn failed(&mut self, error: &str, now: Instant) -> bool {
        match &mut self.failure {
            Some(failure) if failure.error == error => {
                let is_due = now.saturating_duration_since(failure.logged) >= failure.interval;
                if is_due {
                    failure.logged = now;
                    failure.interval = (failure.interval * 2).min(MAX_INTERVAL);
                }
                is_due
            }
            _ => {
                self.failure =
                    Some(Failure { error: error.to_owned(), logged: now, interval: FIRST_INTERVAL });
                true
            }
        }
    }

    /// Records that a review succeeded. It covers what a failed one left. Returns whether the last one had failed.
    pub(super) fn succeeded(&mut self) -> bool {
        self.has_succeeded = true;
        self.failure.take().is_some()
    }

    /// The error of the last review, if it failed.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_ref().map(|failure| &*failure.error)
    }

    /// Why the agent is not ready, if reviews fail or none has succeeded yet.
    pub(super) fn not_ready(&self) -> Option<String> {
        match self.failure() {
            Some(error) => Some(format!("established connections can't be re-evaluated: {error}")),
            None if self.has_succeeded => None,
            None => Some("connections that are older than the rules are being re-evaluated".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_not_ready_before_its_first_review_has_ended() {
        let mut reviews = Reviews::default();
        assert!(reviews.not_ready().unwrap().contains("older than the rules"));
        assert!(!reviews.succeeded());
        assert_eq!(reviews.not_ready(), None);
        // A later change is reviewed while the agent stays ready.
        assert!(reviews.failed("no conntrack", Instant::now()));
        assert!(reviews.not_ready().is_some());
    }

    #[test]
    fn a_lasting_failure_is_logged_at_growing_intervals() {
        let (mut reviews, begin) = (Reviews::default(), Instant::now());
        let logged: Vec<u64> = (0..86_400)
            .filter(|second| reviews.failed("no conntrack", begin + Duration::from_secs(*second)))
            .collect();
        assert_eq!(logged[..5], [0, 60, 180, 420, 900]);
        assert!(logged.len() < 35, "{logged:?}");
        assert!(reviews.not_ready().unwrap().ends_with("no conntrack"));
        assert!(reviews.failed("another reason", begin), "a new failure is logged at once");
        assert!(reviews.succeeded() && !reviews.succeeded());
        assert_eq!(reviews.not_ready(), None);
    }
}

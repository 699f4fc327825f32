//! Reviews of open connections that fail: told once and then at growing intervals, and known to readiness.

use std::time::{Duration, Instant};

/// The first interval at which an unchanged failure is logged again; it doubles up to [`RARELY`].
const AGAIN: Duration = Duration::from_secs(60);
const RARELY: Duration = Duration::from_secs(3600);

/// Whether reviews of established connections succeed.
#[derive(Debug, Default)]
pub(super) struct Reviews {
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    why: String,
    told: Instant,
    pause: Duration,
}

impl Reviews {
    /// One failed. Whether that is to be told.
    pub(super) fn failed(&mut self, why: &str, now: Instant) -> bool {
        match &mut self.failing {
            Some(failing) if failing.why == why => {
                let is_due = now.saturating_duration_since(failing.told) >= failing.pause;
                if is_due {
                    failing.told = now;
                    failing.pause = (failing.pause * 2).min(RARELY);
                }
                is_due
            }
            _ => {
                self.failing = Some(Failing { why: why.to_owned(), told: now, pause: AGAIN });
                true
            }
        }
    }

    /// None waits any more. Whether one had failed.
    pub(super) fn succeeded(&mut self) -> bool {
        self.failing.take().is_some()
    }

    /// Why the node is not as its policies want it, if it is not.
    pub(super) fn not_ready(&self) -> Option<String> {
        self.failing.as_ref().map(|failing| format!("open connections are not decided anew: {}", failing.why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_lasts_is_told_at_growing_intervals() {
        let (mut reviews, begin) = (Reviews::default(), Instant::now());
        let told: Vec<u64> = (0..86_400)
            .filter(|second| reviews.failed("no conntrack", begin + Duration::from_secs(*second)))
            .collect();
        assert_eq!(told[..5], [0, 60, 180, 420, 900]);
        assert!(told.len() < 35, "{told:?}");
        assert!(reviews.not_ready().unwrap().ends_with("no conntrack"));
        assert!(reviews.failed("another reason", begin), "what is new is told at once");
        assert!(reviews.succeeded() && !reviews.succeeded());
        assert_eq!(reviews.not_ready(), None);
    }
}

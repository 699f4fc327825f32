//! Whether nftables notifications were lost.

use std::time::{Duration, Instant};

/// The shortest interval between two comparisons, each of which lists the whole table.
const INTERVAL: Duration = Duration::from_secs(2);

/// Lost notifications, and when the table was last compared because of them.
#[derive(Debug, Default)]
pub(super) struct Overrun {
    is_pending: bool,
    compared: Option<Instant>,
}

impl Overrun {
    /// Records that notifications were lost.
    pub(super) fn record(&mut self) {
        self.is_pending = true;
    }

    /// Whether the table must be compared now. If so, the caller compares it.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let is_due =
            self.is_pending && self.compared.is_none_or(|at| now.saturating_duration_since(at) >= INTERVAL);
        if is_due {
            (self.is_pending, self.compared) = (false, Some(now));
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_in_quick_succession_are_one_comparison() {
        let (mut overrun, now) = (Overrun::default(), Instant::now());
        assert!(!overrun.take_due(now));
        overrun.record();
        assert!(overrun.take_due(now) && !overrun.take_due(now));
        overrun.record();
        assert!(!overrun.take_due(now + INTERVAL / 2) && overrun.take_due(now + INTERVAL));
    }
}

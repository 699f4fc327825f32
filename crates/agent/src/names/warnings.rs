//! Warnings about what is not learned, at intervals: pods and the owners of zones decide how often it happens.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use palisade_dns::NotLearnable;

use super::core::MessageCounts;

/// The shortest time between two warnings.
const INTERVAL: Duration = Duration::from_secs(30);

/// What was not learned since the last warning.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    waiting: Missed,
    next: Option<Instant>,
}

/// What was not learned, and what was not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Missed {
    over_limit: u64,
    over_share: u64,
    refused: Option<(IpAddr, NotLearnable)>,
}

impl Warnings {
    pub(super) fn add(&mut self, counts: &MessageCounts) {
        self.waiting.over_limit += counts.over_limit;
        self.waiting.over_share += counts.over_share;
        self.waiting.refused = counts.refused.or(self.waiting.refused);
    }

    /// Logs what has happened, unless the last warning was a moment ago.
    pub(super) fn log(&mut self, now: Instant) {
        let Some(Missed { over_limit: answers, over_share: messages, refused }) = self.take(now) else {
            return;
        };
        if answers > 0 {
            tracing::warn!(answers, "too many names or addresses, not all of these DNS answers were learned");
        }
        if messages > 0 {
            tracing::warn!(messages, "pods exceeded their share of DNS messages, the excess was not read");
        }
        if let Some((address, reason)) = refused {
            tracing::warn!(%address, %reason, "DNS answers contained addresses that are not learned");
        }
    }

    fn take(&mut self, now: Instant) -> Option<Missed> {
        if self.waiting == Missed::default() || self.next.is_some_and(|next| next > now) {
            return None;
        }
        self.next = Some(now + INTERVAL);
        Some(std::mem::take(&mut self.waiting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_warning_with_its_number() {
        let (mut warnings, now) = (Warnings::default(), Instant::now());
        assert_eq!(warnings.take(now), None);
        let refused = Some((IpAddr::from([10, 0, 0, 1]), NotLearnable::Private));
        warnings.add(&MessageCounts { over_limit: 1, refused, ..MessageCounts::default() });
        let first = Missed { over_limit: 1, over_share: 0, refused };
        assert_eq!(warnings.take(now), Some(first), "the first at once");
        for _ in 0..1000 {
            warnings.add(&MessageCounts { over_limit: 1, over_share: 2, ..MessageCounts::default() });
            assert_eq!(warnings.take(now + INTERVAL / 2), None);
        }
        let flood = Missed { over_limit: 1000, over_share: 2000, refused: None };
        assert_eq!(warnings.take(now + INTERVAL), Some(flood));
        assert_eq!(warnings.take(now + 2 * INTERVAL), None);
    }
}

//! Warnings about what is not learned, at intervals: pods and the owners of zones decide how often it happens.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use palisade_dns::NotLearnable;

use super::core::Counts;

/// The shortest time between two warnings.
const INTERVAL: Duration = Duration::from_secs(30);

/// What was not learned since the last warning.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    over_limit: u64,
    refused: Option<(IpAddr, NotLearnable)>,
    next: Option<Instant>,
}

impl Warnings {
    pub(super) fn add(&mut self, counts: &Counts) {
        self.over_limit += counts.over_limit;
        self.refused = counts.refused.or(self.refused);
    }

    /// Logs what has happened, unless the last warning was a moment ago.
    pub(super) fn log(&mut self, now: Instant) {
        let Some((answers, refused)) = self.take(now) else { return };
        if answers > 0 {
            tracing::warn!(answers, "too many names or addresses, not all of these DNS answers were learned");
        }
        if let Some((address, reason)) = refused {
            tracing::warn!(%address, %reason, "DNS answers contained addresses that are not learned");
        }
    }

    fn take(&mut self, now: Instant) -> Option<(u64, Option<(IpAddr, NotLearnable)>)> {
        let has_something = self.over_limit > 0 || self.refused.is_some();
        if !has_something || self.next.is_some_and(|next| next > now) {
            return None;
        }
        self.next = Some(now + INTERVAL);
        Some((std::mem::take(&mut self.over_limit), self.refused.take()))
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
        warnings.add(&Counts { over_limit: 1, refused, ..Counts::default() });
        assert_eq!(warnings.take(now), Some((1, refused)), "the first at once");
        for _ in 0..1000 {
            warnings.add(&Counts { over_limit: 1, ..Counts::default() });
            assert_eq!(warnings.take(now + INTERVAL / 2), None);
        }
        assert_eq!(warnings.take(now + INTERVAL), Some((1000, None)));
        assert_eq!(warnings.take(now + 2 * INTERVAL), None);
    }
}

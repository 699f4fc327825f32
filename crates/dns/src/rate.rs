//! How many queries a pod may send.

/// A bucket of tokens: refilled by the millisecond, one token for each query, and more for long messages. A pod may ask for as many queries at once as
/// the bucket holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    /// In thousandths of a query.
    tokens: u64,
    filled: u64,
}

impl Bucket {
    /// Makes a full bucket.
    pub(crate) fn full(burst: u32, now: u64) -> Self {
        Self { tokens: u64::from(burst) * 1000, filled: now }
    }

    /// Takes so many tokens, if there are as many. Times are in milliseconds; a clock that goes back fills nothing.
    pub(crate) fn take(&mut self, tokens: u32, (per_second, burst): (u32, u32), now: u64) -> bool {
        let gained = now.saturating_sub(self.filled).saturating_mul(u64::from(per_second));
        self.tokens = self.tokens.saturating_add(gained).min(u64::from(burst) * 1000);
        self.filled = self.filled.max(now);
        let wanted = u64::from(tokens) * 1000;
        let has = self.tokens >= wanted;
        self.tokens -= if has { wanted } else { 0 };
        has
    }

    /// Returns whether it would be full: then it needn't be kept.
    pub(crate) fn is_full(&self, per_second: u32, burst: u32, now: u64) -> bool {
        let gained = now.saturating_sub(self.filled).saturating_mul(u64::from(per_second));
        self.tokens.saturating_add(gained) >= u64::from(burst) * 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate() {
        let mut bucket = Bucket::full(3, 1000);
        let mut taken = |now| (0..10).filter(|_| bucket.take(1, (2, 3), now)).count();
        assert_eq!(taken(1000), 3);
        assert_eq!((taken(1499), taken(1500), taken(2000)), (0, 1, 1));
        assert_eq!(taken(0), 0, "the clock went back");
        assert_eq!(taken(60_000), 3);
        assert!(!bucket.take(3, (2, 3), 61_000) && bucket.take(2, (2, 3), 61_000));
    }
}

//! A random sample of a list, drawn while the list is generated.

/// Draws exactly `size` of `total` in one pass (Knuth's selection sampling, TAOCP 3.4.2 S).
pub(super) struct Sample {
    pub(super) size: usize,
    left: usize,
    total_left: usize,
    random: SplitMix,
}

impl Sample {
    pub(super) fn of(limit: usize, total: usize, seed: u64) -> Self {
        let size = limit.min(total);
        Self { size, left: size, total_left: total, random: SplitMix(seed) }
    }

    pub(super) fn next(&mut self) -> bool {
        let draw = self.left > 0 && self.random.below(self.total_left) < self.left;
        self.left -= usize::from(draw);
        self.total_left = self.total_left.saturating_sub(1);
        draw
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and with the same numbers for a seed on every machine.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The bias of the remainder is below 2⁻³² for any bound that fits in memory.
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_exactly_its_size_and_depends_on_the_seed_alone() {
        let draw = |seed| {
            let mut sample = Sample::of(100, 1000, seed);
            (0..1000).filter(|_| sample.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1).len(), 100);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}

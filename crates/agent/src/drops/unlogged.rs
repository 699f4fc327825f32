//! Packets that the kernel counted and did not log.

use std::collections::BTreeMap;

use palisade_nft::drops::Counts;
use palisade_policy::Direction;

/// How many packets the kernel counted but did not log: it logs a limited number.
#[derive(Debug, Default)]
pub(crate) struct UnloggedPackets {
    /// Packets that the kernel had counted at the last call, and those of them that were not logged, by direction and by whether they passed.
    counted: BTreeMap<(Direction, bool), (u64, u64)>,
}

impl UnloggedPackets {
    /// Takes the kernel's counters, and how many packets were received from its log. Returns how many more were not logged, by direction and by
    /// whether they passed: those that were counted by the last call and have not been received since never will be.
    pub(crate) fn add(
        &mut self,
        counts: Counts,
        received: impl Fn(Direction, bool) -> u64,
    ) -> [(Direction, bool, u64); 4] {
        let counts = [
            (Direction::Egress, false, counts.egress),
            (Direction::Ingress, false, counts.ingress),
            (Direction::Egress, true, counts.audited_egress),
            (Direction::Ingress, true, counts.audited_ingress),
        ];
        counts.map(|(direction, audited, now)| {
            let (before, unlogged) = self.counted.entry((direction, audited)).or_default();
            let more = before.saturating_sub(received(direction, audited)).saturating_sub(*unlogged);
            *unlogged += more;
            *before = now;
            (direction, audited, more)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_and_not_received_until_the_next_call_is_counted_once() {
        let mut unlogged = UnloggedPackets::default();
        let mut add = |ingress, received| {
            let more = unlogged.add(Counts { ingress, ..Counts::default() }, |direction, audited| {
                if direction == Direction::Ingress && !audited { received } else { 0 }
            });
            more.iter().map(|(_, _, more)| more).sum::<u64>()
        };
        assert_eq!(add(100, 10), 0, "the rest may be on its way");
        assert_eq!(add(150, 40), 60);
        assert_eq!(add(150, 40), 50);
        assert_eq!(add(150, 40), 0);
    }
}

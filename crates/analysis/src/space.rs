//! The address space of both families, cut exactly where blocks of policies begin and end.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use palisade_policy::{
    Family, IpRange,
    address::{from_number, max_number, to_number},
};

use crate::families::index;

/// Names a set of blocks: those that hold the same addresses. 0 is the empty set.
pub(crate) type BlockSet = u32;

/// Every address, by the blocks that hold it. `O(n log n)` to make in the number of blocks and exceptions, as long as
/// few blocks overlap at one address; a look-up is `O(log n)`.
#[derive(Debug)]
pub(crate) struct Space {
    /// For IPv4 and IPv6: where ranges begin, and by which blocks they are held; the first begins at 0.
    cuts: [Vec<(u128, BlockSet)>; 2],
    /// For each block, the sets that have it.
    sets_with: Vec<Vec<BlockSet>>,
}

impl Space {
    /// Cuts at these blocks, each as its ranges: sorted, disjoint, not adjacent.
    pub(crate) fn new(blocks: impl IntoIterator<Item = Vec<IpRange>>) -> Self {
        // Where which blocks begin or stop to hold.
        let mut flips: [BTreeMap<u128, Vec<u32>>; 2] = Default::default();
        let mut count = 0;
        for (block, number) in blocks.into_iter().zip(0u32..) {
            count = number as usize + 1;
            for range in block {
                let family = Family::of(range.first);
                let flips = &mut flips[index(family)];
                flips.entry(to_number(range.first)).or_default().push(number);
                let last = to_number(range.last);
                if last < max_number(family) {
                    flips.entry(last + 1).or_default().push(number);
                }
            }
        }
        let mut sets: HashMap<Vec<u32>, BlockSet> = HashMap::from([(Vec::new(), 0)]);
        let mut sets_with = vec![Vec::new(); count];
        let cuts = flips.map(|flips| {
            let mut holding: BTreeSet<u32> = BTreeSet::new();
            let mut cuts = vec![(0, 0)];
            for (start, blocks) in flips {
                for block in blocks {
                    if !holding.remove(&block) {
                        holding.insert(block);
                    }
                }
                let members: Vec<u32> = holding.iter().copied().collect();
                let next = sets.len() as BlockSet;
                let set = *sets.entry(members).or_insert_with_key(|members| {
                    members.iter().for_each(|block| sets_with[*block as usize].push(next));
                    next
                });
                if start == 0 {
                    cuts.clear();
                }
                if cuts.last().is_none_or(|(_, before)| *before != set) {
                    cuts.push((start, set));
                }
            }
            cuts
        });
        Self { cuts, sets_with }
    }

    /// The blocks that hold an address.
    pub(crate) fn set_of(&self, address: IpAddr) -> BlockSet {
        let (cuts, number) = (&self.cuts[index(Family::of(address))], to_number(address));
        cuts[cuts.partition_point(|(start, _)| *start <= number) - 1].1
    }

    /// The sets that have the block with this number.
    pub(crate) fn sets_with(&self, block: usize) -> &[BlockSet] {
        &self.sets_with[block]
    }

    /// The whole space of a family as ranges, sorted and disjoint, neighbours held by different blocks.
    pub(crate) fn ranges(&self, family: Family) -> impl Iterator<Item = (IpRange, BlockSet)> {
        let cuts = &self.cuts[index(family)];
        cuts.iter().enumerate().map(move |(i, (start, set))| {
            let last = cuts.get(i + 1).map_or(max_number(family), |(next, _)| next - 1);
            (IpRange { first: from_number(family, *start), last: from_number(family, last) }, *set)
        })
    }
}

/// The union of ranges of one family, canonical: sorted, disjoint, not adjacent.
pub(crate) fn merged(mut ranges: Vec<IpRange>) -> Vec<IpRange> {
    ranges.sort_unstable();
    let mut out: Vec<IpRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(before)
                if Family::of(before.first) == Family::of(range.first)
                    && to_number(range.first) <= to_number(before.last).saturating_add(1) =>
            {
                before.last = before.last.max(range.last);
            }
            _ => out.push(range),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use palisade_policy::{IpBlock, block_ranges};

    use super::*;

    fn block(cidr: &str, except: &[&str]) -> IpBlock {
        IpBlock { cidr: cidr.parse().unwrap(), except: except.iter().map(|e| e.parse().unwrap()).collect() }
    }

    fn ranges(space: &Space, family: Family) -> Vec<String> {
        space.ranges(family).map(|(range, set)| format!("{range} {set}")).collect()
    }

    #[test]
    fn the_space_is_cut_where_blocks_say_and_nowhere_else() {
        let blocks = [
            block("10.0.0.0/8", &["10.1.0.0/16"]),
            block("10.1.0.0/16", &[]),
            block("0.0.0.0/0", &[]),
            block("128.0.0.0/1", &[]),
        ];
        let space = Space::new(blocks.iter().map(block_ranges));
        assert_eq!(
            ranges(&space, Family::V4),
            [
                "0.0.0.0-9.255.255.255 1",
                "10.0.0.0-10.0.255.255 2",
                "10.1.0.0-10.1.255.255 3",
                "10.2.0.0-10.255.255.255 2",
                "11.0.0.0-127.255.255.255 1",
                "128.0.0.0-255.255.255.255 4",
            ]
        );
        assert_eq!(ranges(&space, Family::V6), ["::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 0"]);
        assert_eq!(space.sets_with(0), [2]);
        assert_eq!(space.set_of("10.1.9.9".parse().unwrap()), 3);
        assert_eq!(space.set_of("255.255.255.255".parse().unwrap()), 4);
        assert_eq!(space.set_of("::1".parse().unwrap()), 0);
    }

    #[test]
    fn merging_knows_families_and_neighbours() {
        let range = |a: &str, b: &str| IpRange { first: a.parse().unwrap(), last: b.parse().unwrap() };
        let all = vec![
            range("::", "::1"),
            range("10.0.0.4", "10.0.0.9"),
            range("10.0.0.0", "10.0.0.3"),
            range("10.0.0.11", "255.255.255.255"),
        ];
        assert_eq!(
            merged(all),
            [range("10.0.0.0", "10.0.0.9"), range("10.0.0.11", "255.255.255.255"), range("::", "::1")]
        );
    }
}

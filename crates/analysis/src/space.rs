//! The address space of both families, divided at the boundaries of policies' blocks.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use palisade_policy::{
    Family, IpRange,
    address::{Sweep, from_number, max_number, to_number},
};

use crate::families::index;

/// Identifies a set of blocks that contain the same addresses. 0 is the empty set.
pub(crate) type BlockSet = u32;

/// The address space, divided by the blocks that contain each address. `O(n log n)` to make for `n` blocks and
/// exceptions, provided that few blocks overlap at each address. A lookup is `O(log n)`.
#[derive(Debug)]
pub(crate) struct AddressSpace {
    /// For IPv4 and IPv6: the start of each range, and the blocks that contain it. The first range starts at 0.
    cuts: [Vec<(u128, BlockSet)>; 2],
    /// For each block, the sets that contain it.
    sets_with: Vec<Vec<BlockSet>>,
}

impl AddressSpace {
    /// Divides the space by these blocks, each given as sorted, disjoint ranges that are not adjacent.
    pub(crate) fn new(blocks: impl IntoIterator<Item = Vec<IpRange>>) -> Self {
        let blocks: Vec<Vec<IpRange>> = blocks.into_iter().collect();
        let mut sets: HashMap<Vec<usize>, BlockSet> = HashMap::from([(Vec::new(), 0)]);
        let mut sets_with = vec![Vec::new(); blocks.len()];
        let cuts = Family::BOTH.map(|family| {
            let ranges =
                blocks.iter().enumerate().flat_map(|(n, ranges)| ranges.iter().map(move |r| (n, *r)));
            let mut containing: BTreeSet<usize> = BTreeSet::new();
            let mut cuts = vec![(0, 0)];
            for (range, changed) in Sweep::new(family, ranges) {
                for block in changed {
                    if !containing.remove(&block) {
                        containing.insert(block);
                    }
                }
                let members: Vec<usize> = containing.iter().copied().collect();
                let next = sets.len() as BlockSet;
                let set = *sets.entry(members).or_insert_with_key(|members| {
                    members.iter().for_each(|block| sets_with[*block].push(next));
                    next
                });
                let start = to_number(range.first);
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

    /// Returns the blocks that contain an address.
    pub(crate) fn set_of(&self, address: IpAddr) -> BlockSet {
        let (cuts, number) = (&self.cuts[index(Family::of(address))], to_number(address));
        cuts[cuts.partition_point(|(start, _)| *start <= number) - 1].1
    }

    /// Returns the sets of blocks that some address of these ranges lies in, sorted. `O(ranges · log cuts + cuts)`.
    pub(crate) fn sets_in(&self, ranges: &[IpRange]) -> Vec<BlockSet> {
        let mut found = Vec::new();
        for range in ranges {
            let cuts = &self.cuts[index(Family::of(range.first))];
            let (first, last) = (to_number(range.first), to_number(range.last));
            let from = cuts.partition_point(|(start, _)| *start <= first) - 1;
            found.extend(cuts[from..].iter().take_while(|(start, _)| *start <= last).map(|(_, set)| *set));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Returns an address of each set of blocks that these ranges meet, in the order of the ranges.
    pub(crate) fn samples_in(&self, ranges: &[IpRange]) -> Vec<IpAddr> {
        let (mut seen, mut samples) = (BTreeSet::new(), Vec::new());
        for range in ranges {
            let family = Family::of(range.first);
            let cuts = &self.cuts[index(family)];
            let (first, last) = (to_number(range.first), to_number(range.last));
            let from = cuts.partition_point(|(start, _)| *start <= first) - 1;
            for (start, set) in cuts[from..].iter().take_while(|(start, _)| *start <= last) {
                if seen.insert(*set) {
                    samples.push(from_number(family, first.max(*start)));
                }
            }
        }
        samples
    }

    /// Returns the sets that contain the block with this number.
    pub(crate) fn sets_with(&self, block: usize) -> &[BlockSet] {
        &self.sets_with[block]
    }

    /// Iterates over the space of a family as sorted, disjoint ranges. Neighbours are in different blocks.
    pub(crate) fn ranges(&self, family: Family) -> impl Iterator<Item = (IpRange, BlockSet)> {
        let cuts = &self.cuts[index(family)];
        cuts.iter().enumerate().map(move |(i, (start, set))| {
            let last = cuts.get(i + 1).map_or(max_number(family), |(next, _)| next - 1);
            (IpRange { first: from_number(family, *start), last: from_number(family, last) }, *set)
        })
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::IpBlock;

    use super::*;

    fn block(cidr: &str, except: &[&str]) -> IpBlock {
        IpBlock { cidr: cidr.parse().unwrap(), except: except.iter().map(|e| e.parse().unwrap()).collect() }
    }

    fn ranges(space: &AddressSpace, family: Family) -> Vec<String> {
        space.ranges(family).map(|(range, set)| format!("{range} {set}")).collect()
    }

    #[test]
    fn the_space_is_divided_only_at_block_boundaries() {
        let blocks = [
            block("10.0.0.0/8", &["10.1.0.0/16"]),
            block("10.1.0.0/16", &[]),
            block("0.0.0.0/0", &[]),
            block("128.0.0.0/1", &[]),
        ];
        let space = AddressSpace::new(blocks.iter().map(IpBlock::ranges));
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
}

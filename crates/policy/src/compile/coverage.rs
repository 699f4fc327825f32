//! The set of ports that a changing collection of port ranges covers, with a number for every distinct set.
//!
//! A segment tree over the ports, cut where ranges begin and end. Each node counts the ranges that cover it completely.
//! The set of ports below a node is identified by a number: equal numbers are equal sets, since nodes with equal
//! children are the same (hash consing). Adding or removing a range costs `O(log n)`, and identifying the current set
//! `O(1)`.

use std::collections::HashMap;

/// Identifies a set of ports within one [`Coverage`]: equal for equal sets only.
pub(super) type SetId = u32;

const EMPTY: SetId = 0;
const FULL: SetId = 1;

/// A known set of ports.
#[derive(Clone, Copy)]
struct Known {
    halves: (SetId, SetId),
    /// The number of its ranges, and whether it contains its first and its last cut.
    ranges: usize,
    first: bool,
    last: bool,
}

/// The current ranges.
pub(super) struct Coverage {
    /// The starts of the cuts, and one behind the last port.
    starts: Vec<u32>,
    leaves: usize,
    counts: Vec<u32>,
    ids: Vec<SetId>,
    sets: Vec<Known>,
    by_halves: HashMap<(SetId, SetId), SetId>,
}

impl Coverage {
    /// Makes an empty coverage for ranges out of these.
    pub(super) fn new(ranges: impl Iterator<Item = (u16, u16)>) -> Self {
        let mut starts: Vec<u32> = ranges.flat_map(|(a, b)| [u32::from(a), u32::from(b) + 1]).collect();
        starts.extend([0, 1 << 16]);
        starts.sort_unstable();
        starts.dedup();
        let leaves = (starts.len() - 1).next_power_of_two();
        let empty = Known { halves: (EMPTY, EMPTY), ranges: 0, first: false, last: false };
        let full = Known { halves: (FULL, FULL), ranges: 1, first: true, last: true };
        Self {
            starts,
            leaves,
            counts: vec![0; 2 * leaves],
            ids: vec![EMPTY; 2 * leaves],
            sets: vec![empty, full],
            by_halves: HashMap::from([((EMPTY, EMPTY), EMPTY), ((FULL, FULL), FULL)]),
        }
    }

    /// Adds one of the ranges that it was made for, or removes one that it has.
    pub(super) fn change(&mut self, (first, last): (u16, u16), add: bool) {
        let at = |port: u32| self.starts.partition_point(|start| *start < port);
        let (from, to) = (at(first.into()), at(u32::from(last) + 1));
        self.visit(1, 0, self.leaves, (from, to), add);
    }

    fn visit(&mut self, node: usize, begin: usize, end: usize, (from, to): (usize, usize), add: bool) {
        if to <= begin || end <= from {
            return;
        }
        if from <= begin && end <= to {
            self.counts[node] = if add { self.counts[node] + 1 } else { self.counts[node].saturating_sub(1) };
        } else {
            let middle = begin.midpoint(end);
            self.visit(2 * node, begin, middle, (from, to), add);
            self.visit(2 * node + 1, middle, end, (from, to), add);
        }
        self.ids[node] = if self.counts[node] > 0 {
            FULL
        } else if node >= self.leaves {
            EMPTY
        } else {
            self.pair(self.ids[2 * node], self.ids[2 * node + 1])
        };
    }

    fn pair(&mut self, left: SetId, right: SetId) -> SetId {
        if let Some(known) = self.by_halves.get(&(left, right)) {
            return *known;
        }
        let id = self.sets.len() as SetId;
        let (l, r) = (self.sets[left as usize], self.sets[right as usize]);
        let joined = usize::from(l.last && r.first);
        let ranges = l.ranges + r.ranges - joined;
        self.sets.push(Known { halves: (left, right), ranges, first: l.first, last: r.last });
        self.by_halves.insert((left, right), id);
        id
    }

    /// Returns the set that is covered.
    pub(super) fn id(&self) -> SetId {
        self.ids[1]
    }

    /// Returns how many sets, of all ports or of a part of them, are known. Each takes about forty bytes.
    pub(super) fn known(&self) -> usize {
        self.sets.len()
    }

    /// Returns the number of ranges of the covered set, merged where they touch.
    pub(super) fn len(&self) -> usize {
        self.sets[self.id() as usize].ranges
    }

    /// Returns the ranges of the covered set: sorted, disjoint, not adjacent. `O(ranges × log n)`.
    pub(super) fn ranges(&self) -> Vec<(u16, u16)> {
        let mut out = Vec::with_capacity(self.len());
        self.collect(self.id(), 0, self.leaves, &mut out);
        out
    }

    fn collect(&self, id: SetId, begin: usize, end: usize, out: &mut Vec<(u16, u16)>) {
        if id == FULL {
            // The cast can't truncate: covered cuts end at the last port.
            let (first, last) = (self.starts[begin] as u16, (self.starts[end] - 1) as u16);
            match out.last_mut() {
                Some(previous) if u32::from(previous.1) + 1 == u32::from(first) => previous.1 = last,
                _ => out.push((first, last)),
            }
        } else if id != EMPTY {
            let (left, right) = self.sets[id as usize].halves;
            let middle = begin.midpoint(end);
            self.collect(left, begin, middle, out);
            self.collect(right, middle, end, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use palisade_testkit::{Rng, seeds};

    use super::*;
    use crate::PortSet;

    #[test]
    fn it_covers_the_union_and_recognises_it() {
        for seed in seeds(0..200) {
            let mut rng = Rng::with_seed(seed);
            let edge = |rng: &mut Rng| *rng.choice(&[0, 1, 7, 80, 443, 65_534, u16::MAX]).unwrap();
            let all: Vec<(u16, u16)> = (0..12)
                .map(|_| {
                    let (a, b) = (edge(&mut rng), edge(&mut rng));
                    (a.min(b), a.max(b))
                })
                .collect();
            let mut coverage = Coverage::new(all.iter().copied());
            let (mut present, mut met) = (vec![false; all.len()], BTreeMap::new());
            for _ in 0..100 {
                let n = rng.usize(..all.len());
                present[n] = !present[n];
                coverage.change(all[n], present[n]);
                let there = all.iter().zip(&present).filter(|(_, p)| **p);
                let expected =
                    there.fold(PortSet::none(), |sum, (r, _)| sum.union(&PortSet::range(r.0, r.1)));
                assert_eq!(coverage.ranges(), expected.ranges(), "seed {seed}");
                assert_eq!(coverage.len(), expected.ranges().len());
                assert_eq!(*met.entry(expected).or_insert(coverage.id()), coverage.id(), "seed {seed}");
            }
            let ids: std::collections::BTreeSet<_> = met.values().collect();
            assert_eq!(ids.len(), met.len(), "different sets have different numbers");
        }
    }
}

//! Sets of addresses as ranges: union, difference, and the sweep over a whole family.
//!
//! A list of ranges is *canonical* if it is sorted and no two of its ranges overlap or touch.

use std::collections::{BTreeMap, btree_map};

use super::{Family, IpRange, from_number, max_number, to_number};

/// Returns the union of ranges, canonical. Ranges of both families may be mixed. `O(n log n)`.
#[must_use]
pub fn union(mut ranges: Vec<IpRange>) -> Vec<IpRange> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, before| {
        let touches = Family::of(before.first) == Family::of(next.first)
            && to_number(next.first) <= to_number(before.last).saturating_add(1);
        if touches {
            before.last = before.last.max(next.last);
        }
        touches
    });
    ranges
}

/// Returns the addresses of `range` that are in none of `holes`, canonical. The holes may overlap each other and lie
/// outside the range. `O(n log n)` in the holes.
#[must_use]
pub fn without(range: IpRange, holes: impl IntoIterator<Item = IpRange>) -> Vec<IpRange> {
    let family = Family::of(range.first);
    let mut holes: Vec<IpRange> = holes.into_iter().filter(|hole| Family::of(hole.first) == family).collect();
    holes.sort_unstable();
    let mut out = Vec::with_capacity(holes.len() + 1);
    let mut next = range.first;
    for hole in holes {
        if hole.last < next || hole.first > range.last {
            continue;
        }
        if hole.first > next {
            out.push(IpRange { first: next, last: from_number(family, to_number(hole.first) - 1) });
        }
        if hole.last >= range.last {
            return out;
        }
        next = from_number(family, to_number(hole.last) + 1);
    }
    out.push(IpRange { first: next, last: range.last });
    out
}

/// A sweep over the address space of one family, cut where the ranges of numbered owners begin and end.
///
/// It yields the pieces between the cuts in ascending order, each with the owners that change at its first address: an
/// owner that held the piece before doesn't hold this one, and the reverse. It begins at the first address that some
/// owner holds and ends with the last address of the family.
#[derive(Debug)]
pub struct Sweep {
    family: Family,
    cuts: std::iter::Peekable<btree_map::IntoIter<u128, Vec<usize>>>,
}

impl Sweep {
    /// Makes a sweep over these ranges, each with its owner. Ranges of the other family are ignored; those of one owner
    /// must be canonical. `O(n log n)`.
    pub fn new(family: Family, ranges: impl IntoIterator<Item = (usize, IpRange)>) -> Self {
        let mut cuts: BTreeMap<u128, Vec<usize>> = BTreeMap::new();
        for (owner, range) in ranges {
            if Family::of(range.first) != family {
                continue;
            }
            cuts.entry(to_number(range.first)).or_default().push(owner);
            let last = to_number(range.last);
            if last < max_number(family) {
                cuts.entry(last + 1).or_default().push(owner);
            }
        }
        Self { family, cuts: cuts.into_iter().peekable() }
    }
}

impl Iterator for Sweep {
    type Item = (IpRange, Vec<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let (first, changed) = self.cuts.next()?;
        let last = self.cuts.peek().map_or(max_number(self.family), |(next, _)| next - 1);
        let piece = IpRange { first: from_number(self.family, first), last: from_number(self.family, last) };
        Some((piece, changed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: &str, last: &str) -> IpRange {
        IpRange { first: first.parse().unwrap(), last: last.parse().unwrap() }
    }

    #[test]
    fn a_union_joins_what_touches_within_a_family() {
        let all = vec![
            range("::", "::1"),
            range("10.0.0.4", "10.0.0.9"),
            range("10.0.0.0", "10.0.0.3"),
            range("10.0.0.11", "255.255.255.255"),
        ];
        assert_eq!(
            union(all),
            [range("10.0.0.0", "10.0.0.9"), range("10.0.0.11", "255.255.255.255"), range("::", "::1")]
        );
    }

    #[test]
    fn holes_may_overlap_and_reach_the_ends() {
        let all = range("0.0.0.0", "255.255.255.255");
        assert_eq!(without(all, []), [all]);
        assert_eq!(without(all, [all]), []);
        assert_eq!(
            without(all, [range("0.0.0.0", "127.255.255.255"), range("::", "::1")]),
            [range("128.0.0.0", "255.255.255.255")]
        );
        assert_eq!(
            without(
                range("10.0.0.0", "10.0.0.255"),
                [
                    range("10.0.0.0", "10.0.0.127"),
                    range("10.0.0.64", "10.0.0.95"),
                    range("10.0.0.255", "10.0.1.9")
                ]
            ),
            [range("10.0.0.128", "10.0.0.254")]
        );
    }

    #[test]
    fn a_sweep_cuts_where_ranges_begin_and_end() {
        let owned = [(0, range("10.0.0.0", "10.0.0.9")), (1, range("10.0.0.5", "255.255.255.255"))];
        assert_eq!(
            Sweep::new(Family::V4, owned).collect::<Vec<_>>(),
            [
                (range("10.0.0.0", "10.0.0.4"), vec![0]),
                (range("10.0.0.5", "10.0.0.9"), vec![1]),
                (range("10.0.0.10", "255.255.255.255"), vec![0]),
            ]
        );
        assert_eq!(Sweep::new(Family::V6, owned).count(), 0);
    }
}

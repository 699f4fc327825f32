//! Whether one policy table allows no more than another. If so, pods may keep it while the kernel rejects the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::{Family, NodePlan, PeerSet, PeerSetId, PolicyTable, Traffic, address};

/// A policy table with the plan that holds its peer sets.
#[derive(Clone, Copy)]
pub(crate) struct TableInPlan<'a> {
    pub(crate) plan: &'a NodePlan,
    pub(crate) table: &'a PolicyTable,
}

/// Whether `old` allows no traffic that `new` denies. `true` is always correct. The result may be `false` although `old`
/// allows no more, if another row decides for every address of a range: ranges are compared regardless of that.
///
/// `O(n log n)` in the members and ranges of both.
pub(crate) fn allows_no_more(old: TableInPlan<'_>, new: TableInPlan<'_>) -> bool {
    let mut rows = RowComparisons::default();
    let (by_old, by_new) = (members(old), members(new));
    let known: BTreeSet<&IpAddr> = by_old.keys().chain(by_new.keys()).collect();
    let (ranges_old, ranges_new) = (Ranges::of(old), Ranges::of(new));
    let exact = known.into_iter().all(|peer| {
        let before = by_old.get(peer).copied().unwrap_or_else(|| ranges_old.row(*peer));
        let after = by_new.get(peer).copied().unwrap_or_else(|| ranges_new.row(*peer));
        rows.is_subset(before, after)
    });
    // Between two of these addresses, both tables have the same row.
    exact
        && ranges_old
            .firsts()
            .chain(ranges_new.firsts())
            .all(|first| rows.is_subset(ranges_old.row(first), ranges_new.row(first)))
}

/// Returns the rows of addresses in peer sets of addresses.
fn members(of: TableInPlan<'_>) -> BTreeMap<IpAddr, &Traffic> {
    let mut out = BTreeMap::new();
    for (id, row) in &of.table.exact {
        if let Some(PeerSet::Addresses(set)) = of.plan.peer_sets.get(id) {
            // The first peer set that holds an address decides.
            for address in set.iter() {
                out.entry(address).or_insert(row);
            }
        }
    }
    out
}

/// The rows of all other addresses, by the first address to which each applies.
struct Ranges<'a> {
    from: BTreeMap<IpAddr, &'a Traffic>,
    rest: &'a Traffic,
}

impl<'a> Ranges<'a> {
    fn of(of: TableInPlan<'a>) -> Self {
        let ranges = |id: &PeerSetId| match of.plan.peer_sets.get(id) {
            Some(PeerSet::Ranges(ranges)) => &ranges[..],
            _ => &[],
        };
        let all = of.table.ranges.iter().flat_map(|(g, row)| ranges(g).iter().map(move |r| (r, row)));
        let mut from = BTreeMap::new();
        let mut ends = Vec::new();
        for (range, row) in all {
            from.entry(range.first).or_insert(row);
            let (family, last) = (Family::of(range.last), address::to_number(range.last));
            if last < address::max_number(family) {
                ends.push(address::from_number(family, last + 1));
            }
        }
        ends.extend(Family::BOTH.map(|family| address::from_number(family, 0)));
        // The ranges are disjoint. Behind a range, the rest applies unless another range begins there.
        for end in ends {
            from.entry(end).or_insert(&of.table.rest);
        }
        Self { from, rest: &of.table.rest }
    }

    fn firsts(&self) -> impl Iterator<Item = IpAddr> {
        self.from.keys().copied()
    }

    /// IPv4 addresses sort before IPv6 addresses, and each family begins with its own entry.
    fn row(&self, peer: IpAddr) -> &'a Traffic {
        let before = self.from.range(..=peer).next_back();
        before.map_or(self.rest, |(_, row)| *row)
    }
}

/// A cache of comparisons: there are few rows and many addresses.
#[derive(Default)]
struct RowComparisons(BTreeMap<(*const Traffic, *const Traffic), bool>);

impl RowComparisons {
    fn is_subset(&mut self, old: &Traffic, new: &Traffic) -> bool {
        let key = (std::ptr::from_ref(old), std::ptr::from_ref(new));
        *self.0.entry(key).or_insert_with(|| old.difference(new).is_none())
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::{Compiler, Direction};
    use palisade_testkit::{Rng, Shape, change, cluster, endpoints, seeds};

    use super::*;

    /// Compares tables of random clusters before and after random edits: a table found to allow no more allows nothing that the
    /// other denies, and nearly all such tables are found.
    #[test]
    fn tables_that_allow_no_more_are_found_and_no_others() {
        let (mut found, mut missed) = (0, 0);
        for seed in seeds(0..400) {
            let rng = &mut Rng::with_seed(seed);
            let shape = Shape::strange();
            let mut world = cluster(rng, &shape);
            let Some(node) = world.nodes.keys().next().cloned() else { continue };
            let plan = |world: &palisade_policy::Cluster| {
                let mut compiler = Compiler::new(node.clone());
                compiler.apply_all(world.clone().into_changes());
                compiler.plan().clone()
            };
            let before = plan(&world);
            let mut peers: BTreeSet<IpAddr> = endpoints(&world).into_iter().map(|e| e.address()).collect();
            for _ in 0..4 {
                let edit = change(rng, shape.style, &world);
                world.apply(edit);
            }
            let after = plan(&world);
            peers.extend(endpoints(&world).into_iter().map(|e| e.address()));
            for direction in Direction::BOTH {
                let of = |direction| move |(_, t): &(&_, &PolicyTable)| t.direction == direction;
                for (_, old) in before.tables.iter().filter(of(direction)) {
                    for (_, new) in after.tables.iter().filter(of(direction)) {
                        let more = |peer: &&IpAddr| {
                            !before.row(old, **peer).difference(after.row(new, **peer)).is_none()
                        };
                        let found_subset = allows_no_more(
                            TableInPlan { plan: &before, table: old },
                            TableInPlan { plan: &after, table: new },
                        );
                        let truth = peers.iter().find(more);
                        assert!(!found_subset || truth.is_none(), "seed {seed}: {truth:?} is allowed more");
                        found += usize::from(found_subset);
                        missed += usize::from(!found_subset && truth.is_none());
                    }
                }
            }
        }
        assert!(found > 300 && missed * 20 < found, "{found} found, {missed} missed");
    }
}

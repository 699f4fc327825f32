//! Whether one table allows no more than another: then pods may stay on it while the kernel refuses the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::{Family, NodePlan, PeerSet, PeerSetId, PolicyTable, Traffic, address};

/// A table, and the plan that has its groups.
#[derive(Clone, Copy)]
pub(crate) struct Of<'a> {
    pub(crate) plan: &'a NodePlan,
    pub(crate) table: &'a PolicyTable,
}

/// Whether `old` lets no peer use anything that `new` doesn't. Never says so wrongly. May miss it where every address of a
/// range is a pod that another row decides for: such a range is looked at all the same.
///
/// `O(n log n)` in the members and ranges of both.
pub(crate) fn no_more(old: Of<'_>, new: Of<'_>) -> bool {
    let mut pairs = Pairs::default();
    let (by_old, by_new) = (members(old), members(new));
    let known: BTreeSet<&IpAddr> = by_old.keys().chain(by_new.keys()).collect();
    let (ranges_old, ranges_new) = (Ranges::of(old), Ranges::of(new));
    let exact = known.into_iter().all(|peer| {
        let before = by_old.get(peer).copied().unwrap_or_else(|| ranges_old.row(*peer));
        let after = by_new.get(peer).copied().unwrap_or_else(|| ranges_new.row(*peer));
        pairs.within(before, after)
    });
    // Between two of these addresses neither table changes its mind.
    exact
        && ranges_old
            .firsts()
            .chain(ranges_new.firsts())
            .all(|first| pairs.within(ranges_old.row(first), ranges_new.row(first)))
}

/// The rows of the addresses that have one of their own.
fn members(of: Of<'_>) -> BTreeMap<IpAddr, &Traffic> {
    let mut out = BTreeMap::new();
    for (group, row) in &of.table.exact {
        if let Some(PeerSet::Addresses(set)) = of.plan.peer_sets.get(group) {
            // The first group that holds an address decides.
            for address in set.iter() {
                out.entry(address).or_insert(row);
            }
        }
    }
    out
}

/// The rows of all other addresses, by the first address from which each holds.
struct Ranges<'a> {
    from: BTreeMap<IpAddr, &'a Traffic>,
    rest: &'a Traffic,
}

impl<'a> Ranges<'a> {
    fn of(of: Of<'a>) -> Self {
        let ranges = |group: &PeerSetId| match of.plan.peer_sets.get(group) {
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
        // The ranges are disjoint: where none begins right behind another, the rest does.
        for end in ends {
            from.entry(end).or_insert(&of.table.rest);
        }
        Self { from, rest: &of.table.rest }
    }

    fn firsts(&self) -> impl Iterator<Item = IpAddr> {
        self.from.keys().copied()
    }

    /// IPv4 addresses are all before IPv6 addresses, and each family begins with an entry of its own.
    fn row(&self, peer: IpAddr) -> &'a Traffic {
        let before = self.from.range(..=peer).next_back();
        before.map_or(self.rest, |(_, row)| *row)
    }
}

/// Comparisons of rows that were made already: there are few rows, and many addresses.
#[derive(Default)]
struct Pairs(BTreeMap<(*const Traffic, *const Traffic), bool>);

impl Pairs {
    fn within(&mut self, old: &Traffic, new: &Traffic) -> bool {
        let key = (std::ptr::from_ref(old), std::ptr::from_ref(new));
        *self.0.entry(key).or_insert_with(|| old.difference(new).is_none())
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::{Compiler, Direction};
    use palisade_testkit::{Rng, Shape, change, cluster, endpoints, seeds};

    use super::*;

    /// Tables of random clusters before and after random edits: what is said to allow no more lets no peer in that the other
    /// keeps out, and nearly all that allow no more are found.
    #[test]
    fn what_allows_no_more_is_found_and_nothing_else() {
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
                        let says = no_more(Of { plan: &before, table: old }, Of { plan: &after, table: new });
                        let truth = peers.iter().find(more);
                        assert!(!says || truth.is_none(), "seed {seed}: {truth:?} may do more");
                        found += usize::from(says);
                        missed += usize::from(!says && truth.is_none());
                    }
                }
            }
        }
        assert!(found > 300 && missed * 20 < found, "{found} found, {missed} missed");
    }
}

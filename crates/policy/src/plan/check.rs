//! The invariants of a plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{NodePlan, PeerSet, PeerSetId, PolicyTable, PolicyTableId};
use crate::{Direction, Family, IpRange};

/// An invariant of a [`NodePlan`] that doesn't hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenPlan {
    /// A local address has a table that the plan doesn't have, or one of the other direction.
    #[error(
        "{direction} of {address} leads to table {table}, which is missing or decides the other direction"
    )]
    Table {
        /// The direction.
        direction: Direction,
        /// The local address.
        address: IpAddr,
        /// The table.
        table: PolicyTableId,
    },
    /// No local address uses a table.
    #[error("no local address uses table {0}")]
    UnusedTable(PolicyTableId),
    /// A table refers to a peer set that the plan doesn't have, or to one of the other kind.
    #[error("table {table} refers to peer set {set}, which is missing or of the other kind")]
    PeerSet {
        /// The table.
        table: PolicyTableId,
        /// The peer set.
        set: PeerSetId,
    },
    /// No table uses a peer set.
    #[error("no table uses peer set {0}")]
    UnusedPeerSet(PeerSetId),
    /// The ranges of a peer set are empty, not sorted, or overlap.
    #[error("the ranges of peer set {0} are empty, not sorted, or overlap")]
    Ranges(PeerSetId),
    /// Two peer sets of a table contain one address, so that its row is ambiguous.
    #[error("two peer sets of table {table} contain {address}")]
    Overlap {
        /// The table.
        table: PolicyTableId,
        /// The address.
        address: IpAddr,
    },
}

impl NodePlan {
    /// Checks the invariants that the documentation of the fields states. `O(n log n)` in the size of the plan.
    ///
    /// Plans of the compiler are well formed; property tests check that.
    ///
    /// # Errors
    /// [`BrokenPlan`] with the first invariant that doesn't hold.
    pub fn check(&self) -> Result<(), BrokenPlan> {
        let mut used: BTreeSet<PolicyTableId> = BTreeSet::new();
        let dispatches = [
            (Direction::Ingress, &self.ingress),
            (Direction::Egress, &self.egress),
            (Direction::Ingress, &self.audit.ingress),
            (Direction::Egress, &self.audit.egress),
        ];
        for (direction, dispatch) in dispatches {
            for (address, table) in dispatch {
                if self.tables.get(table).is_none_or(|t| t.direction != direction) {
                    return Err(BrokenPlan::Table { direction, address: *address, table: *table });
                }
                used.insert(*table);
            }
        }
        if let Some(unused) = self.tables.keys().find(|id| !used.contains(id)) {
            return Err(BrokenPlan::UnusedTable(*unused));
        }
        for (id, set) in &self.peer_sets {
            if matches!(set, PeerSet::Ranges(ranges) if !is_sorted(ranges)) {
                return Err(BrokenPlan::Ranges(*id));
            }
        }
        self.tables.iter().try_for_each(|(id, table)| check_table(*id, table, &self.peer_sets))?;
        let sets: BTreeSet<&PeerSetId> =
            self.tables.values().flat_map(|t| t.exact.keys().chain(t.ranges.keys())).collect();
        match self.peer_sets.keys().find(|id| !sets.contains(id)) {
            Some(unused) => Err(BrokenPlan::UnusedPeerSet(*unused)),
            None => Ok(()),
        }
    }
}

fn is_sorted(ranges: &[IpRange]) -> bool {
    let is_range = |r: &IpRange| r.first <= r.last && Family::of(r.first) == Family::of(r.last);
    !ranges.is_empty() && ranges.iter().all(is_range) && ranges.windows(2).all(|w| w[0].last < w[1].first)
}

/// Checks that the peer sets of a table are of the right kind, and disjoint.
fn check_table(
    table: PolicyTableId,
    PolicyTable { exact, ranges, .. }: &PolicyTable,
    sets: &BTreeMap<PeerSetId, PeerSet>,
) -> Result<(), BrokenPlan> {
    let mut seen = BTreeSet::new();
    for set in exact.keys() {
        let Some(PeerSet::Addresses(members)) = sets.get(set) else {
            return Err(BrokenPlan::PeerSet { table, set: *set });
        };
        if let Some(address) = members.iter().find(|address| !seen.insert(*address)) {
            return Err(BrokenPlan::Overlap { table, address });
        }
    }
    let mut all: Vec<IpRange> = Vec::new();
    for set in ranges.keys() {
        let Some(PeerSet::Ranges(ranges)) = sets.get(set) else {
            return Err(BrokenPlan::PeerSet { table, set: *set });
        };
        all.extend(ranges);
    }
    all.sort_unstable();
    match all.windows(2).find(|w| w[0].last >= w[1].first) {
        Some(overlap) => Err(BrokenPlan::Overlap { table, address: overlap[1].first }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Traffic;

    const TABLE: PolicyTableId = PolicyTableId([1; 16]);
    const PODS: PeerSetId = PeerSetId([2; 16]);
    const BLOCKS: PeerSetId = PeerSetId([3; 16]);

    fn plan() -> NodePlan {
        let peer: IpAddr = "10.0.0.2".parse().unwrap();
        let table = PolicyTable {
            direction: Direction::Ingress,
            exact: BTreeMap::from([(PODS, Traffic::all())]),
            ranges: BTreeMap::from([(BLOCKS, Traffic::all())]),
            rest: Traffic::none(),
        };
        NodePlan {
            ingress: BTreeMap::from([("10.0.0.1".parse().unwrap(), TABLE)]),
            tables: BTreeMap::from([(TABLE, table)]),
            peer_sets: BTreeMap::from([
                (PODS, PeerSet::Addresses([peer].into())),
                (BLOCKS, PeerSet::Ranges(vec![IpRange { first: peer, last: peer }])),
            ]),
            ..NodePlan::default()
        }
    }

    fn broken(edit: impl FnOnce(&mut NodePlan)) -> Result<(), BrokenPlan> {
        let mut plan = plan();
        edit(&mut plan);
        plan.check()
    }

    #[test]
    fn each_broken_invariant_is_named() {
        assert_eq!(broken(|_| {}), Ok(()));
        let address = "10.0.0.1".parse().unwrap();
        assert_eq!(
            broken(|plan| plan.egress = std::mem::take(&mut plan.ingress)),
            Err(BrokenPlan::Table { direction: Direction::Egress, address, table: TABLE })
        );
        assert_eq!(broken(|plan| plan.ingress.clear()), Err(BrokenPlan::UnusedTable(TABLE)));
        assert_eq!(
            broken(|plan| drop(plan.peer_sets.remove(&PODS))),
            Err(BrokenPlan::PeerSet { table: TABLE, set: PODS })
        );
        assert_eq!(
            broken(|plan| plan.tables.get_mut(&TABLE).unwrap().exact.clear()),
            Err(BrokenPlan::UnusedPeerSet(PODS))
        );
        assert_eq!(
            broken(|plan| drop(plan.peer_sets.insert(BLOCKS, PeerSet::Ranges(Vec::new())))),
            Err(BrokenPlan::Ranges(BLOCKS))
        );
        let twice = broken(|plan| {
            let other = PeerSetId([4; 16]);
            plan.peer_sets.insert(other, plan.peer_sets[&PODS].clone());
            plan.tables.get_mut(&TABLE).unwrap().exact.insert(other, Traffic::none());
        });
        let address = "10.0.0.2".parse().unwrap();
        assert_eq!(twice, Err(BrokenPlan::Overlap { table: TABLE, address }));
    }
}

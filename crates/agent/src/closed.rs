//! What is programmed when the kernel refuses a plan: pods that it leaves too open fail closed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::{Direction, NodePlan, PolicyTable, PolicyTableId, Traffic};

use crate::allows::{self, Of};

/// The table that allows nothing in this direction. Its name can't be that of a compiled table but by a preimage.
#[must_use]
pub fn table_id(direction: Direction) -> PolicyTableId {
    PolicyTableId([if direction == Direction::Ingress { 0xf0 } else { 0xf1 }; 16])
}

/// The local addresses that a kernel which holds `held` lets do more than `wanted` does, by direction. Where it is unknown
/// what the kernel holds (`None`), these are all that `wanted` isolates.
///
/// What a pod may use of itself through a service counts as egress.
#[must_use]
pub fn open(wanted: &NodePlan, held: Option<&NodePlan>) -> BTreeSet<(Direction, IpAddr)> {
    let nothing = NodePlan::default();
    let mut compared = Compared::new(wanted, held.unwrap_or(&nothing));
    let mut out = BTreeSet::new();
    for direction in Direction::BOTH {
        for (address, table) in dispatch(wanted, direction) {
            if compared.held(direction, *address).is_none_or(|held| !compared.allows_no_more(held, *table)) {
                out.insert((direction, *address));
            }
        }
    }
    for (address, traffic) in &wanted.hairpin {
        let held = compared.held.hairpin.get(address);
        if held.is_none_or(|held| !held.difference(traffic).is_none()) {
            out.insert((Direction::Egress, *address));
        }
    }
    out
}

/// A plan that the kernel can hold if it holds `programmed`. Local addresses lead to their table where table and groups are
/// programmed as `wanted` has them; else they keep the one that they have if that allows no more than the wanted one; all
/// others lead to a table that allows nothing. What pods may use of themselves likewise stays as programmed, or is nothing.
#[must_use]
pub fn plan(wanted: &NodePlan, programmed: &NodePlan) -> NodePlan {
    let mut compared = Compared::new(wanted, programmed);
    let hairpin = wanted.hairpin.iter().map(|(address, traffic)| {
        let kept = programmed.hairpin.get(address).filter(|held| held.difference(traffic).is_none());
        (*address, kept.cloned().unwrap_or_default())
    });
    // Neither of the two allows anything to anybody.
    let (local, nodes) = (wanted.local.clone(), wanted.nodes.clone());
    let mut out = NodePlan { hairpin: hairpin.collect(), local, nodes, ..NodePlan::default() };
    for direction in Direction::BOTH {
        for (address, wanted_id) in dispatch(wanted, direction) {
            let held = compared.held(direction, *address);
            let id = if compared.is_programmed(*wanted_id) {
                *wanted_id
            } else {
                let kept = held.filter(|held| compared.allows_no_more(*held, *wanted_id));
                kept.unwrap_or(table_id(direction))
            };
            match direction {
                Direction::Ingress => out.ingress.insert(*address, id),
                Direction::Egress => out.egress.insert(*address, id),
            };
            out.tables.entry(id).or_insert_with(|| {
                let held = programmed.tables.get(&id).filter(|_| id != table_id(direction));
                held.cloned().unwrap_or_else(|| nothing(direction))
            });
        }
    }
    let groups = out.tables.values().flat_map(|table| table.exact.keys().chain(table.ranges.keys()));
    out.peer_sets = groups.filter_map(|id| Some((*id, programmed.peer_sets.get(id)?.clone()))).collect();
    out
}

/// The addresses that a closed plan cuts off.
pub fn cut_off(plan: &NodePlan) -> impl Iterator<Item = (Direction, IpAddr)> {
    Direction::BOTH.into_iter().flat_map(move |direction| {
        let closed = dispatch(plan, direction).iter().filter(move |(_, id)| **id == table_id(direction));
        closed.map(move |(address, _)| (direction, *address))
    })
}

fn dispatch(plan: &NodePlan, direction: Direction) -> &BTreeMap<IpAddr, PolicyTableId> {
    if direction == Direction::Ingress { &plan.ingress } else { &plan.egress }
}

/// Two plans, and which tables of them were compared already: many addresses share a table.
struct Compared<'a> {
    wanted: &'a NodePlan,
    held: &'a NodePlan,
    no_more: BTreeMap<(PolicyTableId, PolicyTableId), bool>,
    programmed: BTreeMap<PolicyTableId, bool>,
}

impl<'a> Compared<'a> {
    fn new(wanted: &'a NodePlan, held: &'a NodePlan) -> Self {
        Self { wanted, held, no_more: BTreeMap::new(), programmed: BTreeMap::new() }
    }

    /// The table to which the kernel leads an address.
    fn held(&self, direction: Direction, address: IpAddr) -> Option<PolicyTableId> {
        dispatch(self.held, direction).get(&address).copied()
    }

    /// Whether the kernel's table allows no more than the wanted one.
    fn allows_no_more(&mut self, held: PolicyTableId, wanted: PolicyTableId) -> bool {
        if held == wanted && self.is_programmed(wanted) {
            return true;
        }
        let (before, after) = (self.held.tables.get(&held), self.wanted.tables.get(&wanted));
        let (Some(before), Some(after)) = (before, after) else { return false };
        let (old, new) = (Of { plan: self.held, table: before }, Of { plan: self.wanted, table: after });
        *self.no_more.entry((held, wanted)).or_insert_with(|| allows::no_more(old, new))
    }

    /// Whether the kernel holds this table and its groups as they are wanted.
    fn is_programmed(&mut self, id: PolicyTableId) -> bool {
        let (wanted, held) = (self.wanted, self.held);
        *self.programmed.entry(id).or_insert_with(|| {
            let table = wanted.tables.get(&id).filter(|table| held.tables.get(&id) == Some(*table));
            table.is_some_and(|table| {
                let mut groups = table.exact.keys().chain(table.ranges.keys());
                groups.all(|group| wanted.peer_sets.get(group) == held.peer_sets.get(group))
            })
        })
    }
}

fn nothing(direction: Direction) -> PolicyTable {
    PolicyTable { direction, exact: BTreeMap::new(), ranges: BTreeMap::new(), rest: Traffic::none() }
}

#[cfg(test)]
mod tests {
    use palisade_policy::{PortSet, Protocol};

    use super::*;

    const PODS: [IpAddr; 4] = {
        const fn pod(n: u8) -> IpAddr {
            IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, n))
        }
        [pod(1), pod(2), pod(3), pod(4)]
    };

    fn web() -> Traffic {
        Traffic::of(Protocol::Tcp, PortSet::range(80, 80))
    }

    #[test]
    fn what_a_pod_may_use_of_itself_stays_as_programmed_or_is_nothing() {
        let (web, pods) = (web(), PODS);
        let hairpins = |of: &[(IpAddr, &Traffic)]| NodePlan {
            hairpin: of.iter().map(|(pod, traffic)| (*pod, (*traffic).clone())).collect(),
            ..NodePlan::default()
        };
        let wanted = hairpins(&[(pods[0], &web), (pods[1], &web), (pods[2], &web)]);
        let programmed = hairpins(&[(pods[0], &web), (pods[1], &Traffic::all()), (pods[3], &web)]);
        let none = Traffic::none();
        assert_eq!(
            plan(&wanted, &programmed),
            hairpins(&[(pods[0], &web), (pods[1], &none), (pods[2], &none)]),
            "as programmed, changed, new; and one that is not wanted any more"
        );
        let open_ones = open(&wanted, Some(&programmed));
        assert_eq!(open_ones, [(Direction::Egress, pods[1]), (Direction::Egress, pods[2])].into());
        assert_eq!(open(&wanted, None).len(), 3);
    }

    /// Pods that lead to tables that differ in what everybody may use.
    fn tables(of: &[(IpAddr, u8, Traffic)]) -> NodePlan {
        let mut plan = NodePlan::default();
        for (pod, id, rest) in of {
            let id = PolicyTableId([*id; 16]);
            plan.ingress.insert(*pod, id);
            plan.tables.insert(id, PolicyTable { rest: rest.clone(), ..nothing(Direction::Ingress) });
        }
        plan
    }

    #[test]
    fn a_table_that_allows_no_more_is_kept_and_one_that_allows_more_is_closed() {
        let programmed = tables(&[(PODS[0], 1, Traffic::none()), (PODS[1], 2, Traffic::all())]);
        // The first is to be opened, the second narrowed, the third is new.
        let wanted = tables(&[(PODS[0], 3, web()), (PODS[1], 3, web()), (PODS[2], 3, web())]);
        let fallback = plan(&wanted, &programmed);
        let closed = table_id(Direction::Ingress);
        assert_eq!(
            fallback.ingress,
            [(PODS[0], PolicyTableId([1; 16])), (PODS[1], closed), (PODS[2], closed)].into()
        );
        let narrowed = [PODS[1], PODS[2]].map(|pod| (Direction::Ingress, pod));
        assert_eq!(cut_off(&fallback).collect::<Vec<_>>(), narrowed);
        assert_eq!(open(&wanted, Some(&programmed)), narrowed.into());
        assert_eq!(open(&wanted, Some(&fallback)), BTreeSet::new());
        // One that is new and whose table is there needs no other.
        let joined = tables(&[(PODS[0], 1, Traffic::none()), (PODS[3], 1, Traffic::none())]);
        assert_eq!(plan(&joined, &programmed).ingress[&PODS[3]], PolicyTableId([1; 16]));
        assert_eq!(open(&joined, Some(&programmed)), [(Direction::Ingress, PODS[3])].into());
    }
}

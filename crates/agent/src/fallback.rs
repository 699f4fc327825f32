//! The fallback plan when the kernel rejects a plan: pods for which the kernel allows too much fail closed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::{Direction, NodePlan, PolicyTable, PolicyTableId, Traffic};

use crate::allows::{TableInPlan, allows_no_more};

/// Returns the id of the policy table that denies everything in a direction. The ids of compiled tables are hashes, so none has
/// this one.
#[must_use]
pub fn deny_all_id(direction: Direction) -> PolicyTableId {
    PolicyTableId([if direction == Direction::Ingress { 0xf0 } else { 0xf1 }; 16])
}

/// Returns the local addresses for which `held`, the kernel's plan, allows more than `wanted`, by direction. If it is unknown
/// what the kernel holds (`None`), returns all addresses that `wanted` isolates.
///
/// Connections of a pod to itself through a service count as egress.
#[must_use]
pub fn too_open(wanted: &NodePlan, held: Option<&NodePlan>) -> BTreeSet<(Direction, IpAddr)> {
    let nothing = NodePlan::default();
    let mut compared = Comparison::new(wanted, held.unwrap_or(&nothing));
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

/// Returns a plan that needs no new policy tables or peer sets in a kernel that holds `programmed`. A local address has its policy table if the
/// table and its peer sets are programmed as in `wanted`. Else it keeps its current table if that allows no more than the
/// wanted one. All others have a table that denies everything. Connections of pods to themselves likewise stay as
/// programmed or are denied.
#[must_use]
pub fn plan(wanted: &NodePlan, programmed: &NodePlan) -> NodePlan {
    let mut compared = Comparison::new(wanted, programmed);
    let hairpin = wanted.hairpin.iter().map(|(address, traffic)| {
        let kept = programmed.hairpin.get(address).filter(|held| held.difference(traffic).is_none());
        (*address, kept.cloned().unwrap_or_default())
    });
    // Neither of the two allows any traffic.
    let (local, nodes) = (wanted.local.clone(), wanted.nodes.clone());
    let mut out = NodePlan { hairpin: hairpin.collect(), local, nodes, ..NodePlan::default() };
    for direction in Direction::BOTH {
        for (address, wanted_id) in dispatch(wanted, direction) {
            let held = compared.held(direction, *address);
            let id = if compared.is_programmed(*wanted_id) {
                *wanted_id
            } else {
                let kept = held.filter(|held| compared.allows_no_more(*held, *wanted_id));
                kept.unwrap_or(deny_all_id(direction))
            };
            match direction {
                Direction::Ingress => out.ingress.insert(*address, id),
                Direction::Egress => out.egress.insert(*address, id),
            };
            out.tables.entry(id).or_insert_with(|| {
                let held = programmed.tables.get(&id).filter(|_| id != deny_all_id(direction));
                held.cloned().unwrap_or_else(|| deny_all(direction))
            });
        }
    }
    let peer_sets = out.tables.values().flat_map(|table| table.exact.keys().chain(table.ranges.keys()));
    out.peer_sets = peer_sets.filter_map(|id| Some((*id, programmed.peer_sets.get(id)?.clone()))).collect();
    out
}

/// Returns the addresses that a fallback plan cuts off.
pub fn cut_off(plan: &NodePlan) -> impl Iterator<Item = (Direction, IpAddr)> {
    Direction::BOTH.into_iter().flat_map(move |direction| {
        let closed = dispatch(plan, direction).iter().filter(move |(_, id)| **id == deny_all_id(direction));
        closed.map(move |(address, _)| (direction, *address))
    })
}

fn dispatch(plan: &NodePlan, direction: Direction) -> &BTreeMap<IpAddr, PolicyTableId> {
    if direction == Direction::Ingress { &plan.ingress } else { &plan.egress }
}

/// Compares two plans, and caches comparisons of policy tables, because many addresses share a table.
struct Comparison<'a> {
    wanted: &'a NodePlan,
    held: &'a NodePlan,
    no_more: BTreeMap<(PolicyTableId, PolicyTableId), bool>,
    programmed: BTreeMap<PolicyTableId, bool>,
}

impl<'a> Comparison<'a> {
    fn new(wanted: &'a NodePlan, held: &'a NodePlan) -> Self {
        Self { wanted, held, no_more: BTreeMap::new(), programmed: BTreeMap::new() }
    }

    /// Returns the policy table of an address in the kernel.
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
        let old = TableInPlan { plan: self.held, table: before };
        let new = TableInPlan { plan: self.wanted, table: after };
        *self.no_more.entry((held, wanted)).or_insert_with(|| allows_no_more(old, new))
    }

    /// Whether the kernel holds this table and its peer sets as in the wanted plan.
    fn is_programmed(&mut self, id: PolicyTableId) -> bool {
        let (wanted, held) = (self.wanted, self.held);
        *self.programmed.entry(id).or_insert_with(|| {
            let table = wanted.tables.get(&id).filter(|table| held.tables.get(&id) == Some(*table));
            table.is_some_and(|table| {
                let mut peer_sets = table.exact.keys().chain(table.ranges.keys());
                peer_sets.all(|id| wanted.peer_sets.get(id) == held.peer_sets.get(id))
            })
        })
    }
}

fn deny_all(direction: Direction) -> PolicyTable {
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
    fn hairpin_connections_stay_as_programmed_or_are_denied() {
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
            "as programmed, changed, new, and one that is no longer wanted"
        );
        let too_open_ones = too_open(&wanted, Some(&programmed));
        assert_eq!(too_open_ones, [(Direction::Egress, pods[1]), (Direction::Egress, pods[2])].into());
        assert_eq!(too_open(&wanted, None).len(), 3);
    }

    /// Pods with tables that differ in the traffic that they allow to all peers.
    fn tables(of: &[(IpAddr, u8, Traffic)]) -> NodePlan {
        let mut plan = NodePlan::default();
        for (pod, id, rest) in of {
            let id = PolicyTableId([*id; 16]);
            plan.ingress.insert(*pod, id);
            plan.tables.insert(id, PolicyTable { rest: rest.clone(), ..deny_all(Direction::Ingress) });
        }
        plan
    }

    #[test]
    fn a_table_that_allows_no_more_is_kept_and_one_that_allows_more_is_closed() {
        let programmed = tables(&[(PODS[0], 1, Traffic::none()), (PODS[1], 2, Traffic::all())]);
        // The first is to allow more, the second less, the third is new.
        let wanted = tables(&[(PODS[0], 3, web()), (PODS[1], 3, web()), (PODS[2], 3, web())]);
        let fallback = plan(&wanted, &programmed);
        let closed = deny_all_id(Direction::Ingress);
        assert_eq!(
            fallback.ingress,
            [(PODS[0], PolicyTableId([1; 16])), (PODS[1], closed), (PODS[2], closed)].into()
        );
        let restricted = [PODS[1], PODS[2]].map(|pod| (Direction::Ingress, pod));
        assert_eq!(cut_off(&fallback).collect::<Vec<_>>(), restricted);
        assert_eq!(too_open(&wanted, Some(&programmed)), restricted.into());
        assert_eq!(too_open(&wanted, Some(&fallback)), BTreeSet::new());
        // A new pod whose table is already programmed needs no other.
        let joined = tables(&[(PODS[0], 1, Traffic::none()), (PODS[3], 1, Traffic::none())]);
        assert_eq!(plan(&joined, &programmed).ingress[&PODS[3]], PolicyTableId([1; 16]));
        assert_eq!(too_open(&joined, Some(&programmed)), [(Direction::Ingress, PODS[3])].into());
    }
}

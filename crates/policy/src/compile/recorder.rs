//! Edits a plan and remembers what it was, so that the delta at the end carries only what differs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    Delta, Direction, NodePlan, PeerSet, PeerSetId, PolicyTable, PolicyTableId, Traffic,
    plan::{AddressChanges, MemberChanges},
};

/// One round of edits. A group's or table's first state is kept at the first touch.
pub(super) struct Recorder<'a> {
    plan: &'a mut NodePlan,
    /// `None`: the group is new, and its members are not worth tracking one by one.
    groups: BTreeMap<PeerSetId, Option<BTreeMap<IpAddr, bool>>>,
    tables: BTreeMap<PolicyTableId, Option<PolicyTable>>,
    dispatch: BTreeMap<(Direction, IpAddr), Option<PolicyTableId>>,
    hairpin: BTreeMap<IpAddr, Option<Traffic>>,
    /// For each address whose place in the set changed, whether it was in it at first.
    local: BTreeMap<IpAddr, bool>,
    nodes: BTreeMap<IpAddr, bool>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(plan: &'a mut NodePlan) -> Self {
        let (tables, dispatch, hairpin) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (local, nodes) = (BTreeMap::new(), BTreeMap::new());
        Self { plan, groups: BTreeMap::new(), tables, dispatch, hairpin, local, nodes }
    }

    /// Whether the plan holds this group now.
    pub(super) fn has_group(&self, id: PeerSetId) -> bool {
        self.plan.peer_sets.contains_key(&id)
    }

    pub(super) fn add_group(&mut self, id: PeerSetId, group: PeerSet) {
        self.groups.entry(id).or_insert(None);
        self.plan.peer_sets.insert(id, group);
    }

    /// Takes a group away for good: nothing may add it again in this round.
    pub(super) fn remove_group(&mut self, id: PeerSetId) {
        if self.plan.peer_sets.remove(&id).is_some() {
            self.groups.entry(id).or_insert_with(|| Some(BTreeMap::new()));
        }
    }

    /// Puts an address into a group of addresses or takes it out.
    pub(super) fn set_member(&mut self, id: PeerSetId, address: IpAddr, member: bool) {
        let Some(PeerSet::Addresses(set)) = self.plan.peer_sets.get_mut(&id) else { return };
        let changed = if member { set.insert(address) } else { set.remove(&address) };
        if !changed {
            return;
        }
        if let Some(first) = self.groups.entry(id).or_insert_with(|| Some(BTreeMap::new())) {
            first.entry(address).or_insert(!member);
        }
    }

    pub(super) fn set_table(&mut self, id: PolicyTableId, table: Option<PolicyTable>) {
        let before = match table {
            Some(table) => self.plan.tables.insert(id, table),
            None => self.plan.tables.remove(&id),
        };
        self.tables.entry(id).or_insert(before);
    }

    /// Edits a table in place, if it exists.
    pub(super) fn edit_table(&mut self, id: PolicyTableId, edit: impl FnOnce(&mut PolicyTable)) {
        if let Some(table) = self.plan.tables.get_mut(&id) {
            self.tables.entry(id).or_insert_with(|| Some(table.clone()));
            edit(table);
        }
    }

    /// Leads a local address to a table, or to none. Returns where it led before.
    pub(super) fn set_dispatch(
        &mut self,
        direction: Direction,
        address: IpAddr,
        table: Option<PolicyTableId>,
    ) -> Option<PolicyTableId> {
        let map = match direction {
            Direction::Ingress => &mut self.plan.ingress,
            Direction::Egress => &mut self.plan.egress,
        };
        let before = match table {
            Some(table) => map.insert(address, table),
            None => map.remove(&address),
        };
        self.dispatch.entry((direction, address)).or_insert(before);
        before
    }

    /// The tables that decide for a local address, egress first.
    pub(super) fn tables_of(&self, address: IpAddr) -> [Option<PolicyTableId>; 2] {
        [self.plan.egress.get(&address).copied(), self.plan.ingress.get(&address).copied()]
    }

    /// Says what a pod may use of itself through a service; `None`: everything.
    pub(super) fn set_hairpin(&mut self, address: IpAddr, traffic: Option<Traffic>) {
        let before = match traffic {
            Some(traffic) => self.plan.hairpin.insert(address, traffic),
            None => self.plan.hairpin.remove(&address),
        };
        self.hairpin.entry(address).or_insert(before);
    }

    /// Says whether a live pod of this node owns an address.
    pub(super) fn set_local(&mut self, address: IpAddr, is_local: bool) {
        set_in(&mut self.plan.local, &mut self.local, address, is_local);
    }

    /// Says whether a node has an address.
    pub(super) fn set_node(&mut self, address: IpAddr, is_node: bool) {
        set_in(&mut self.plan.nodes, &mut self.nodes, address, is_node);
    }

    /// The difference between the plan at first and now: minimal, and empty where edits cancelled out.
    pub(super) fn finish(self) -> Delta {
        let plan = self.plan;
        let mut delta = Delta {
            local: changes(&self.local, |a| plan.local.contains(a)),
            nodes: changes(&self.nodes, |a| plan.nodes.contains(a)),
            ..Delta::default()
        };
        for (id, first_members) in self.groups {
            match (first_members, plan.peer_sets.get(&id)) {
                (None, Some(group)) => drop(delta.peer_sets_added.insert(id, group.clone())),
                (None, None) => {}
                (Some(_), None) => drop(delta.peer_sets_removed.insert(id)),
                (Some(first), Some(PeerSet::Addresses(now))) => {
                    let change = changes(&first, |address| now.contains(address));
                    if !change.is_empty() {
                        delta.members.insert(id, change);
                    }
                }
                // Ranges are fixed by the name of the group: nothing to compare.
                (Some(_), Some(PeerSet::Ranges(_))) => {}
            }
        }
        for (id, first) in self.tables {
            match plan.tables.get(&id) {
                now if now == first.as_ref() => {}
                Some(table) => drop(delta.tables_set.insert(id, table.clone())),
                None => drop(delta.tables_removed.insert(id)),
            }
        }
        for (address, first) in self.hairpin {
            match plan.hairpin.get(&address) {
                now if now == first.as_ref() => {}
                Some(traffic) => drop(delta.hairpin.set.insert(address, traffic.clone())),
                None => drop(delta.hairpin.removed.insert(address)),
            }
        }
        for ((direction, address), first) in self.dispatch {
            let (now, changes): (_, &mut AddressChanges) = match direction {
                Direction::Ingress => (plan.ingress.get(&address), &mut delta.ingress),
                Direction::Egress => (plan.egress.get(&address), &mut delta.egress),
            };
            match now {
                now if now == first.as_ref() => {}
                Some(table) => drop(changes.set.insert(address, *table)),
                None => drop(changes.removed.insert(address)),
            }
        }
        delta
    }
}

/// Puts an address into a set or takes it out, and remembers where it was at first.
fn set_in(set: &mut BTreeSet<IpAddr>, first: &mut BTreeMap<IpAddr, bool>, address: IpAddr, member: bool) {
    let changed = if member { set.insert(address) } else { set.remove(&address) };
    if changed {
        first.entry(address).or_insert(!member);
    }
}

fn changes(first: &BTreeMap<IpAddr, bool>, is_member: impl Fn(&IpAddr) -> bool) -> MemberChanges {
    let mut change = MemberChanges::default();
    for (address, was_member) in first {
        match (was_member, is_member(address)) {
            (false, true) => drop(change.added.insert(*address)),
            (true, false) => drop(change.removed.insert(*address)),
            _ => {}
        }
    }
    change
}

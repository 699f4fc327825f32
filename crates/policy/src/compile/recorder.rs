//! Edits a plan and records what it was, so that the final delta carries only what differs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    Delta, Direction, NodePlan, PeerSet, PeerSetId, PolicyTable, PolicyTableId, Traffic,
    plan::{AddressChanges, MemberChanges},
};

/// One round of edits. The initial state of a peer set or table is kept when it is first edited.
pub(super) struct Recorder<'a> {
    plan: &'a mut NodePlan,
    /// `None`: the set is new, and its members needn't be tracked.
    sets: BTreeMap<PeerSetId, Option<BTreeMap<IpAddr, bool>>>,
    tables: BTreeMap<PolicyTableId, Option<PolicyTable>>,
    dispatch: BTreeMap<(Direction, IpAddr), Option<PolicyTableId>>,
    hairpin: BTreeMap<IpAddr, Option<Traffic>>,
    /// For each address whose membership changed, whether it was initially in the set.
    local: BTreeMap<IpAddr, bool>,
    nodes: BTreeMap<IpAddr, bool>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(plan: &'a mut NodePlan) -> Self {
        let (tables, dispatch, hairpin) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (local, nodes) = (BTreeMap::new(), BTreeMap::new());
        Self { plan, sets: BTreeMap::new(), tables, dispatch, hairpin, local, nodes }
    }

    /// Returns whether the plan has this peer set.
    pub(super) fn has_set(&self, id: PeerSetId) -> bool {
        self.plan.peer_sets.contains_key(&id)
    }

    pub(super) fn add_set(&mut self, id: PeerSetId, set: PeerSet) {
        self.sets.entry(id).or_insert(None);
        self.plan.peer_sets.insert(id, set);
    }

    /// Removes a peer set. It must not be added again in this round.
    pub(super) fn remove_set(&mut self, id: PeerSetId) {
        if self.plan.peer_sets.remove(&id).is_some() {
            self.sets.entry(id).or_insert_with(|| Some(BTreeMap::new()));
        }
    }

    /// Adds an address to a peer set or removes it.
    pub(super) fn set_member(&mut self, id: PeerSetId, address: IpAddr, member: bool) {
        let Some(PeerSet::Addresses(set)) = self.plan.peer_sets.get_mut(&id) else { return };
        let changed = if member { set.insert(address) } else { set.remove(&address) };
        if !changed {
            return;
        }
        if let Some(first) = self.sets.entry(id).or_insert_with(|| Some(BTreeMap::new())) {
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

    /// Sets or removes the table of a local address. Returns the previous one.
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

    /// Returns the tables of a local address, egress first.
    pub(super) fn tables_of(&self, address: IpAddr) -> [Option<PolicyTableId>; 2] {
        [self.plan.egress.get(&address).copied(), self.plan.ingress.get(&address).copied()]
    }

    /// Sets what a pod may send to itself through a service; `None`: everything.
    pub(super) fn set_hairpin(&mut self, address: IpAddr, traffic: Option<Traffic>) {
        let before = match traffic {
            Some(traffic) => self.plan.hairpin.insert(address, traffic),
            None => self.plan.hairpin.remove(&address),
        };
        self.hairpin.entry(address).or_insert(before);
    }

    /// Sets whether a running pod of this node owns an address.
    pub(super) fn set_local(&mut self, address: IpAddr, is_local: bool) {
        set_in(&mut self.plan.local, &mut self.local, address, is_local);
    }

    /// Sets whether a node has an address.
    pub(super) fn set_node(&mut self, address: IpAddr, is_node: bool) {
        set_in(&mut self.plan.nodes, &mut self.nodes, address, is_node);
    }

    /// Returns the difference to the initial plan: minimal, and empty if the edits canceled out.
    pub(super) fn finish(self) -> Delta {
        let plan = self.plan;
        let mut delta = Delta {
            local: changes(&self.local, |a| plan.local.contains(a)),
            nodes: changes(&self.nodes, |a| plan.nodes.contains(a)),
            ..Delta::default()
        };
        for (id, first_members) in self.sets {
            match (first_members, plan.peer_sets.get(&id)) {
                (None, Some(set)) => drop(delta.peer_sets_added.insert(id, set.clone())),
                (None, None) => {}
                (Some(_), None) => drop(delta.peer_sets_removed.insert(id)),
                (Some(first), Some(PeerSet::Addresses(now))) => {
                    let change = changes(&first, |address| now.contains(address));
                    if !change.is_empty() {
                        delta.members.insert(id, change);
                    }
                }
                // Ranges never change while the id stays.
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

/// Adds an address to a set or removes it, and records its initial membership.
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

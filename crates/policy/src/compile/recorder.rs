//! Edits a plan and records what it was, so that the final delta carries only what differs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    Delta, Direction, Mode, NodePlan, PeerSet, PeerSetId, PolicyTable, PolicyTableId, Traffic,
    plan::{AddressChanges, MemberChanges},
};

/// One round of edits. The initial state of a peer set or table is kept when it is first edited.
pub(super) struct Recorder<'a> {
    plan: &'a mut NodePlan,
    /// `None`: the set is new, and its members needn't be tracked.
    sets: BTreeMap<PeerSetId, Option<BTreeMap<IpAddr, bool>>>,
    tables: BTreeMap<PolicyTableId, Option<PolicyTable>>,
    dispatch: BTreeMap<(Mode, Direction, IpAddr), Option<PolicyTableId>>,
    hairpin: BTreeMap<(Mode, IpAddr), Option<Traffic>>,
    /// For each address whose membership changed, whether it was initially in the set.
    local: BTreeMap<IpAddr, bool>,
    nodes: BTreeMap<IpAddr, bool>,
    refusing: BTreeMap<IpAddr, bool>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(plan: &'a mut NodePlan) -> Self {
        let (tables, dispatch, hairpin) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (local, nodes, refusing) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { plan, sets: BTreeMap::new(), tables, dispatch, hairpin, local, nodes, refusing }
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
        key: (Mode, Direction, IpAddr),
        table: Option<PolicyTableId>,
    ) -> Option<PolicyTableId> {
        let (mode, direction, address) = key;
        let map = match (mode, direction) {
            (Mode::Enforce, Direction::Ingress) => &mut self.plan.ingress,
            (Mode::Enforce, Direction::Egress) => &mut self.plan.egress,
            (Mode::Audit, Direction::Ingress) => &mut self.plan.audit.ingress,
            (Mode::Audit, Direction::Egress) => &mut self.plan.audit.egress,
        };
        let before = match table {
            Some(table) => map.insert(address, table),
            None => map.remove(&address),
        };
        self.dispatch.entry(key).or_insert(before);
        before
    }

    /// Returns the tables that decide for a local address in this mode, egress first; none if no policy in audit mode
    /// selects it.
    pub(super) fn tables_of(&self, mode: Mode, address: IpAddr) -> [Option<PolicyTableId>; 2] {
        let NodePlan { ingress, egress, audit, .. } = &*self.plan;
        let enforced = [egress.get(&address).copied(), ingress.get(&address).copied()];
        match mode {
            Mode::Enforce => enforced,
            Mode::Audit if !audit.has(address) => [None, None],
            Mode::Audit => [
                audit.egress.get(&address).copied().or(enforced[0]),
                audit.ingress.get(&address).copied().or(enforced[1]),
            ],
        }
    }

    /// Sets what a pod may send to itself through a service; `None`: everything.
    pub(super) fn set_hairpin(&mut self, mode: Mode, address: IpAddr, traffic: Option<Traffic>) {
        let map = hairpin_of(self.plan, mode);
        let before = match traffic {
            Some(traffic) => map.insert(address, traffic),
            None => map.remove(&address),
        };
        self.hairpin.entry((mode, address)).or_insert(before);
    }

    /// Sets whether a running pod of this node owns an address.
    pub(super) fn set_local(&mut self, address: IpAddr, is_local: bool) {
        set_in(&mut self.plan.local, &mut self.local, address, is_local);
    }

    /// Sets whether the policies of a local address refuse what they deny.
    pub(super) fn set_refusing(&mut self, address: IpAddr, is_refusing: bool) {
        set_in(&mut self.plan.refusing, &mut self.refusing, address, is_refusing);
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
            refusing: changes(&self.refusing, |a| plan.refusing.contains(a)),
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
        for ((mode, address), first) in self.hairpin {
            let changes = match mode {
                Mode::Enforce => &mut delta.hairpin,
                Mode::Audit => &mut delta.audit.hairpin,
            };
            match hairpin_of(plan, mode).get(&address) {
                now if now == first.as_ref() => {}
                Some(traffic) => drop(changes.set.insert(address, traffic.clone())),
                None => drop(changes.removed.insert(address)),
            }
        }
        for ((mode, direction, address), first) in self.dispatch {
            let (now, changes): (_, &mut AddressChanges) = match (mode, direction) {
                (Mode::Enforce, Direction::Ingress) => (plan.ingress.get(&address), &mut delta.ingress),
                (Mode::Enforce, Direction::Egress) => (plan.egress.get(&address), &mut delta.egress),
                (Mode::Audit, Direction::Ingress) => {
                    (plan.audit.ingress.get(&address), &mut delta.audit.ingress)
                }
                (Mode::Audit, Direction::Egress) => {
                    (plan.audit.egress.get(&address), &mut delta.audit.egress)
                }
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

fn hairpin_of(plan: &mut NodePlan, mode: Mode) -> &mut BTreeMap<IpAddr, Traffic> {
    match mode {
        Mode::Enforce => &mut plan.hairpin,
        Mode::Audit => &mut plan.audit.hairpin,
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

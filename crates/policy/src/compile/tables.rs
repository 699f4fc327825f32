//! Policy tables and peer sets: the row of each class in each table.
//!
//! A class has an exact row in a table only if it differs from the row of the ranges that contain its addresses.

mod closing;
mod state;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use self::state::{RowState, TableState};
use super::{
    accounts::Accounts,
    budget::{Budget, Limit, row_size},
    classes::{ClassId, Classes},
    definition::{Definition, Meaning},
    definitions::NamedDefinition,
    names::Namer,
    ranges,
    recorder::Recorder,
    selections::{Choice, Selections},
};
use crate::{
    AddressSet, Cluster, Direction, IpRange, Mode, Name, Peer, PeerSet, PeerSetId, PolicyTable,
    PolicyTableId, Traffic,
};

/// A peer set. All tables that use it have the same classes in it.
#[derive(Clone, Debug)]
struct PeerSetState {
    /// The meaning of its name.
    meaning: Meaning,
    tables: usize,
    classes: BTreeSet<ClassId>,
}

/// All policy tables and peer sets of the node.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    budget: Budget,
    namer: Namer,
    accounts: Accounts,
    /// The accounts of the tables of policies in audit mode, so that these cost the enforced ones nothing.
    audit_accounts: Accounts,
    tables: BTreeMap<PolicyTableId, TableState>,
    sets: BTreeMap<PeerSetId, PeerSetState>,
    selections: Selections,
    /// What the next `update` must update.
    new_tables: BTreeSet<PolicyTableId>,
    /// Tables whose cost or whose namespaces changed.
    repriced: BTreeSet<PolicyTableId>,
    /// What was unused at some moment; dropped at the end of `update` if it still is.
    unused_tables: BTreeSet<PolicyTableId>,
    unused_sets: BTreeSet<PeerSetId>,
    /// Local addresses to which cluster-wide rules apply, and those among them to update.
    hairpins: BTreeSet<IpAddr>,
    new_hairpins: BTreeSet<IpAddr>,
    /// Closed tables, and a counter of changes to them and to their users.
    closed: BTreeMap<PolicyTableId, Limit>,
    closings: u64,
}

impl Tables {
    /// Makes an empty set of tables with these limits.
    pub(super) fn new(budget: Budget, namer: Namer) -> Self {
        Self { budget, namer, ..Self::default() }
    }

    /// Returns the tables that allow nothing because they are over budget, each with the limit that it exceeds.
    pub(super) fn closed(&self) -> &BTreeMap<PolicyTableId, Limit> {
        &self.closed
    }

    /// Returns a number that grows with every change of the closed tables, of their pods, and of the policies of these.
    pub(super) fn closings(&self) -> u64 {
        self.closings
    }

    /// Sets the table of a local address of a pod in this namespace; adds the table if it is new. `update` adds its
    /// exact rows.
    pub(super) fn dispatch(
        &mut self,
        key: (Mode, Direction, IpAddr),
        namespace: Option<&Name>,
        definition: Option<NamedDefinition>,
        classes: &mut Classes,
        recorder: &mut Recorder<'_>,
    ) {
        let target = definition.as_ref().map(|(id, _)| *id);
        let (mode, direction, address) = key;
        let repriced = self.accounts_of(mode).place(direction, address, namespace.zip(target));
        self.repriced.extend(repriced);
        let before = recorder.set_dispatch(key, target);
        // Even if the table stays: other policies may have led to it.
        let is_closed = |id: Option<PolicyTableId>| id.is_some_and(|id| self.closed.contains_key(&id));
        self.closings += u64::from(is_closed(before) || is_closed(target));
        if before == target {
            return;
        }
        self.new_hairpins.insert(address);
        if let Some((id, definition)) = definition {
            if !self.tables.contains_key(&id) {
                self.make(id, &definition, classes, recorder);
            }
            if let Some(table) = self.tables.get_mut(&id) {
                table.users.insert(address);
                self.unused_tables.remove(&id);
            }
        }
        if let Some((id, table)) = before.and_then(|id| Some((id, self.tables.get_mut(&id)?))) {
            table.users.remove(&address);
            if table.users.is_empty() {
                self.unused_tables.insert(id);
            }
        }
    }

    fn accounts_of(&mut self, mode: Mode) -> &mut Accounts {
        match mode {
            Mode::Enforce => &mut self.accounts,
            Mode::Audit => &mut self.audit_accounts,
        }
    }

    fn make(
        &mut self,
        id: PolicyTableId,
        definition: &Arc<Definition>,
        classes: &mut Classes,
        recorder: &mut Recorder<'_>,
    ) {
        let mut state = TableState::new(Arc::clone(definition));
        let rest = definition.flatten(&[], &[]);
        let rows = match definition.excess {
            Some(limit) => Err(limit),
            None => ranges::rows(definition, &rest, &self.budget),
        };
        let mut table = PolicyTable {
            direction: definition.direction,
            exact: BTreeMap::new(),
            ranges: BTreeMap::new(),
            rest,
        };
        match rows {
            Ok((rows, size)) => {
                self.mention(&mut state, classes);
                state.ranges_size = size + row_size(&table.rest);
                self.add_ranges(id, &mut state, rows, &mut table, recorder);
                self.new_tables.insert(id);
            }
            Err(limit) => {
                table.rest = Traffic::none();
                (state.broken, state.closed) = (Some(limit), Some(limit));
                self.closed.insert(id, limit);
                self.closings += 1;
            }
        }
        recorder.set_table(id, Some(table));
        self.repriced.insert(id);
        self.tables.insert(id, state);
    }

    /// Notes what the rules of a table mention.
    fn mention(&mut self, state: &mut TableState, classes: &mut Classes) {
        let definition = Arc::clone(&state.definition);
        for (index, rule) in definition.rules().enumerate() {
            for (_, name) in &rule.ports.names {
                classes.mention_port_name(name);
            }
            for peer in rule.peers.iter().flatten() {
                let choice = match peer {
                    Peer::Pods(choice) => Choice::Pods(choice.clone()),
                    Peer::Nodes(selector) => Choice::Nodes(selector.clone()),
                    Peer::DomainName(pattern) => Choice::Learned(pattern.clone()),
                    Peer::Block(block) => {
                        for net in block.except.iter().chain([&block.cidr]) {
                            classes.mention_net(*net);
                        }
                        state.blocks.entry(block.cidr).or_default().push((index, block.except.clone()));
                        continue;
                    }
                };
                let id = self.selections.id(choice, classes);
                state.selections.entry(id).or_default().push(index);
            }
        }
        for id in state.selections.keys() {
            self.selections.retain(*id);
        }
    }

    fn add_ranges(
        &mut self,
        id: PolicyTableId,
        state: &mut TableState,
        rows: BTreeMap<Traffic, Vec<IpRange>>,
        table: &mut PolicyTable,
        recorder: &mut Recorder<'_>,
    ) {
        for (row, ranges) in rows {
            let set = self.set(Meaning::of_ranges(id, &state.definition, &row));
            if let Some(state) = self.sets.get_mut(&set) {
                state.tables += 1;
            }
            if !recorder.has_set(set) {
                recorder.add_set(set, PeerSet::Ranges(ranges));
            }
            state.range_sets.push(set);
            table.ranges.insert(set, row);
        }
    }

    /// Updates the rows: new tables against the classes that their selections match, changed classes against all tables
    /// of the node. Then closes tables that are over budget, opens those that no longer are, and drops what is unused.
    pub(super) fn update(
        &mut self,
        classes: &mut Classes,
        cluster: &Cluster,
        relabelled: &BTreeSet<Name>,
        moved: &BTreeSet<IpAddr>,
        recorder: &mut Recorder<'_>,
    ) {
        let new_tables = std::mem::take(&mut self.new_tables);
        let old_tables: Vec<PolicyTableId> =
            self.tables.keys().filter(|id| !new_tables.contains(id)).copied().collect();
        let changed = self.selections.update(classes, cluster, relabelled);
        for id in new_tables {
            for class in self.concerned(id, classes) {
                self.place(id, class, classes, recorder);
            }
        }
        for class in &changed {
            for id in &old_tables {
                self.place(*id, *class, classes, recorder);
            }
        }
        self.update_budgets(classes, recorder);
        self.update_hairpins(moved, &changed, classes, recorder);
        for class in changed {
            if classes.get(class).is_some_and(|c| c.members.is_empty()) {
                self.selections.forget(class, classes);
            }
        }
        // Last, so that a peer set that one table drops and another takes up in this round stays up to date.
        self.drop_unused(classes, recorder);
    }

    /// Updates what pods may send to themselves, for local addresses that are new, have another table, or a changed
    /// class.
    fn update_hairpins(
        &mut self,
        moved: &BTreeSet<IpAddr>,
        changed: &BTreeSet<ClassId>,
        classes: &Classes,
        recorder: &mut Recorder<'_>,
    ) {
        let mut dirty = std::mem::take(&mut self.new_hairpins);
        dirty.extend(moved.iter().filter(|address| self.hairpins.contains(*address)));
        if !changed.is_empty() {
            let concerned = |address: &&IpAddr| classes.of(**address).is_some_and(|c| changed.contains(&c));
            dirty.extend(self.hairpins.iter().filter(concerned));
        }
        for address in dirty {
            let class = classes.of(address).and_then(|id| classes.get(id));
            let mut is_decided = false;
            for mode in [Mode::Enforce, Mode::Audit] {
                let tables = recorder.tables_of(mode, address).into_iter().flatten();
                let deciding: Vec<_> = tables
                    .filter_map(|id| self.tables.get(&id))
                    .filter(|t| t.definition.has_cluster_wide_rules())
                    .collect();
                let traffic = class.map_or_else(Traffic::all, |class| {
                    let rows = deciding.iter().map(|table| table.hairpin_row(class));
                    rows.fold(Traffic::all(), |sum, row| sum.intersection(&row))
                });
                is_decided |= !deciding.is_empty();
                recorder.set_hairpin(mode, address, (!traffic.is_all()).then_some(traffic));
            }
            if is_decided {
                self.hairpins.insert(address)
            } else {
                self.hairpins.remove(&address)
            };
        }
    }

    /// Returns the classes that a table's rules may treat differently from other addresses.
    fn concerned(&self, id: PolicyTableId, classes: &Classes) -> BTreeSet<ClassId> {
        let Some(table) = self.tables.get(&id) else { return BTreeSet::new() };
        let mut found: BTreeSet<ClassId> =
            table.selections.keys().flat_map(|id| self.selections.classes(*id)).collect();
        // A rule with named ports depends on the pod, even if it matches every peer or blocks.
        for (_, name) in table.definition.rules().flat_map(|rule| &rule.ports.names) {
            found.extend(classes.with_port_name(name));
        }
        found
    }

    /// Adds a class to its row in a table.
    fn place(
        &mut self,
        id: PolicyTableId,
        class: ClassId,
        classes: &mut Classes,
        recorder: &mut Recorder<'_>,
    ) {
        let (Some(table), Some(found)) = (self.tables.get(&id), classes.get(class)) else { return };
        let row = (!found.members.is_empty()).then(|| table.row_if_special(found)).flatten();
        let target = row.as_ref().map(|row| self.name_of(id, table, row));
        if table.placed.get(&class) == target.as_ref().map(|(set, _)| set) {
            return;
        }
        self.displace(id, class, classes, recorder);
        let (Some((set, meaning)), Some(row)) = (target, row) else { return };
        let Some(table) = self.tables.get_mut(&id) else { return };
        table.placed.insert(class, set);
        let size = row_size(&row);
        let state = table.rows.entry(set).or_insert(RowState { classes: 0, size });
        state.classes += 1;
        let is_new = state.classes == 1;
        if is_new {
            table.rows_size += size;
            self.repriced.insert(id);
        }
        if table.closed.is_some() {
            return;
        }
        if is_new {
            table.names.insert(row.clone(), set);
            recorder.edit_table(id, |t| drop(t.exact.insert(set, row)));
            if !recorder.has_set(set) {
                recorder.add_set(set, PeerSet::Addresses(AddressSet::default()));
            }
        }
        let state = self.sets.entry(set).or_insert_with(|| PeerSetState::new(meaning));
        state.tables += usize::from(is_new);
        if state.classes.insert(class)
            && let Some(found) = classes.get_mut(class)
        {
            found.sets.insert(set);
            found.members.iter().for_each(|address| recorder.set_member(set, address, true));
        }
        // At once, so that no rows accumulate that are never programmed.
        if table.cost() > self.budget.elements {
            self.close(id, Limit::Elements, classes, recorder);
        }
    }

    /// Removes a class from its row in a table.
    fn displace(
        &mut self,
        id: PolicyTableId,
        class: ClassId,
        classes: &mut Classes,
        recorder: &mut Recorder<'_>,
    ) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        let Some(set) = table.placed.remove(&class) else { return };
        let Some(state) = table.rows.get_mut(&set) else { return };
        state.classes -= 1;
        let is_gone = state.classes == 0;
        if is_gone {
            table.rows_size -= state.size;
            table.rows.remove(&set);
            self.repriced.insert(id);
        }
        if table.closed.is_some() {
            return;
        }
        if is_gone {
            recorder.edit_table(id, |t| {
                if let Some(row) = t.exact.remove(&set) {
                    table.names.remove(&row);
                }
            });
        }
        if self.sets.get_mut(&set).is_some_and(|state| state.classes.remove(&class))
            && let Some(found) = classes.get_mut(class)
        {
            found.sets.remove(&set);
            found.members.iter().for_each(|address| recorder.set_member(set, address, false));
        }
        if is_gone {
            self.release_set(set);
        }
    }

    /// Returns the id and the meaning of the peer set of a row.
    fn name_of(&self, id: PolicyTableId, table: &TableState, row: &Traffic) -> (PeerSetId, Meaning) {
        let meaning = Meaning::of_pods(id, &table.definition, row);
        let set = table.names.get(row).copied().unwrap_or_else(|| self.free_name(&meaning));
        (set, meaning)
    }

    fn drop_table(&mut self, id: PolicyTableId, recorder: &mut Recorder<'_>) {
        let Some(table) = self.tables.remove(&id) else { return };
        recorder.set_table(id, None);
        if table.closed.is_none() {
            for set in table.rows.keys().chain(&table.range_sets) {
                self.release_set(*set);
            }
        }
        self.closings += u64::from(self.closed.remove(&id).is_some());
        for id in table.selections.keys() {
            self.selections.release(*id);
        }
    }

    fn drop_unused(&mut self, classes: &mut Classes, recorder: &mut Recorder<'_>) {
        for id in std::mem::take(&mut self.unused_tables) {
            self.drop_table(id, recorder);
        }
        for id in std::mem::take(&mut self.unused_sets) {
            if self.sets.get(&id).is_some_and(|state| state.tables == 0) {
                let state = self.sets.remove(&id);
                for class in state.iter().flat_map(|state| &state.classes) {
                    if let Some(class) = classes.get_mut(*class) {
                        class.sets.remove(&id);
                    }
                }
                recorder.remove_set(id);
            }
        }
        self.selections.drop_unused(classes);
    }

    /// Returns the peer set with this meaning, or adds an empty one.
    fn set(&mut self, meaning: Meaning) -> PeerSetId {
        let id = self.free_name(&meaning);
        self.sets.entry(id).or_insert_with(|| PeerSetState::new(meaning));
        id
    }

    /// Returns the first name for a meaning that no other peer set has.
    fn free_name(&self, meaning: &Meaning) -> PeerSetId {
        let mut attempt = 0;
        loop {
            let id = meaning.id(self.namer, attempt);
            if self.sets.get(&id).is_none_or(|known| known.meaning == *meaning) {
                return id;
            }
            attempt += 1;
        }
    }

    fn release_set(&mut self, id: PeerSetId) {
        if let Some(state) = self.sets.get_mut(&id) {
            state.tables -= 1;
            if state.tables == 0 {
                self.unused_sets.insert(id);
            }
        }
    }
}

impl PeerSetState {
    fn new(meaning: Meaning) -> Self {
        Self { meaning, tables: 0, classes: BTreeSet::new() }
    }
}

//! Tables and groups: which classes get which row of which table.
//!
//! A class stands in a table's exact rows only where its row differs from what the ranges say for its addresses.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    classes::{Class, ClassId, Classes},
    definition::{Definition, Meaning, RuleDefinition},
    definitions::NamedDefinition,
    ranges,
    recorder::Recorder,
    selections::{Choice, SelectionId, Selections},
};
use crate::{AddressSet, Cluster, Direction, Group, GroupId, Name, Peer, Table, TableId, Traffic};

/// A rule that names a CIDR, and what it excepts from it.
type RuleBlock = (usize, Arc<[IpNet]>);

/// One table and what is known of it.
#[derive(Clone, Debug)]
struct TableState {
    definition: Arc<Definition>,
    /// How many local addresses it decides for.
    users: usize,
    /// Which rules name which selection.
    selections: BTreeMap<SelectionId, Vec<usize>>,
    /// Which rules name which CIDR, with its exceptions.
    blocks: HashMap<IpNet, Vec<RuleBlock>>,
    /// Whether some rule's ports depend on the peer.
    has_port_names: bool,
    range_groups: Vec<GroupId>,
    /// Where its classes stand, and how many share each row.
    placed: BTreeMap<ClassId, GroupId>,
    rows: BTreeMap<GroupId, usize>,
    /// The names of the rows that classes share now.
    names: BTreeMap<Traffic, GroupId>,
}

/// A group and what is known of it. The classes of a group are the same in every table that uses it.
#[derive(Clone, Debug)]
struct GroupState {
    /// What its name stands for.
    meaning: Meaning,
    tables: usize,
    classes: BTreeSet<ClassId>,
}

/// All tables and groups of the node.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    tables: BTreeMap<TableId, TableState>,
    groups: BTreeMap<GroupId, GroupState>,
    selections: Selections,
    /// What the next `settle` must look at.
    new_tables: BTreeSet<TableId>,
    /// What nothing used at some moment since; dropped at the end of `settle` if that still is so.
    unused_tables: BTreeSet<TableId>,
    unused_groups: BTreeSet<GroupId>,
    /// Local addresses for which cluster-wide rules decide, and those of them to look at again.
    hairpins: BTreeSet<IpAddr>,
    new_hairpins: BTreeSet<IpAddr>,
}

impl Tables {
    /// Lets a table decide for a local address; makes the table if it is new. Its exact rows come with `settle`.
    pub(super) fn dispatch(
        &mut self,
        address: IpAddr,
        direction: Direction,
        definition: Option<NamedDefinition>,
        classes: &mut Classes,
        recorder: &mut Recorder<'_>,
    ) {
        let target = definition.as_ref().map(|(id, _)| *id);
        let before = recorder.set_dispatch(direction, address, target);
        if before == target {
            return;
        }
        self.new_hairpins.insert(address);
        if let Some((id, definition)) = definition {
            if !self.tables.contains_key(&id) {
                self.make(id, definition, classes, recorder);
            }
            if let Some(table) = self.tables.get_mut(&id) {
                table.users += 1;
                self.unused_tables.remove(&id);
            }
        }
        if let Some((id, table)) = before.and_then(|id| Some((id, self.tables.get_mut(&id)?))) {
            table.users -= 1;
            if table.users == 0 {
                self.unused_tables.insert(id);
            }
        }
    }

    fn make(
        &mut self,
        id: TableId,
        definition: Arc<Definition>,
        classes: &mut Classes,
        recorder: &mut Recorder<'_>,
    ) {
        let has_port_names = definition.rules().any(|rule| !rule.ports.names.is_empty());
        let mut state = TableState {
            users: 0,
            selections: BTreeMap::new(),
            blocks: HashMap::new(),
            has_port_names,
            range_groups: Vec::new(),
            placed: BTreeMap::new(),
            rows: BTreeMap::new(),
            names: BTreeMap::new(),
            definition,
        };
        let definition = state.definition.clone();
        for (index, rule) in definition.rules().enumerate() {
            for (_, name) in &rule.ports.names {
                classes.mention_port_name(name);
            }
            for peer in rule.peers.iter().flatten() {
                match peer {
                    Peer::Pods(choice) => {
                        let id = self.selections.id(Choice::Pods(choice.clone()), classes);
                        state.selections.entry(id).or_default().push(index);
                    }
                    Peer::Nodes(selector) => {
                        let id = self.selections.id(Choice::Nodes(selector.clone()), classes);
                        state.selections.entry(id).or_default().push(index);
                    }
                    Peer::Block(block) => {
                        for net in block.except.iter().chain([&block.cidr]) {
                            classes.mention_net(*net);
                        }
                        state.blocks.entry(block.cidr).or_default().push((index, block.except.clone()));
                    }
                }
            }
        }
        for id in state.selections.keys() {
            self.selections.retain(*id);
        }
        let rest = definition.flatten(|_, rule| rule.peers.is_none().then(|| rule.ports.numbers.clone()));
        let mut table =
            Table { direction: definition.direction, exact: BTreeMap::new(), ranges: BTreeMap::new(), rest };
        for (row, ranges) in ranges::rows(&definition, &table.rest) {
            let group = self.group(Meaning::of_ranges(id, &definition, &row));
            if let Some(state) = self.groups.get_mut(&group) {
                state.tables += 1;
            }
            if !recorder.has_group(group) {
                recorder.add_group(group, Group::Ranges(ranges));
            }
            state.range_groups.push(group);
            table.ranges.insert(group, row);
        }
        recorder.set_table(id, Some(table));
        self.tables.insert(id, state);
        self.new_tables.insert(id);
    }

    /// Places what is new or changed: new tables against the classes that their selections hold, changed classes
    /// against all tables of the node. Then drops what nothing uses.
    pub(super) fn settle(
        &mut self,
        classes: &mut Classes,
        cluster: &Cluster,
        relabelled: &BTreeSet<Name>,
        moved: &BTreeSet<IpAddr>,
        recorder: &mut Recorder<'_>,
    ) {
        let new_tables = std::mem::take(&mut self.new_tables);
        let old_tables: Vec<TableId> =
            self.tables.keys().filter(|id| !new_tables.contains(id)).copied().collect();
        let changed = self.selections.settle(classes, cluster, relabelled);
        for id in new_tables {
            for class in self.concerned(id, classes) {
                self.place(id, class, classes, recorder);
            }
        }
        self.settle_hairpins(moved, &changed, classes, recorder);
        for class in changed {
            for id in &old_tables {
                self.place(*id, class, classes, recorder);
            }
            if classes.get(class).is_some_and(|c| c.members.is_empty()) {
                self.selections.forget(class, classes);
            }
        }
        // Last, so that a group that one table drops and another takes up in this round stays, and stays current.
        self.drop_unused(classes, recorder);
    }

    /// What pods may use of themselves, for local addresses that are new, moved, or of a changed class.
    fn settle_hairpins(
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
            let tables =
                recorder.tables_of(address).into_iter().flatten().filter_map(|id| self.tables.get(&id));
            let deciding: Vec<_> = tables.filter(|t| t.definition.has_cluster_wide_rules()).collect();
            let class = classes.of(address).and_then(|id| classes.get(id));
            let traffic = class.map_or_else(Traffic::all, |class| {
                deciding.iter().fold(Traffic::all(), |sum, table| sum.intersection(&table.hairpin_row(class)))
            });
            if deciding.is_empty() {
                self.hairpins.remove(&address)
            } else {
                self.hairpins.insert(address)
            };
            recorder.set_hairpin(address, (!traffic.is_all()).then_some(traffic));
        }
    }

    /// The classes that a table's rules may treat differently from other addresses.
    fn concerned(&self, id: TableId, classes: &Classes) -> BTreeSet<ClassId> {
        let Some(table) = self.tables.get(&id) else { return BTreeSet::new() };
        let mut found: BTreeSet<ClassId> =
            table.selections.keys().flat_map(|id| self.selections.classes(*id)).collect();
        // A rule with named ports means something else for each pod, also where its peers are everyone or blocks.
        for (_, name) in table.definition.rules().flat_map(|rule| &rule.ports.names) {
            found.extend(classes.with_port_name(name));
        }
        found
    }

    /// Puts a class where it belongs in a table.
    fn place(&mut self, id: TableId, class: ClassId, classes: &mut Classes, recorder: &mut Recorder<'_>) {
        let (Some(table), Some(found)) = (self.tables.get(&id), classes.get_mut(class)) else { return };
        let row = (!found.members.is_empty()).then(|| table.row_if_special(found)).flatten();
        let (known, definition) = (row.as_ref().map(|row| table.names.get(row).copied()), &table.definition);
        let target = match (&row, known) {
            (Some(row), Some(None)) => {
                let meaning = Meaning::of_pods(id, definition, row);
                Some(self.group(meaning))
            }
            (_, known) => known.flatten(),
        };
        let Some(table) = self.tables.get_mut(&id) else { return };
        let current = table.placed.get(&class).copied();
        if current == target {
            return;
        }
        if let Some(group) = current {
            let mut gone = false;
            table.placed.remove(&class);
            if let Some(count) = table.rows.get_mut(&group) {
                *count -= 1;
                if *count == 0 {
                    table.rows.remove(&group);
                    recorder.edit_table(id, |t| {
                        if let Some(row) = t.exact.remove(&group) {
                            table.names.remove(&row);
                        }
                    });
                    gone = true;
                }
            }
            if self.groups.get_mut(&group).is_some_and(|state| state.classes.remove(&class)) {
                found.groups.remove(&group);
                found.members.iter().for_each(|address| recorder.set_member(group, address, false));
            }
            if gone {
                self.release_group(group);
            }
        }
        let Some(table) = self.tables.get_mut(&id) else { return };
        if let (Some(group), Some(row)) = (target, row) {
            table.placed.insert(class, group);
            let count = table.rows.entry(group).or_insert(0);
            *count += 1;
            let Some(state) = self.groups.get_mut(&group) else { return };
            if *count == 1 {
                state.tables += 1;
                table.names.insert(row.clone(), group);
                recorder.edit_table(id, |t| drop(t.exact.insert(group, row)));
                if !recorder.has_group(group) {
                    recorder.add_group(group, Group::Addresses(AddressSet::default()));
                }
            }
            if state.classes.insert(class) {
                found.groups.insert(group);
                found.members.iter().for_each(|address| recorder.set_member(group, address, true));
            }
        }
    }

    fn drop_table(&mut self, id: TableId, recorder: &mut Recorder<'_>) {
        let Some(table) = self.tables.remove(&id) else { return };
        recorder.set_table(id, None);
        for group in table.rows.keys().chain(&table.range_groups) {
            self.release_group(*group);
        }
        for id in table.selections.keys() {
            self.selections.release(*id);
        }
    }

    fn drop_unused(&mut self, classes: &mut Classes, recorder: &mut Recorder<'_>) {
        for id in std::mem::take(&mut self.unused_tables) {
            self.drop_table(id, recorder);
        }
        for id in std::mem::take(&mut self.unused_groups) {
            if self.groups.get(&id).is_some_and(|state| state.tables == 0) {
                let state = self.groups.remove(&id);
                for class in state.iter().flat_map(|state| &state.classes) {
                    if let Some(class) = classes.get_mut(*class) {
                        class.groups.remove(&id);
                    }
                }
                recorder.remove_group(id);
            }
        }
        self.selections.drop_unused(classes);
    }

    /// The group with this meaning: the one that there is, or an empty one that some table must take up. Another group
    /// may have its name; then it gets the next.
    fn group(&mut self, meaning: Meaning) -> GroupId {
        let mut attempt = 0;
        loop {
            let id = meaning.id(attempt);
            match self.groups.entry(id) {
                Entry::Occupied(known) if known.get().meaning == meaning => return id,
                Entry::Occupied(_) => attempt += 1,
                Entry::Vacant(free) => {
                    free.insert(GroupState { meaning, tables: 0, classes: BTreeSet::new() });
                    return id;
                }
            }
        }
    }

    fn release_group(&mut self, id: GroupId) {
        if let Some(state) = self.groups.get_mut(&id) {
            state.tables -= 1;
            if state.tables == 0 {
                self.unused_groups.insert(id);
            }
        }
    }
}

impl TableState {
    /// The row of a class, if it differs from what the ranges say for its addresses.
    fn row_if_special(&self, class: &Class) -> Option<Traffic> {
        let (by_block, matched) = self.matched(class);
        if matched == by_block && !self.has_port_names {
            return None;
        }
        let everyone = |rule: &RuleDefinition| rule.peers.is_none();
        let inside = self.definition.flatten(|index, rule| {
            (everyone(rule) || matched.contains(&index)).then(|| rule.traffic(&class.key.ports))
        });
        let outside = self.definition.flatten(|index, rule| {
            (everyone(rule) || by_block.contains(&index)).then(|| rule.ports.numbers.clone())
        });
        (inside != outside).then_some(inside)
    }

    /// What a pod of this class may use of itself through a service, as far as this table goes.
    fn hairpin_row(&self, class: &Class) -> Traffic {
        let (_, matched) = self.matched(class);
        self.definition.flatten_hairpin(|index, rule| {
            (rule.peers.is_none() || matched.contains(&index)).then(|| rule.traffic(&class.key.ports))
        })
    }

    /// The rules whose peers hold a class by a block, and those whose peers hold it in any way.
    fn matched(&self, class: &Class) -> (BTreeSet<usize>, BTreeSet<usize>) {
        let mut by_block: BTreeSet<usize> = BTreeSet::new();
        for net in &class.key.nets {
            for (rule, except) in self.blocks.get(net).into_iter().flatten() {
                if !except.iter().any(|e| class.key.nets.contains(e)) {
                    by_block.insert(*rule);
                }
            }
        }
        let mut matched = by_block.clone();
        // Both are sets of selections; the smaller one is walked.
        if class.selections.len() <= self.selections.len() {
            matched.extend(class.selections.iter().filter_map(|id| self.selections.get(id)).flatten());
        } else {
            let holding = self.selections.iter().filter(|(id, _)| class.selections.contains(id));
            matched.extend(holding.flat_map(|(_, rules)| rules));
        }
        (by_block, matched)
    }
}

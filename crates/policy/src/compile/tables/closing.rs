//! Closes tables that are over budget, which then allow nothing, and opens them when they are within it again.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::{budget::Limit, classes::Classes, ranges, recorder::Recorder},
    Tables,
};
use crate::{PeerSetId, PolicyTable, PolicyTableId, Traffic};

impl Tables {
    /// Closes and opens the tables whose cost or namespaces changed.
    pub(super) fn update_budgets(&mut self, classes: &mut Classes, recorder: &mut Recorder<'_>) {
        let mut touched = std::mem::take(&mut self.repriced);
        let (tables, elements) = (&self.tables, self.budget.elements);
        // A table with an excess of rules costs nothing.
        let cost = |id| tables.get(&id).map_or(0, |t| if t.cost() > elements { 0 } else { t.cost() });
        for accounts in [&mut self.accounts, &mut self.audit_accounts] {
            touched.iter().for_each(|id| accounts.reprice(*id));
            touched.extend(accounts.update(self.budget.namespace, cost));
        }
        for id in touched {
            // An unused table is dropped as it is.
            let Some(table) = self.tables.get(&id).filter(|table| !table.users.is_empty()) else { continue };
            let limit = if table.broken.is_some() {
                table.broken
            } else if table.cost() > elements {
                Some(Limit::Elements)
            } else {
                (self.accounts.is_beyond(id) || self.audit_accounts.is_beyond(id)).then_some(Limit::Namespace)
            };
            match (table.closed, limit) {
                (before, now) if before == now => {}
                (_, Some(limit)) => self.close(id, limit, classes, recorder),
                (_, None) => self.open(id, classes, recorder),
            }
        }
        // Opening recomputes the same cost.
        self.repriced.clear();
    }

    /// Closes a table. The rows of its classes are still tracked.
    pub(super) fn close(
        &mut self,
        id: PolicyTableId,
        limit: Limit,
        classes: &mut Classes,
        recorder: &mut Recorder<'_>,
    ) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        let was_open = table.closed.replace(limit).is_none();
        self.closed.insert(id, limit);
        self.closings += 1;
        if !was_open {
            return;
        }
        table.names.clear();
        self.new_hairpins.extend(&table.users);
        let ranges = std::mem::take(&mut table.range_sets);
        let exact: Vec<PeerSetId> = table.rows.keys().copied().collect();
        recorder.edit_table(id, |table| {
            table.exact.clear();
            table.ranges.clear();
            table.rest = Traffic::none();
        });
        for set in exact {
            self.release_set(set);
            self.empty_if_unused(set, classes, recorder);
        }
        ranges.into_iter().for_each(|set| self.release_set(set));
    }

    /// No table updates an unused peer set, but one may take it up again before it is dropped.
    fn empty_if_unused(&mut self, id: PeerSetId, classes: &mut Classes, recorder: &mut Recorder<'_>) {
        let Some(state) = self.sets.get_mut(&id).filter(|state| state.tables == 0) else { return };
        for class in std::mem::take(&mut state.classes) {
            if let Some(found) = classes.get_mut(class) {
                found.sets.remove(&id);
                found.members.iter().for_each(|address| recorder.set_member(id, address, false));
            }
        }
    }

    /// Opens a table.
    fn open(&mut self, id: PolicyTableId, classes: &mut Classes, recorder: &mut Recorder<'_>) {
        let Some(definition) = self.tables.get(&id).map(|state| Arc::clone(&state.definition)) else {
            return;
        };
        let rest = definition.flatten(&[], &[]);
        // It exceeded no limit when it was made, so it doesn't now.
        let Ok((rows, _)) = ranges::rows(&definition, &rest, &self.budget) else { return };
        let Some(mut state) = self.tables.remove(&id) else { return };
        state.closed = None;
        self.closed.remove(&id);
        self.closings += 1;
        self.new_hairpins.extend(&state.users);
        let placed: Vec<_> = std::mem::take(&mut state.placed).into_keys().collect();
        state.rows.clear();
        state.rows_size = 0;
        let mut table = PolicyTable {
            direction: definition.direction,
            exact: BTreeMap::new(),
            ranges: BTreeMap::new(),
            rest,
        };
        self.add_ranges(id, &mut state, rows, &mut table, recorder);
        recorder.set_table(id, Some(table));
        self.tables.insert(id, state);
        for class in placed {
            self.place(id, class, classes, recorder);
        }
    }
}

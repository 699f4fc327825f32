//! What the pods of each namespace ask of the node, against [`super::budget::Budget::namespace`].
//!
//! Tables of one namespace are taken up from the cheapest to the dearest as long as they fit together; those that don't
//! fit are beyond its budget. A table that pods of several namespaces share is closed only where it is beyond the budget
//! of each: no tenant closes another's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{Direction, Name, PolicyTableId};

/// Which namespaces use which tables.
#[derive(Clone, Debug, Default)]
pub(super) struct Accounts {
    namespaces: BTreeMap<Name, Account>,
    /// How many local addresses of which namespace lead to a table.
    users: BTreeMap<PolicyTableId, BTreeMap<Name, usize>>,
    /// Where each local address is counted.
    homes: BTreeMap<(Direction, IpAddr), (Name, PolicyTableId)>,
    /// Namespaces to add up anew.
    changed: BTreeSet<Name>,
}

#[derive(Clone, Debug, Default)]
struct Account {
    tables: BTreeSet<PolicyTableId>,
    beyond: BTreeSet<PolicyTableId>,
}

impl Accounts {
    /// Counts a local address under the namespace of its pod and its table; under none if it has no table. Returns the
    /// tables that gained or lost a namespace.
    pub(super) fn place(
        &mut self,
        direction: Direction,
        address: IpAddr,
        home: Option<(&Name, PolicyTableId)>,
    ) -> Vec<PolicyTableId> {
        let key = (direction, address);
        if self.homes.get(&key).map(|(name, id)| (name, *id)) == home {
            return Vec::new();
        }
        let mut touched = Vec::new();
        if let Some((namespace, id)) = home {
            let users = self.users.entry(id).or_default().entry(namespace.clone()).or_insert(0);
            *users += 1;
            if *users == 1 {
                self.namespaces.entry(namespace.clone()).or_default().tables.insert(id);
                self.changed.insert(namespace.clone());
                touched.push(id);
            }
        }
        let before = match home {
            Some((namespace, id)) => self.homes.insert(key, (namespace.clone(), id)),
            None => self.homes.remove(&key),
        };
        if let Some((namespace, id)) = before {
            touched.extend(self.leave(&namespace, id));
        }
        touched
    }

    fn leave(&mut self, namespace: &Name, id: PolicyTableId) -> Option<PolicyTableId> {
        let of_table = self.users.get_mut(&id)?;
        let users = of_table.get_mut(namespace)?;
        *users -= 1;
        if *users > 0 {
            return None;
        }
        of_table.remove(namespace);
        if of_table.is_empty() {
            self.users.remove(&id);
        }
        let account = self.namespaces.get_mut(namespace)?;
        account.tables.remove(&id);
        account.beyond.remove(&id);
        if account.tables.is_empty() {
            self.namespaces.remove(namespace);
            self.changed.remove(namespace);
        } else {
            self.changed.insert(namespace.clone());
        }
        Some(id)
    }

    /// A table costs something else now.
    pub(super) fn reprice(&mut self, id: PolicyTableId) {
        self.changed.extend(self.users.get(&id).into_iter().flat_map(BTreeMap::keys).cloned());
    }

    /// Adds up what has changed. `cost` knows what a table costs. Returns the tables that may be within or beyond budgets
    /// now and were not. `O(n log n)` in the tables of the namespaces that changed.
    pub(super) fn settle(
        &mut self,
        budget: usize,
        cost: impl Fn(PolicyTableId) -> usize,
    ) -> BTreeSet<PolicyTableId> {
        let mut touched = BTreeSet::new();
        for namespace in std::mem::take(&mut self.changed) {
            let Some(account) = self.namespaces.get_mut(&namespace) else { continue };
            let mut tables: Vec<(usize, PolicyTableId)> =
                account.tables.iter().map(|id| (cost(*id), *id)).collect();
            tables.sort_unstable();
            let mut sum = 0usize;
            let beyond = tables.into_iter().filter_map(|(cost, id)| {
                sum = sum.saturating_add(cost);
                (sum > budget).then_some(id)
            });
            let beyond: BTreeSet<PolicyTableId> = beyond.collect();
            touched.extend(beyond.symmetric_difference(&account.beyond).copied());
            account.beyond = beyond;
        }
        touched
    }

    /// Whether a table is beyond the budget of every namespace that uses it.
    pub(super) fn is_beyond(&self, id: PolicyTableId) -> bool {
        let is_beyond = |namespace| self.namespaces.get(namespace).is_some_and(|a| a.beyond.contains(&id));
        self.users.get(&id).is_some_and(|users| users.keys().all(is_beyond))
    }
}

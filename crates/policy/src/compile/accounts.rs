//! What the pods of each namespace cost the node, against [`super::budget::Budget::namespace`].
//!
//! The tables of a namespace are accepted from the cheapest to the most expensive while they fit its budget together;
//! the others are over budget. A table that pods of several namespaces share is closed only if it is over the budget of
//! each of them, so that no tenant closes the table of another.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{Direction, Name, PolicyTableId};

/// The tables that each namespace uses.
#[derive(Clone, Debug, Default)]
pub(super) struct Accounts {
    namespaces: BTreeMap<Name, Account>,
    /// For each table, how many local addresses of each namespace use it.
    users: BTreeMap<PolicyTableId, BTreeMap<Name, usize>>,
    /// The account of each local address.
    homes: BTreeMap<(Direction, IpAddr), (Name, PolicyTableId)>,
    /// Namespaces whose cost changed.
    changed: BTreeSet<Name>,
}

#[derive(Clone, Debug, Default)]
struct Account {
    tables: BTreeSet<PolicyTableId>,
    beyond: BTreeSet<PolicyTableId>,
}

impl Accounts {
    /// Counts a local address for the namespace of its pod and its table; for none if it has no table. Returns the
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

    /// Notes that the cost of a table changed.
    pub(super) fn reprice(&mut self, id: PolicyTableId) {
        self.changed.extend(self.users.get(&id).into_iter().flat_map(BTreeMap::keys).cloned());
    }

    /// Recomputes what has changed. `cost` returns the cost of a table. Returns the tables that may have moved over
    /// budget or back within it. `O(n log n)` in the tables of the namespaces that changed.
    pub(super) fn update(
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

    /// Returns whether a table is over the budget of every namespace that uses it.
    pub(super) fn is_beyond(&self, id: PolicyTableId) -> bool {
        let is_beyond = |namespace| self.namespaces.get(namespace).is_some_and(|a| a.beyond.contains(&id));
        self.users.get(&id).is_some_and(|users| users.keys().all(is_beyond))
    }
}

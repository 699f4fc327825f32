//! The pods that own the local addresses, and which of them changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::ObjectKey;

#[derive(Clone, Debug, Default)]
pub(super) struct LocalOwners {
    owners: BTreeMap<IpAddr, ObjectKey>,
    /// Those that other pods own since the changes were last taken.
    changed: BTreeSet<IpAddr>,
}

impl LocalOwners {
    /// Sets the local pod that owns an address. `O(log addresses)`.
    pub(super) fn set(&mut self, address: IpAddr, owner: Option<&ObjectKey>) {
        match owner {
            Some(owner) if self.owners.get(&address) == Some(owner) => {}
            Some(owner) => {
                self.owners.insert(address, owner.clone());
                self.changed.insert(address);
            }
            None => {
                self.owners.remove(&address);
                self.changed.remove(&address);
            }
        }
    }

    pub(super) fn take_changes(&mut self) -> BTreeMap<IpAddr, ObjectKey> {
        let changed = std::mem::take(&mut self.changed);
        changed
            .into_iter()
            .filter_map(|address| Some((address, self.owners.get(&address)?.clone())))
            .collect()
    }
}

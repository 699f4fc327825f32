//! What expires when, by the namespace of the pod that was the first to ask: so the limits of all can be shared.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::{DomainName, Name};

use crate::Seconds;

/// When an address of a name expires.
pub(crate) type Expiry = (Seconds, DomainName, IpAddr);

/// One entry for each address of each name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shares {
    shares: BTreeMap<Name, Share>,
    addresses: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Share {
    names: usize,
    expiries: BTreeSet<Expiry>,
}

impl Shares {
    /// Returns the number of addresses.
    pub(crate) fn addresses(&self) -> usize {
        self.addresses
    }

    pub(crate) fn insert(&mut self, namespace: &Name, expiry: Expiry) {
        let is_new = self.shares.entry(namespace.clone()).or_default().expiries.insert(expiry);
        self.addresses += usize::from(is_new);
    }

    pub(crate) fn remove(&mut self, namespace: &Name, expiry: &Expiry) {
        let Some(share) = self.shares.get_mut(namespace) else { return };
        self.addresses -= usize::from(share.expiries.remove(expiry));
        self.forget_if_empty(namespace);
    }

    pub(crate) fn add_name(&mut self, namespace: &Name) {
        self.shares.entry(namespace.clone()).or_default().names += 1;
    }

    pub(crate) fn remove_name(&mut self, namespace: &Name) {
        let Some(share) = self.shares.get_mut(namespace) else { return };
        share.names = share.names.saturating_sub(1);
        self.forget_if_empty(namespace);
    }

    fn forget_if_empty(&mut self, namespace: &Name) {
        if self.shares.get(namespace).is_some_and(|share| share.names == 0 && share.expiries.is_empty()) {
            self.shares.remove(namespace);
        }
    }

    /// Iterates over all, in no order of time.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Expiry> {
        self.shares.values().flat_map(|share| &share.expiries)
    }

    /// Returns what expires first. `O(namespaces)`.
    pub(crate) fn first(&self) -> Option<&Expiry> {
        self.shares.values().filter_map(|share| share.expiries.first()).min()
    }

    /// Iterates over what has expired.
    pub(crate) fn over(&self, now: Seconds) -> impl Iterator<Item = &Expiry> {
        self.shares.values().flat_map(move |share| share.expiries.iter().take_while(move |e| e.0 <= now))
    }

    /// Returns what expires first in the namespace with the most addresses, if that has more than `namespace` will have with one more. `O(namespaces)`.
    pub(crate) fn to_make_room_for_address(&self, namespace: &Name) -> Option<Expiry> {
        self.of_largest(namespace, |share| share.expiries.len())
    }

    /// The same for the namespace with the most names.
    pub(crate) fn to_make_room_for_name(&self, namespace: &Name) -> Option<Expiry> {
        self.of_largest(namespace, |share| share.names)
    }

    fn of_largest(&self, namespace: &Name, size: impl Fn(&Share) -> usize) -> Option<Expiry> {
        let largest = self.shares.values().max_by_key(|share| size(share))?;
        let own = self.shares.get(namespace).map_or(0, &size);
        largest.expiries.first().filter(|_| size(largest) > own + 1).cloned()
    }
}

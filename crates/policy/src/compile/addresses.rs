//! Which live pods report which address, and who of them owns it (G-10).

use std::{collections::BTreeMap, net::IpAddr, ops::RangeInclusive};

use crate::{Cluster, IpRange, ObjectKey, Pod};

/// The claims of live pods to addresses, sorted by address so that a CIDR's pods are one range.
#[derive(Clone, Debug, Default)]
pub(super) struct AddressBook(BTreeMap<IpAddr, Claims>);

/// Nearly always one pod: the second variant costs memory only where two report one address.
#[derive(Clone, Debug)]
enum Claims {
    One(ObjectKey),
    Many(Vec<ObjectKey>),
}

impl Claims {
    fn keys(&self) -> &[ObjectKey] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::Many(keys) => keys,
        }
    }
}

impl AddressBook {
    /// Notes a live pod's addresses.
    pub(super) fn claim(&mut self, pod: &Pod) {
        for address in &pod.addresses {
            let mut keys = self.claimants(*address).cloned().collect::<Vec<_>>();
            if !keys.contains(&pod.key) {
                keys.push(pod.key.clone());
            }
            self.put(*address, keys);
        }
    }

    /// Forgets them.
    pub(super) fn withdraw(&mut self, pod: &Pod) {
        for address in &pod.addresses {
            let keys = self.claimants(*address).filter(|key| **key != pod.key).cloned().collect();
            self.put(*address, keys);
        }
    }

    fn put(&mut self, address: IpAddr, mut keys: Vec<ObjectKey>) {
        match keys.len() {
            0 => drop(self.0.remove(&address)),
            1 => drop(self.0.insert(address, Claims::One(keys.remove(0)))),
            _ => drop(self.0.insert(address, Claims::Many(keys))),
        }
    }

    /// The live pods that report `address`.
    pub(super) fn claimants(&self, address: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        self.0.get(&address).map(Claims::keys).unwrap_or_default().iter()
    }

    /// The pod that owns `address`.
    pub(super) fn owner<'a>(&self, address: IpAddr, cluster: &'a Cluster) -> Option<&'a Pod> {
        self.claimants(address).filter_map(|key| cluster.pods.get(key)).min_by(|a, b| Pod::precedence(a, b))
    }

    /// The reported addresses in a range.
    pub(super) fn within(&self, range: IpRange) -> impl Iterator<Item = IpAddr> {
        let range: RangeInclusive<IpAddr> = range.first..=range.last;
        self.0.range(range).map(|(address, _)| *address)
    }
}

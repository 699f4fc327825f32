//! The names for which each address was learned.

use std::net::IpAddr;

use crate::{DomainName, LearnedName, address_set::AddressMap};

/// The learned names, by address.
#[derive(Clone, Debug, Default)]
pub(super) struct Learned {
    /// Almost always one name; sorted.
    by_address: AddressMap<Box<[DomainName]>>,
}

impl Learned {
    /// Returns the names for which an address was learned, sorted.
    pub(super) fn names(&self, address: IpAddr) -> &[DomainName] {
        self.by_address.get(&address).map(|names| &**names).unwrap_or_default()
    }

    /// Replaces the addresses of a name. Returns those that it gains or loses.
    pub(super) fn replace(
        &mut self,
        name: &DomainName,
        old: Option<&LearnedName>,
        new: Option<&LearnedName>,
    ) -> Vec<IpAddr> {
        let of = |learned: Option<&LearnedName>| learned.map(|l| l.addresses.clone()).unwrap_or_default();
        let (old, new) = (of(old), of(new));
        let (lost, gained): (Vec<_>, Vec<_>) =
            (old.difference(&new).collect(), new.difference(&old).collect());
        for address in &lost {
            let names: Box<[DomainName]> =
                self.names(*address).iter().filter(|known| *known != name).cloned().collect();
            if names.is_empty() {
                self.by_address.remove(address);
            } else {
                self.by_address.insert(*address, names);
            }
        }
        for address in &gained {
            let mut names = self.names(*address).to_vec();
            if let Err(at) = names.binary_search(name) {
                names.insert(at, name.clone());
            }
            self.by_address.insert(*address, names.into());
        }
        [lost, gained].concat()
    }
}

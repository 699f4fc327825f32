//! Sets and maps of addresses that store each family in its own size: an IPv4 address takes four bytes instead of
//! seventeen.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{Family, IpRange};

/// A set of addresses, sorted: IPv4 first.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AddressSet {
    v4: BTreeSet<Ipv4Addr>,
    v6: BTreeSet<Ipv6Addr>,
}

impl AddressSet {
    /// Adds an address. Returns whether it is new.
    pub fn insert(&mut self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => self.v4.insert(a),
            IpAddr::V6(a) => self.v6.insert(a),
        }
    }

    /// Removes an address. Returns whether the set held it.
    pub fn remove(&mut self, address: &IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => self.v4.remove(a),
            IpAddr::V6(a) => self.v6.remove(a),
        }
    }

    /// Returns whether the set contains an address.
    #[must_use]
    pub fn contains(&self, address: &IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => self.v4.contains(a),
            IpAddr::V6(a) => self.v6.contains(a),
        }
    }

    /// Returns the number of addresses.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Returns the number of addresses of one family.
    #[must_use]
    pub fn len_of(&self, family: Family) -> usize {
        if family == Family::V4 { self.v4.len() } else { self.v6.len() }
    }

    /// Returns whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Iterates over the addresses, sorted.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + Clone + '_ {
        let v4 = self.v4.iter().map(|a| IpAddr::V4(*a));
        v4.chain(self.v6.iter().map(|a| IpAddr::V6(*a)))
    }

    /// Iterates over the addresses that `other` doesn't contain, sorted.
    pub fn difference<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = IpAddr> + 'a {
        let v4 = self.v4.difference(&other.v4).map(|a| IpAddr::V4(*a));
        v4.chain(self.v6.difference(&other.v6).map(|a| IpAddr::V6(*a)))
    }
}

impl fmt::Debug for AddressSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Extend<IpAddr> for AddressSet {
    fn extend<I: IntoIterator<Item = IpAddr>>(&mut self, addresses: I) {
        for address in addresses {
            self.insert(address);
        }
    }
}

impl<'a> Extend<&'a IpAddr> for AddressSet {
    fn extend<I: IntoIterator<Item = &'a IpAddr>>(&mut self, addresses: I) {
        self.extend(addresses.into_iter().copied());
    }
}

impl FromIterator<IpAddr> for AddressSet {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let mut out = Self::default();
        out.extend(addresses);
        out
    }
}

impl<const N: usize> From<[IpAddr; N]> for AddressSet {
    fn from(addresses: [IpAddr; N]) -> Self {
        addresses.into_iter().collect()
    }
}

/// A map from addresses, sorted.
#[derive(Clone, Debug)]
pub(crate) struct AddressMap<V> {
    v4: BTreeMap<Ipv4Addr, V>,
    v6: BTreeMap<Ipv6Addr, V>,
}

impl<V> Default for AddressMap<V> {
    fn default() -> Self {
        Self { v4: BTreeMap::new(), v6: BTreeMap::new() }
    }
}

impl<V> AddressMap<V> {
    pub(crate) fn get(&self, address: &IpAddr) -> Option<&V> {
        match address {
            IpAddr::V4(a) => self.v4.get(a),
            IpAddr::V6(a) => self.v6.get(a),
        }
    }

    pub(crate) fn insert(&mut self, address: IpAddr, value: V) -> Option<V> {
        match address {
            IpAddr::V4(a) => self.v4.insert(a, value),
            IpAddr::V6(a) => self.v6.insert(a, value),
        }
    }

    pub(crate) fn remove(&mut self, address: &IpAddr) -> Option<V> {
        match address {
            IpAddr::V4(a) => self.v4.remove(a),
            IpAddr::V6(a) => self.v6.remove(a),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Iterates over the addresses of a range that are in the map.
    pub(crate) fn keys_in(&self, range: IpRange) -> impl Iterator<Item = IpAddr> + '_ {
        let (v4, v6) = match (range.first, range.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => (Some(self.v4.range(first..=last)), None),
            (IpAddr::V6(first), IpAddr::V6(last)) => (None, Some(self.v6.range(first..=last))),
            // Both ends of a range have one family.
            _ => (None, None),
        };
        let v4 = v4.into_iter().flatten().map(|(a, _)| IpAddr::V4(*a));
        v4.chain(v6.into_iter().flatten().map(|(a, _)| IpAddr::V6(*a)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_set_of_both_families_is_sorted_as_addresses_are() {
        let mut all = ["fd00::1", "10.0.0.2", "::", "255.255.255.255", "10.0.0.10"].map(address);
        let set = AddressSet::from(all);
        all.sort_unstable();
        assert_eq!(set.iter().collect::<Vec<_>>(), all);
        assert_eq!((set.len(), set.len_of(Family::V4), set.len_of(Family::V6)), (5, 3, 2));
        let fewer: AddressSet = all[1..4].iter().copied().collect();
        assert_eq!(set.difference(&fewer).collect::<Vec<_>>(), [all[0], all[4]]);
    }

    #[test]
    fn an_ipv4_address_is_not_its_mapped_ipv6_address() {
        let mut set = AddressSet::from([address("10.0.0.1")]);
        assert!(!set.contains(&address("::ffff:10.0.0.1")));
        assert!(!set.remove(&address("::ffff:10.0.0.1")));
        assert!(set.remove(&address("10.0.0.1")) && set.is_empty());
    }

    #[test]
    fn a_range_finds_its_own_family_alone() {
        let mut map = AddressMap::default();
        for (value, text) in ["10.0.0.1", "10.0.0.2", "10.0.1.1", "::1", "fd00::1"].iter().enumerate() {
            map.insert(address(text), value);
        }
        let within = |net: &str| map.keys_in(IpRange::of_net(&net.parse().unwrap())).collect::<Vec<_>>();
        assert_eq!(within("10.0.0.0/24"), [address("10.0.0.1"), address("10.0.0.2")]);
        assert_eq!(within("0.0.0.0/0").len(), 3);
        assert_eq!(within("::/0").len(), 2);
    }
}

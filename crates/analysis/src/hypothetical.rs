//! Hypothetical pods, which stand for pods that don't exist.

use std::net::IpAddr;

use palisade_policy::{Family, Labels, Name, ObjectKey, Pod};

/// A name that no object has, since the API rejects it.
pub(crate) const NO_NAME: &str = "?";

/// Returns a hypothetical pod.
pub(crate) fn unknown_pod(namespace: Name, labels: Labels, addresses: Vec<IpAddr>) -> Pod {
    Pod::new(ObjectKey::new(namespace, NO_NAME), labels, addresses)
}

/// Returns an address of this family in no block of any policy, or in the last range if there is none.
pub(crate) fn unheld_address(space: &crate::space::AddressSpace, family: Family) -> IpAddr {
    let free = space.ranges(family).find(|(_, set)| *set == 0);
    let range = free.or_else(|| space.ranges(family).last()).map(|(range, _)| range);
    range.map_or(palisade_policy::address::from_number(family, 0), |range| range.last)
}

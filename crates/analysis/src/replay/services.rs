//! Addresses of services that are not in the cluster.

use std::net::IpAddr;

use palisade_policy::{Cluster, Family, IpRange};

/// The shortest prefix that is taken for one range of services. The API server accepts no larger ranges.
const SHORTEST: [(Family, u32); 2] = [(Family::V4, 12), (Family::V6, 108)];

/// Returns for each family the lowest and the highest address of the cluster's services. A range of services is a CIDR, so what lies between two
/// of its addresses belongs to it too. Addresses that are too far apart are of several ranges, and tell nothing about those between.
pub(super) fn spans(cluster: &Cluster) -> Vec<IpRange> {
    let span = |(family, shortest): (Family, u32)| {
        let of_family = || {
            let all = cluster.services.values().flat_map(|service| service.addresses.iter().copied());
            all.filter(|address| Family::of(*address) == family)
        };
        let (first, last) = (of_family().min()?, of_family().max()?);
        (common_bits(first, last) >= shortest).then_some(IpRange { first, last })
    };
    SHORTEST.into_iter().filter_map(span).collect()
}

/// Returns how many bits two addresses of a family have in common, from the first on.
fn common_bits(one: IpAddr, other: IpAddr) -> u32 {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        _ => 0,
    }
}

//! What agents would have learned when records were made.

use std::collections::BTreeMap;

use palisade_analysis::regions;
use palisade_policy::{Cluster, DomainName, IpRange, LearnedName};

use super::recording::Recording;

/// Returns what agents would have learned when the records were made: the addresses of each name. Only public ones: agents
/// don't learn others unless they are told to (`--dns-allow`).
pub(crate) fn names(recording: &Recording, cluster: &Cluster) -> BTreeMap<DomainName, LearnedName> {
    let public = regions::public_ranges(cluster);
    let is_in = |range: &IpRange, address| range.first <= address && address <= range.last;
    let mut out: BTreeMap<DomainName, LearnedName> = BTreeMap::new();
    for (flow, names) in &recording.names {
        let address = flow.destination.address;
        if !public.iter().any(|range| is_in(range, address)) {
            continue;
        }
        for name in names {
            let empty = || LearnedName { name: name.clone(), addresses: std::iter::empty().collect() };
            out.entry(name.clone()).or_insert_with(empty).addresses.insert(address);
        }
    }
    out
}

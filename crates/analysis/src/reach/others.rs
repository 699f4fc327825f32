//! The units that are no pods: nodes and external addresses.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use palisade_policy::{
    Cluster, Family, IpRange, Phase, Pod,
    address::{union, without},
};

use super::{Members, Unit};
use crate::{
    classes::{AddressOwner, Classes},
    families::index,
    places::Place,
};

/// Returns units with the first address of each family of a node, and further units for its other addresses, since
/// CIDRs may distinguish them. An address of a pod or of an earlier node is left out (as in [`Cluster::endpoint`]).
pub(super) fn node_units(
    cluster: &Cluster,
    owners: &HashMap<IpAddr, &Pod>,
    classes: &mut Classes,
) -> Vec<Unit> {
    let mut taken: HashSet<IpAddr> = HashSet::new();
    let mut units = Vec::new();
    for node in cluster.nodes.values() {
        let owner = classes.node(node);
        let mut rounds: Vec<[Option<IpAddr>; 2]> = Vec::new();
        for address in &node.addresses {
            if owners.contains_key(address) || !taken.insert(*address) {
                continue;
            }
            let family = index(Family::of(*address));
            match rounds.iter_mut().find(|round| round[family].is_none()) {
                Some(round) => round[family] = Some(*address),
                None => {
                    let mut round = [None; 2];
                    round[family] = Some(*address);
                    rounds.push(round);
                }
            }
        }
        for round in rounds {
            let held = round.map(|a| Some(classes.class_at(owner, &cluster.addressing, a?)));
            let addresses = round.into_iter().flatten().collect();
            units.push(Unit::unrestricted(Members::Node { name: node.name.clone(), addresses }, held));
        }
    }
    units
}

/// Returns a unit for the external addresses in each set of blocks, without the addresses of pods and nodes, in the
/// families of the cluster.
pub(super) fn external_units(
    cluster: &Cluster,
    owners: &HashMap<IpAddr, &Pod>,
    classes: &mut Classes,
    filter_ranges: usize,
) -> Vec<Unit> {
    let internal = internal(cluster, owners);
    let mut units = Vec::new();
    for family in cluster.addressing.families.iter().copied() {
        let mut by_set: BTreeMap<u32, Vec<IpRange>> = BTreeMap::new();
        for (range, set) in classes.ranges(family) {
            by_set.entry(set).or_default().push(range);
        }
        for (set, spanned) in by_set {
            let ranges: Vec<IpRange> = spanned.iter().flat_map(|range| outside(*range, &internal)).collect();
            if ranges.is_empty() {
                continue;
            }
            let mut held = [None; 2];
            held[index(family)] = Some(classes.class(AddressOwner::External(family), Place::In(set)));
            let filter_ranges =
                (0..filter_ranges).filter(|m| classes.in_filter_range(*m).contains(&set)).collect();
            let members = Members::External { family, ranges, spanned, filter_ranges };
            units.push(Unit::unrestricted(members, held));
        }
    }
    units
}

/// Returns the addresses that are inside the cluster, canonical: the known ones of pods and nodes, and the ranges of pods.
fn internal(cluster: &Cluster, owners: &HashMap<IpAddr, &Pod>) -> Vec<IpRange> {
    let uses_host = |pod: &&Pod| pod.host_network && !matches!(pod.phase, Phase::Succeeded | Phase::Failed);
    let of_hosts = cluster.pods.values().filter(uses_host).flat_map(|pod| &pod.addresses);
    let of_nodes = cluster.nodes.values().flat_map(|node| &node.addresses);
    let known = owners.keys().chain(of_hosts).chain(of_nodes);
    let known = known.filter(|address| !cluster.addressing.is_placeholder(**address));
    let known = known.map(|address| IpRange { first: *address, last: *address });
    union(known.chain(cluster.addressing.pod_ranges.iter().copied()).collect())
}

/// Returns the part of a range that is in none of these canonical ranges. `O(log holes + holes in the range)`.
fn outside(range: IpRange, holes: &[IpRange]) -> Vec<IpRange> {
    let first = holes.partition_point(|hole| hole.last < range.first);
    without(range, holes[first..].iter().take_while(|hole| hole.first <= range.last).copied())
}

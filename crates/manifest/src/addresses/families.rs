//! The IP families of a cluster: as requested, or as its objects show.

use std::collections::{BTreeMap, BTreeSet};

use palisade_policy::{Cluster, Family};

use super::{AddressEvidence, AddressPlan};

/// Where the families of a cluster come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FamilySource {
    /// Nothing shows them, so both are assumed.
    #[default]
    Assumed,
    /// The user requested them.
    Requested,
    /// These objects or options have addresses or ranges of no other family.
    Shown(BTreeSet<FamilyWitness>),
}

/// What shows the families of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FamilyWitness {
    /// The ranges that the user gave for pods.
    PodCidrs,
    /// The addresses and pod ranges of nodes.
    Nodes,
    /// The addresses of pods.
    Pods,
    /// The cluster IPs and `ipFamilies` of services.
    Services,
}

/// Returns the families of all inputs together, and where they come from.
pub(super) fn families(
    inputs: &[(&Cluster, &AddressEvidence)],
    plan: &AddressPlan,
) -> (Vec<Family>, FamilySource) {
    if let Some(families) = &plan.families {
        let families: BTreeSet<Family> = families.iter().copied().collect();
        return (families.into_iter().collect(), FamilySource::Requested);
    }
    let mut found: BTreeMap<Family, BTreeSet<FamilyWitness>> = BTreeMap::new();
    let mut add = |witness, families: &mut dyn Iterator<Item = Family>| {
        families.for_each(|family| _ = found.entry(family).or_default().insert(witness));
    };
    add(FamilyWitness::PodCidrs, &mut plan.pod_cidrs.iter().map(Family::of_net));
    for (cluster, evidence) in inputs {
        let of = |addresses: &Vec<std::net::IpAddr>| addresses.clone().into_iter().map(Family::of);
        let ranges = evidence.pod_cidrs.values().flatten().map(Family::of_net);
        add(
            FamilyWitness::Nodes,
            &mut cluster.nodes.values().flat_map(|node| of(&node.addresses)).chain(ranges),
        );
        add(FamilyWitness::Pods, &mut cluster.pods.values().flat_map(|pod| of(&pod.addresses)));
        let services = cluster.services.values().flat_map(|service| of(&service.addresses));
        add(FamilyWitness::Services, &mut services.chain(evidence.service_families.iter().copied()));
    }
    if found.is_empty() {
        return (Family::BOTH.to_vec(), FamilySource::Assumed);
    }
    let witnesses = found.values().flatten().copied().collect();
    (found.into_keys().collect(), FamilySource::Shown(witnesses))
}

/// Removes the addresses of other families.
pub(super) fn keep_only(cluster: &mut Cluster, families: &[Family]) {
    let keeps = |address: &std::net::IpAddr| families.contains(&Family::of(*address));
    if cluster.pods.values().any(|pod| !pod.addresses.iter().all(keeps)) {
        cluster.pods.edit(|pod| pod.addresses.retain(keeps));
    }
    cluster.nodes.values_mut().for_each(|node| node.addresses.retain(keeps));
    cluster.services.values_mut().for_each(|service| service.addresses.retain(keeps));
}

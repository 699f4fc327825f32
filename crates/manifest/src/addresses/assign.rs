//! Gives placeholders to the pods and nodes that have no address.
//!
//! Placeholders are numbered in the order of namespace and name, so the same manifests always produce the same ones.

use std::{collections::BTreeSet, net::IpAddr};

use palisade_policy::{Addressing, Cluster, Family, ObjectKey, address::from_number};

use super::{AddressPlan, FamilySource, families, hosts, possible::PossibleRanges};
use crate::loaded::Loaded;

/// Gives the pods and nodes of some inputs placeholders in the same families, so that the inputs can be compared.
/// Host-network pods get the addresses of their node, which is made up if no input has a Node. `O(pods · log pods)`.
pub fn assign_addresses(inputs: &mut [&mut Loaded], plan: &AddressPlan) {
    let known: Vec<_> = inputs.iter().map(|loaded| (&loaded.cluster, &loaded.evidence)).collect();
    let (families, source) = families::families(&known, plan);
    for loaded in inputs {
        loaded.families_from = source.clone();
        if source == FamilySource::Requested {
            families::keep_only(&mut loaded.cluster, &families);
        }
        loaded.cluster.addressing = Addressing::default();
        loaded.cluster.addressing.families.clone_from(&families);
        loaded.made_up_node = hosts::add_nodes(&mut loaded.cluster);
        let evidence = &loaded.evidence;
        let mut possible = PossibleRanges::new(&loaded.cluster, plan, evidence);
        loaded.cluster.addressing.pod_ranges = possible.pod_ranges().to_vec();
        let mut numbers = Placeholders::default();
        nodes(&mut loaded.cluster, &possible, &mut numbers);
        hosts::share_addresses(&mut loaded.cluster);
        pods(&mut loaded.cluster, &evidence.awaiting, &mut possible, &mut numbers);
    }
}

/// Gives placeholders to the nodes without addresses.
fn nodes(cluster: &mut Cluster, possible: &PossibleRanges, numbers: &mut Placeholders) {
    for node in cluster.nodes.values_mut().filter(|node| node.addresses.is_empty()) {
        for family in cluster.addressing.families.clone() {
            let Some(address) = numbers.next(family) else { continue };
            node.addresses.push(address);
            cluster.addressing.add_placeholder(address, possible.of_node(family));
        }
    }
}

/// Gives placeholders to the pods without addresses.
fn pods(
    cluster: &mut Cluster,
    awaiting: &BTreeSet<ObjectKey>,
    possible: &mut PossibleRanges,
    numbers: &mut Placeholders,
) {
    let addressing = &mut cluster.addressing;
    let families = addressing.families.clone();
    let unknown = |pod: &palisade_policy::Pod| {
        pod.addresses.is_empty() && !pod.host_network && !awaiting.contains(&pod.key)
    };
    if !cluster.pods.values().any(unknown) {
        return;
    }
    cluster.pods.edit(|pod| {
        if !unknown(pod) {
            return;
        }
        for family in &families {
            let Some(address) = numbers.next(*family) else { continue };
            pod.addresses.push(address);
            addressing.add_placeholder(address, possible.of_pod(pod.node.as_ref(), *family));
        }
    });
}

/// Numbers placeholders. They are taken from 0.0.0.0/8 (RFC 1122: "this network") and 100::/64 (RFC 6666: discarded),
/// where no pod or node can be.
#[derive(Debug, Default)]
struct Placeholders([u32; 2]);

impl Placeholders {
    /// Returns the next placeholder. `None` after 16 million, which no input reaches (the number of pods that workloads
    /// make is limited).
    fn next(&mut self, family: Family) -> Option<IpAddr> {
        let (number, first) = match family {
            Family::V4 => (&mut self.0[0], 0),
            Family::V6 => (&mut self.0[1], 0x0100 << 112),
        };
        *number += 1;
        (*number < 1 << 24).then(|| from_number(family, first + u128::from(*number)))
    }
}

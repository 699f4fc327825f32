//! The nodes of host-network pods.

use std::{collections::BTreeMap, net::IpAddr};

use palisade_policy::{Cluster, Family, Labels, Name, Node, Phase, Pod};

use super::MADE_UP_NODE;

/// Adds the nodes of host-network pods that no Node object describes: those that the pods name, with the addresses that
/// the pods report; and one made-up node for the others, if there is no Node object. Returns whether it was needed.
pub(super) fn add_nodes(cluster: &mut Cluster) -> bool {
    let without_nodes = cluster.nodes.is_empty();
    let uses_host = |pod: &&Pod| pod.host_network && !matches!(pod.phase, Phase::Succeeded | Phase::Failed);
    let mut found: BTreeMap<Name, Vec<IpAddr>> = BTreeMap::new();
    let (mut made_up, mut unplaced) = (false, Vec::new());
    for pod in cluster.pods.values().filter(uses_host) {
        match &pod.node {
            Some(name) if cluster.nodes.contains_key(name) => {}
            Some(name) => found.entry(name.clone()).or_default().extend(&pod.addresses),
            None if without_nodes => {
                made_up = true;
                unplaced.push(pod.key.clone());
                found.entry(MADE_UP_NODE.into()).or_default().extend(&pod.addresses);
            }
            None => {}
        }
    }
    for (name, mut addresses) in found {
        let mut seen = std::collections::BTreeSet::new();
        addresses.retain(|address| seen.insert(*address));
        cluster
            .nodes
            .insert(name.clone(), Node { name, labels: Labels::default(), addresses, pod_cidrs: Vec::new() });
    }
    if made_up {
        cluster.pods.edit(|pod| {
            if unplaced.binary_search(&pod.key).is_ok() {
                pod.node = Some(MADE_UP_NODE.into());
            }
        });
    }
    made_up
}

/// Gives host-network pods without addresses those of their node. A node may have several of a family; a pod reports the
/// first of each.
pub(super) fn share_addresses(cluster: &mut Cluster) {
    let nodes = &cluster.nodes;
    let lacks = |pod: &Pod| pod.host_network && pod.addresses.is_empty();
    if !cluster.pods.values().any(lacks) {
        return;
    }
    cluster.pods.edit(|pod| {
        if !lacks(pod) {
            return;
        }
        for address in pod.node.as_ref().and_then(|n| nodes.get(n)).into_iter().flat_map(|n| &n.addresses) {
            if pod.address(Family::of(*address)).is_none() {
                pod.addresses.push(*address);
            }
        }
    });
}

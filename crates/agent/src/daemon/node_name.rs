//! Checks whether the cluster has this node. With a wrong node name no pod is local, and nothing is enforced.

use std::collections::BTreeSet;

use palisade_policy::{Cluster, Name};

use crate::view;

/// The most node names that a message lists.
const MAX_LISTED: usize = 5;

/// Whether the cluster has this node. An empty cluster may still get it. `O(log nodes)` if the cluster has a Node object
/// of this name, else `O(pods)`.
pub(super) fn is_known(cluster: &Cluster, node: &Name) -> bool {
    cluster.nodes.contains_key(node)
        || view::local(cluster, node).next().is_some()
        || (cluster.nodes.is_empty() && cluster.pods.is_empty())
}

/// Logs that the cluster doesn't have this node. Returns the names that it has. `O(pods)`.
pub(super) fn warn_unknown(cluster: &Cluster, node: &Name) -> String {
    let known_nodes = known_nodes(cluster);
    tracing::warn!(%node, known_nodes, "no node of this name in the cluster, no pod is treated as local");
    known_nodes
}

fn known_nodes(cluster: &Cluster) -> String {
    let mut names: BTreeSet<&Name> = cluster.nodes.keys().collect();
    names.extend(cluster.pods.values().filter_map(|pod| pod.node.as_ref()));
    match names.len() {
        0 => "none, and the pods are bound to no node (spec.nodeName)".to_owned(),
        n => {
            let text = names.iter().take(MAX_LISTED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
            if n > MAX_LISTED { format!("{text} and {} more", n - MAX_LISTED) } else { text }
        }
    }
}

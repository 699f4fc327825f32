//! Whether the cluster knows this node: under a wrong name no pod is local, and nothing is enforced.

use std::collections::BTreeSet;

use palisade_policy::{Cluster, Name};

use crate::view;

/// As many names as anybody reads.
const NAMED: usize = 5;

/// Whether the cluster has this node; an empty one may still get it. `O(log nodes)` where it is among the nodes, else
/// `O(pods)`.
pub(super) fn is_known(cluster: &Cluster, node: &Name) -> bool {
    cluster.nodes.contains_key(node)
        || view::local(cluster, node).next().is_some()
        || (cluster.nodes.is_empty() && cluster.pods.is_empty())
}

/// Says in the log that it isn't; returns the names that there are. `O(pods)`.
pub(super) fn warn(cluster: &Cluster, node: &Name) -> String {
    let known = known_nodes(cluster);
    tracing::warn!(
        %node,
        known,
        "the cluster has no node of this name, so no pod is taken for local: say --node-name if it is wrong"
    );
    known
}

fn known_nodes(cluster: &Cluster) -> String {
    let mut names: BTreeSet<&Name> = cluster.nodes.keys().collect();
    names.extend(cluster.pods.values().filter_map(|pod| pod.node.as_ref()));
    match names.len() {
        0 => "none, and the pods are bound to no node (spec.nodeName)".to_owned(),
        n => {
            let text = names.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
            if n > NAMED { format!("{text} and {} more", n - NAMED) } else { text }
        }
    }
}

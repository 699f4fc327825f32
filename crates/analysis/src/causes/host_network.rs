//! Selectors for pods that use the host network: such pods count as their node (SEMANTICS G-4).

use palisade_policy::{Endpoint, Peer};

use super::{Finding, case::Case};

pub(crate) fn find(case: &Case<'_>) -> Vec<Finding> {
    let Endpoint::Node { name: node, .. } = case.other() else { return Vec::new() };
    let mut out = Vec::new();
    for (miss, peer) in case.peers() {
        let Peer::Pods(choice) = peer else { continue };
        let selected = case.cluster().pods.values().find(|pod| {
            pod.host_network
                && pod.node.as_ref() == Some(node)
                && choice.matches(&pod.key.namespace, case.namespace_labels(&pod.key.namespace), &pod.labels)
        });
        if let Some(pod) = selected {
            out.push(Finding {
                code: "host-network",
                text: format!(
                    "selectors never match host-network pods: {} has the addresses of node {node}",
                    pod.key
                ),
                origin: miss.origin.cloned(),
                mend: None,
            });
        }
    }
    out
}

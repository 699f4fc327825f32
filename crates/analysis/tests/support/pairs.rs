//! The verdicts of the reference for pairs of endpoints.

use palisade_policy::{Cluster, Endpoint, Flow, Protocol, reference};

pub(crate) fn on_its_own_node(cluster: &Cluster, source: &Endpoint, target: &Endpoint) -> bool {
    let (Endpoint::Node { name, .. }, Endpoint::Pod { key, .. }) = (source, target) else { return false };
    cluster.pods[key].node.as_ref() == Some(name)
}

pub(crate) fn is_allowed(
    cluster: &Cluster,
    source: &Endpoint,
    target: &Endpoint,
    protocol: Protocol,
    port: u16,
) -> bool {
    let (source, destination) = (source.clone(), target.clone());
    let flow = Flow { source, destination, protocol, port, through_service: false };
    reference::decide(cluster, &flow).verdict().is_allow()
}

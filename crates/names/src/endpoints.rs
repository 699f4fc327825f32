//! The endpoints of a pod.

use std::net::IpAddr;

use palisade_policy::{Cluster, Endpoint, Family, Node, ObjectKey, Phase, Pod};

/// Why a pod can't be an end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// It finished and no longer owns its address (SEMANTICS A48).
    #[error("pod {0} has finished ({1:?}): it no longer owns an address, so nothing can reach it")]
    Finished(ObjectKey, Phase),
    /// It has no address yet (SEMANTICS A51).
    #[error("pod {0} has no address yet: set one in `status.podIPs`, or wait until it has one")]
    NoAddress(ObjectKey),
    /// It uses the host network, and its node isn't known.
    #[error(
        "pod {0} uses the host network, and the input doesn't say on which node it runs: set `spec.nodeName`, or ask about \
         `node/NAME`"
    )]
    NoNode(ObjectKey),
    /// It uses the host network, and the address of its node isn't known.
    #[error("pod {0} uses the host network, but neither `status.podIPs` nor its Node object has an address")]
    NoNodeAddress(ObjectKey),
}

/// Returns the endpoints of a pod, one for each address. A host-network pod has those of its node (G-4).
///
/// # Errors
/// [`NoEndpoint`] if it has none.
pub fn endpoints_of(cluster: &Cluster, pod: &Pod) -> Result<Vec<Endpoint>, NoEndpoint> {
    if matches!(pod.phase, Phase::Succeeded | Phase::Failed) {
        return Err(NoEndpoint::Finished(pod.key.clone(), pod.phase));
    }
    if !pod.host_network {
        let live = |address: &IpAddr| Endpoint::Pod { key: pod.key.clone(), address: *address };
        return match pod.addresses.is_empty() {
            true => Err(NoEndpoint::NoAddress(pod.key.clone())),
            false => Ok(pod.addresses.iter().map(live).collect()),
        };
    }
    let node = pod.node.as_ref().and_then(|n| cluster.nodes.get(n));
    let addresses = match node {
        Some(node) if pod.addresses.is_empty() => &node.addresses,
        _ => &pod.addresses,
    };
    let name = node.map(|n| &n.name).or(pod.node.as_ref());
    match name {
        Some(name) if !addresses.is_empty() => {
            Ok(addresses.iter().map(|a| Endpoint::Node { name: name.clone(), address: *a }).collect())
        }
        None if !addresses.is_empty() => Ok(addresses.iter().map(|a| cluster.endpoint(*a)).collect()),
        Some(_) => Err(NoEndpoint::NoNodeAddress(pod.key.clone())),
        None => Err(NoEndpoint::NoNode(pod.key.clone())),
    }
}

/// Returns the endpoints that a host-network pod may have whose node isn't known: those of every node. Empty for other pods,
/// and if no node has an address.
#[must_use]
pub fn endpoints_on_any_node(cluster: &Cluster, pod: &Pod) -> Vec<Endpoint> {
    if !matches!(endpoints_of(cluster, pod), Err(NoEndpoint::NoNode(_))) {
        return Vec::new();
    }
    let of_node = |node: &Node| {
        let endpoint = |address: &IpAddr| Endpoint::Node { name: node.name.clone(), address: *address };
        node.addresses.iter().map(endpoint).collect::<Vec<_>>()
    };
    cluster.nodes.values().flat_map(of_node).collect()
}

/// Iterates over the endpoints with an address of this family.
pub fn of_family(endpoints: &[Endpoint], family: Family) -> impl Iterator<Item = &Endpoint> {
    endpoints.iter().filter(move |e| Family::of(e.address()) == family)
}

#[cfg(test)]
mod tests {
    use palisade_policy::TargetPort;

    use super::*;
    use crate::{
        sample::{cluster, pod, service},
        service_addresses::service_at,
    };

    #[test]
    fn a_pod_has_its_own_endpoint_its_nodes_or_none() {
        let mut c = cluster();
        let mut p = pod("shop", "p", None, "10.0.0.9");
        assert_eq!(endpoints_of(&c, &p).unwrap().len(), 1);
        p.host_network = true;
        p.addresses.clear();
        let [Endpoint::Node { name, address }] = &endpoints_of(&c, &p).unwrap()[..] else {
            panic!("not the node")
        };
        assert_eq!((&**name, address.to_string()), ("n1", "192.0.2.1".to_owned()));
        p.node = None;
        assert_eq!(endpoints_of(&c, &p), Err(NoEndpoint::NoNode(p.key.clone())));
        let nodes: Vec<_> = c.nodes.values().flat_map(|node| &node.addresses).copied().collect();
        let found: Vec<_> = endpoints_on_any_node(&c, &p).iter().map(Endpoint::address).collect();
        assert!(!nodes.is_empty() && found == nodes, "{found:?}");
        p.host_network = false;
        assert_eq!(endpoints_on_any_node(&c, &p), []);
        assert_eq!(endpoints_of(&c, &p), Err(NoEndpoint::NoAddress(p.key.clone())));
        p.phase = Phase::Failed;
        assert!(matches!(endpoints_of(&c, &p), Err(NoEndpoint::Finished(..))));
        assert!(matches!(c.endpoint("10.0.0.1".parse().unwrap()), Endpoint::Pod { .. }));
        assert!(matches!(c.endpoint("192.0.2.1".parse().unwrap()), Endpoint::Node { .. }));
        assert!(matches!(c.endpoint("192.0.2.2".parse().unwrap()), Endpoint::External(_)));
        let mut s = service(TargetPort::Number(1), None);
        s.addresses = vec!["10.96.0.1".parse().unwrap()];
        c.services.insert(s.key.clone(), s);
        assert!(service_at(&c, "10.96.0.1".parse().unwrap()).is_some());
    }
}

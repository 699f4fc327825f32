//! All sources but some.

use palisade_policy::{
    Cluster, Endpoint, Family, IpRange,
    address::{union, without},
};

use super::AssertedEnds;
use crate::exposure::{PodSet, pod_set::World};

/// Returns every source of connections to these destinations that is not one of `allowed`. Only pods have policies on both
/// sides, so nodes and addresses outside are sources only if a destination is a pod.
pub(super) fn of(
    cluster: &Cluster,
    allowed: &AssertedEnds,
    to: &AssertedEnds,
    world: &World,
) -> AssertedEnds {
    let mut rest = vec![PodSet::default()];
    for set in &allowed.pods {
        rest = rest.iter().flat_map(|part| world.disjoint_outside(part, set)).collect();
    }
    let pods = cluster.pods.values().filter(|pod| pod.is_running()).flat_map(|pod| {
        pod.addresses.iter().map(|address| Endpoint::Pod { key: pod.key.clone(), address: *address })
    });
    let listed = |end: &Endpoint| allowed.endpoints.contains(end);
    let in_set = |end: &Endpoint| {
        let Endpoint::Pod { key, .. } = end else { return false };
        let labels = cluster.namespaces.get(&key.namespace).map(|n| &n.labels);
        cluster.pods.get(key).is_some_and(|pod| allowed.pods.iter().any(|set| set.contains(pod, labels)))
    };
    let mut endpoints: Vec<Endpoint> = pods.filter(|end| !listed(end) && !in_set(end)).collect();
    let mut ranges = Vec::new();
    let to_pods = !to.pods.is_empty() || to.endpoints.iter().any(|end| matches!(end, Endpoint::Pod { .. }));
    if to_pods {
        let nodes = cluster.nodes.values().flat_map(|node| {
            node.addresses.iter().map(|address| Endpoint::Node { name: node.name.clone(), address: *address })
        });
        endpoints.extend(nodes.filter(|end| !listed(end)));
        ranges = outside(cluster, allowed);
    }
    AssertedEnds { endpoints, pods: rest, ranges }
}

/// Returns the addresses outside the cluster that are not allowed.
fn outside(cluster: &Cluster, allowed: &AssertedEnds) -> Vec<IpRange> {
    let single = allowed.endpoints.iter().filter_map(|end| match end {
        Endpoint::External(address) => Some(IpRange { first: *address, last: *address }),
        _ => None,
    });
    let holes: Vec<IpRange> = union(
        allowed
            .ranges
            .iter()
            .copied()
            .chain(single)
            .chain(cluster.addressing.pod_ranges.iter().copied())
            .collect(),
    );
    let families = Family::BOTH.into_iter().filter(|family| cluster.addressing.has(*family));
    families.flat_map(|family| without(IpRange::whole(family), holes.iter().copied())).collect()
}

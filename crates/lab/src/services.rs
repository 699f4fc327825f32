//! Services and their backends: which pods are behind which address and port.

use std::{collections::BTreeMap, net::IpAddr};

use palisade_policy::{Cluster, Family, Phase, Pod, Protocol, Service, TargetPort};

use crate::layout::Layout;

/// A service port at one address of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    /// The service address.
    pub address: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The service port.
    pub port: u16,
}

/// A backend of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend<'a> {
    /// The pod.
    pub pod: &'a palisade_policy::ObjectKey,
    /// Its address.
    pub address: IpAddr,
    /// The port on the pod.
    pub port: u16,
}

/// Returns the running pods with an address that a service selects, sorted by name. Host-network pods are included.
pub fn backends<'a>(cluster: &'a Cluster, service: &'a Service) -> impl Iterator<Item = &'a Pod> {
    let in_namespace = |p: &&Pod| p.key.namespace == service.key.namespace;
    let selected = move |p: &&Pod| service.selector.as_ref().is_some_and(|s| s.matches(&p.labels));
    let runs = |p: &&Pod| !matches!(p.phase, Phase::Succeeded | Phase::Failed) && !p.addresses.is_empty();
    cluster.pods.values().filter(in_namespace).filter(selected).filter(runs)
}

/// Resolves the target port of a service on a pod. Returns `None` if the pod has no port of that name and protocol, and the
/// first if it has several, as the endpoints controller does.
#[must_use]
pub fn target_on(pod: &Pod, protocol: Protocol, target: &TargetPort) -> Option<u16> {
    match target {
        TargetPort::Number(n) => Some(*n),
        TargetPort::Name(name) => pod.named_ports(name, Some(protocol)).next().map(|(_, port)| port),
    }
}

/// Returns every service port of a lab with its backends. `O(services · pods)`.
#[must_use]
pub fn frontends(layout: &Layout) -> BTreeMap<Frontend, (&Service, Vec<Backend<'_>>)> {
    let mut out = BTreeMap::new();
    for service in layout.cluster.services.values() {
        let served = service.addresses.iter().filter(|a| layout.options.families.has(Family::of(**a)));
        for address in served {
            for port in &service.ports {
                let backend = |pod| backend(layout, pod, Family::of(*address), port);
                let found = backends(&layout.cluster, service).filter_map(backend).collect();
                let frontend = Frontend { address: *address, protocol: port.protocol, port: port.port };
                // If two services share address and port, the first gets it, because its rules would come first.
                out.entry(frontend).or_insert((service, found));
            }
        }
    }
    out
}

fn backend<'a>(
    layout: &Layout,
    pod: &'a Pod,
    family: Family,
    port: &palisade_policy::ServicePort,
) -> Option<Backend<'a>> {
    let on_the_wire = match layout.pods.get(&pod.key) {
        Some(place) => &place.addresses,
        None => layout.nodes.get(pod.node.as_ref()?)?,
    };
    let address = on_the_wire.iter().copied().find(|a| Family::of(*a) == family)?;
    Some(Backend { pod: &pod.key, address, port: target_on(pod, port.protocol, &port.target)? })
}

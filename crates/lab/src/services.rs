//! Services and their backends: which pods are behind which address and port.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::{Cluster, Family, Name, Phase, Pod, Protocol, Service, TargetPort};

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

/// Returns every service port of a lab with its backends: on cluster IPs, external IPs, addresses of load balancers, and
/// node ports on the addresses of nodes. Every node translates all of them, as kube-proxy does; source addresses are kept.
/// `O(services · (pods + nodes))`.
#[must_use]
pub fn frontends(layout: &Layout) -> BTreeMap<Frontend, (&Service, Vec<Backend<'_>>)> {
    let mut out = BTreeMap::new();
    // If two services share address and port, the first gets it, because its rules would come first. Cluster IPs come
    // before all others.
    for service in layout.cluster.services.values() {
        for address in &service.addresses {
            add(layout, service, *address, None, &mut out);
        }
    }
    let of_pods: BTreeSet<IpAddr> = layout.pods.values().flat_map(|p| p.addresses.iter().copied()).collect();
    for service in layout.cluster.services.values().filter(|s| s.selector.is_some()) {
        // The lab's pods and its outside may have an address that a service declares too; they keep it.
        let taken = |a: &IpAddr| of_pods.contains(a) || layout.outside.contains(a);
        for address in service.access.addresses().filter(|a| !taken(a)) {
            add(layout, service, address, None, &mut out);
        }
        for (node, addresses) in &layout.nodes {
            for address in addresses {
                add(layout, service, *address, Some(node), &mut out);
            }
        }
    }
    out
}

/// Adds the ports of a service at an address: its node ports if the address is that of a node.
fn add<'a>(
    layout: &'a Layout,
    service: &'a Service,
    address: IpAddr,
    node: Option<&Name>,
    out: &mut BTreeMap<Frontend, (&'a Service, Vec<Backend<'a>>)>,
) {
    let family = Family::of(address);
    if !layout.options.families.has(family) {
        return;
    }
    // With externalTrafficPolicy: Local, a node leads to its own pods only.
    let is_led_to = |pod: &&Pod| match node {
        Some(node) if service.access.external_local => {
            layout.pods.get(&pod.key).map(|place| &place.node).or(pod.node.as_ref()) == Some(node)
        }
        _ => true,
    };
    for port in &service.ports {
        let number = if node.is_some() { port.node_port } else { Some(port.port) };
        let Some(number) = number else { continue };
        let pods = backends(&layout.cluster, service).filter(is_led_to);
        let found = pods.filter_map(|pod| backend(layout, pod, family, port)).collect();
        let frontend = Frontend { address, protocol: port.protocol, port: number };
        out.entry(frontend).or_insert((service, found));
    }
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

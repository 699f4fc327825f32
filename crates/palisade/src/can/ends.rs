//! Resolves one spec to endpoints, a service or addresses outside the cluster.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Result, anyhow, bail};
use ipnet::IpNet;
use palisade_names::{Named, PortSpec, Way};
use palisade_policy::{Cluster, ContainerPort, Endpoint, Family, Name, Node, Pod, Protocol, Service};

use super::{
    host::Host,
    names::{self, Found},
    note::Note,
    spec::{EndpointSpec, ProtocolSpec, Spec},
};

/// What a spec resolves to.
#[derive(Debug)]
pub(crate) enum End<'a> {
    /// These endpoints.
    Endpoints(Vec<Endpoint>),
    /// A service.
    Service(ServiceEnd<'a>),
    /// The pods behind a `hostPort` of a node, and their own ports.
    HostPort(Vec<(Endpoint, Protocol, u16)>),
    /// Addresses outside the cluster.
    Outside(Outside),
}

/// Addresses outside the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outside {
    /// The public internet.
    Internet,
    /// A range.
    Range(IpNet),
    /// A host.
    Host(Host),
}

/// A resolved spec.
#[derive(Debug)]
pub(crate) struct Resolved<'a> {
    /// The full spelling of its object.
    pub(crate) name: String,
    /// What it is.
    pub(crate) end: End<'a>,
    /// What should be said about how it was found.
    pub(crate) notes: Vec<Note>,
    /// Whether some of its endpoints are those of every node, because it uses the host network of one that isn't known.
    pub(crate) on_any_node: bool,
    /// The ports that its host-network pods declare: they listen on the addresses of their nodes.
    pub(crate) ports_on_nodes: Vec<ContainerPort>,
}

impl<'a> Resolved<'a> {
    fn new(name: String, end: End<'a>) -> Self {
        Self { name, end, notes: Vec::new(), on_any_node: false, ports_on_nodes: Vec::new() }
    }
}

/// A service, and how it was given.
#[derive(Clone, Debug)]
pub(crate) struct ServiceEnd<'a> {
    /// The service.
    pub(crate) service: &'a Service,
    /// The kind of its address; [`Way::ClusterIp`] if it was given by name.
    pub(crate) way: Way,
    /// The family of the address, if it was given by address.
    pub(crate) family: Option<Family>,
    /// The port of the service, if a node port was given.
    pub(crate) port: Option<u16>,
    /// The node whose address was given with a node port.
    pub(crate) node: Option<Name>,
}

impl<'a> ServiceEnd<'a> {
    fn named(service: &'a Service) -> Self {
        Self { service, way: Way::ClusterIp, family: None, port: None, node: None }
    }
}

/// Resolves a spec. Names without a namespace are looked up in `namespace`.
///
/// # Errors
/// When there is no such object, when it has no endpoint, or when nothing answers on the port of an address.
pub(crate) fn end<'a>(cluster: &'a Cluster, spec: &Spec, namespace: &str) -> Result<Resolved<'a>> {
    match &spec.endpoint {
        EndpointSpec::Internet => Ok(Resolved::new("internet".to_owned(), End::Outside(Outside::Internet))),
        EndpointSpec::Range(net) => range(cluster, *net),
        EndpointSpec::Address(address) => at_address(cluster, spec, *address),
        EndpointSpec::Everything { namespace } => everything(cluster, namespace.as_deref()),
        EndpointSpec::MadeUp { .. } => {
            bail!("a pod that does not exist is supported by `can` and `explain` only")
        }
        EndpointSpec::Named { namespace: own, kind, name } => {
            let mut notes = Vec::new();
            let found = names::find(cluster, *kind, own.as_deref(), name, namespace, &mut notes)?;
            let mut resolved = match found {
                Found::Object(found) => object(cluster, spec, &found)?,
                Found::Address(address) => at_address(cluster, spec, address)?,
                Found::Host(host) => outside_host(cluster, host.clone(), &host),
            };
            resolved.notes.append(&mut notes);
            Ok(resolved)
        }
    }
}

fn object<'a>(cluster: &'a Cluster, spec: &Spec, found: &Named<'a>) -> Result<Resolved<'a>> {
    let name = found.to_string();
    let (ends, pods) = match found {
        Named::Pod(pod) => (possible_endpoints(cluster, &[*pod])?, vec![*pod]),
        Named::Workload(_, pods) => (possible_endpoints(cluster, pods)?, pods.clone()),
        Named::Service(service) => return external_name(cluster, spec, service, name),
        Named::Node(node) => {
            if let Some(service) = service_of_node_port(cluster, spec, node) {
                return Ok(Resolved::new(through(&name, &service), End::Service(service)));
            }
            if let Some(resolved) = behind_host_port(cluster, spec, node, None) {
                return Ok(resolved);
            }
            ((endpoints_of_node(node)?, false), Vec::new())
        }
    };
    let (ends, on_any_node) = ends;
    let on_host = pods.iter().any(|pod| pod.host_network).then(|| Note::host_network(&name));
    let any_node = on_any_node.then(|| Note::any_node(&name));
    let notes = on_host.into_iter().chain(any_node).collect();
    let ports = pods.iter().filter(|pod| pod.host_network).flat_map(|pod| pod.ports.iter().cloned());
    let ports_on_nodes = ports.collect();
    Ok(Resolved { notes, on_any_node, ports_on_nodes, ..Resolved::new(name, End::Endpoints(ends)) })
}

/// How many ExternalName services that stand for each other are followed.
const MAX_ALIASES: usize = 8;

/// Resolves a service. An ExternalName service is another name for a host, of the outside or of the cluster.
///
/// # Errors
/// When it stands for a name of the cluster's DNS that nothing has: no host outside can have it either.
fn external_name<'a>(
    cluster: &'a Cluster,
    spec: &Spec,
    service: &'a Service,
    name: String,
) -> Result<Resolved<'a>> {
    let (mut service, mut alias, mut notes) = (service, name.clone(), Vec::new());
    for _ in 0..MAX_ALIASES {
        let Some(host) = &service.access.external_name else {
            return Ok(Resolved { notes, ..Resolved::new(name, End::Service(ServiceEnd::named(service))) });
        };
        notes.push(Note::external_name(&alias, host));
        let target = names::canonical(cluster, &service.key.namespace, host).map_err(|error| {
            anyhow!("{alias} is an ExternalName service, another name for {host}: {error}")
        })?;
        let mut resolved = match (target, host.parse()) {
            (Found::Object(Named::Service(next)), _) => {
                (service, alias) = (next, Named::Service(next).to_string());
                continue;
            }
            (Found::Object(found), _) => object(cluster, spec, &found)?,
            (Found::Address(address), _) | (Found::Host(_), Ok(address)) => {
                at_address(cluster, spec, address)?
            }
            (Found::Host(host), Err(_)) => outside_host(cluster, name, &host),
        };
        notes.append(&mut resolved.notes);
        return Ok(Resolved { notes, ..resolved });
    }
    bail!(
        "{name} is an ExternalName service, and the names that it stands for are those of more than {MAX_ALIASES} others, or its own"
    )
}

fn outside_host<'a>(cluster: &Cluster, spelling: String, host: &str) -> Resolved<'a> {
    Resolved::new(spelling, End::Outside(Outside::Host(Host::new(cluster, host))))
}

/// Resolves a range: the addresses in it that are no pod's, node's or service's.
fn range<'a>(cluster: &'a Cluster, net: IpNet) -> Result<Resolved<'a>> {
    if net.prefix_len() == net.max_prefix_len() {
        let spec = Spec { endpoint: EndpointSpec::Address(net.addr()), port: None, protocol: None };
        return at_address(cluster, &spec, net.addr());
    }
    let mut resolved = Resolved::new(net.to_string(), End::Outside(Outside::Range(net)));
    let pods = cluster.pods.values().flat_map(|p| &p.addresses);
    let nodes = cluster.nodes.values().flat_map(|n| &n.addresses);
    // A host-network pod has its node's.
    let inside: BTreeSet<IpAddr> =
        pods.chain(nodes).filter(|address| net.contains(*address)).copied().collect();
    let inside = inside.len();
    if inside > 0 {
        resolved.notes.push(Note::range_without_cluster(net, inside));
    }
    Ok(resolved)
}

/// Resolves every pod of a namespace, or of all. Host-network pods are left out, as they are nodes to policies.
fn everything<'a>(cluster: &'a Cluster, namespace: Option<&str>) -> Result<Resolved<'a>> {
    if let Some(name) = namespace
        && !cluster.namespaces.contains_key(name)
    {
        // The lookup of any name there says which namespaces are similar.
        palisade_names::find(cluster, None, name, "*")?;
    }
    let is_in = |pod: &&Pod| namespace.is_none_or(|name| *pod.key.namespace == *name);
    let of_network = cluster.pods.values().filter(is_in).filter(|pod| !pod.host_network);
    let ends = endpoints_of_all(cluster, &of_network.collect::<Vec<_>>())?;
    let name = namespace.map_or_else(|| "*".to_owned(), |name| format!("namespace/{name}"));
    if ends.is_empty() {
        bail!("{name} has no pods on the cluster network, so there are no connections to or from them");
    }
    let on_host = cluster.pods.values().filter(is_in).any(|pod| pod.host_network);
    let notes = on_host.then(|| Note::without_host_network(&name)).into_iter().collect();
    Ok(Resolved { notes, ..Resolved::new(name, End::Endpoints(ends)) })
}

/// Resolves an address. A connection to an address of a service is decided after its translation (SEMANTICS G-1).
fn at_address<'a>(cluster: &'a Cluster, spec: &Spec, address: IpAddr) -> Result<Resolved<'a>> {
    let family = Some(Family::of(address));
    let of_service = |service: ServiceEnd<'a>| {
        let name = through(&address.to_string(), &service);
        Resolved::new(name, End::Service(ServiceEnd { family, ..service }))
    };
    let as_it_is = || {
        let endpoint = cluster.endpoint(address);
        let is_unused = matches!(endpoint, Endpoint::External(_)) && cluster.is_in_pod_range(address);
        let notes = is_unused.then(|| Note::unused_pod_address(address)).into_iter().collect();
        Resolved { notes, ..Resolved::new(endpoint.to_string(), End::Endpoints(vec![endpoint])) }
    };
    let services = palisade_names::services_at(cluster, address);
    let node = cluster.node_at(address);
    let with_port = spec.port.as_ref().and_then(|port| {
        services.iter().find(|(service, _)| palisade_names::has_port(service, protocol(spec), port))
    });
    if let Some((service, way)) = with_port {
        return Ok(of_service(ServiceEnd { way: *way, ..ServiceEnd::named(service) }));
    }
    // A load balancer may have the addresses of nodes; on other ports, they are the nodes'.
    if let Some(node) = node {
        return Ok(match service_of_node_port(cluster, spec, node) {
            Some(service) => of_service(service),
            None => behind_host_port(cluster, spec, node, family).unwrap_or_else(as_it_is),
        });
    }
    match (&services[..], &spec.port) {
        ([], _) => Ok(as_it_is()),
        ([(service, way)], _) => Ok(of_service(ServiceEnd { way: *way, ..ServiceEnd::named(service) })),
        (several, port) => {
            let known = several.iter().map(|(s, _)| format!("{}: {}", s.key, ports_text(s)));
            let known = known.collect::<Vec<_>>().join("; ");
            match port {
                None => bail!("{address} stands for several services ({known}); give the port"),
                Some(port) => bail!(
                    "nothing answers on port {port} of {address}, which stands for several services ({known})"
                ),
            }
        }
    }
}

fn ports_text(service: &Service) -> String {
    service.ports.iter().map(|p| format!("{}/{}", p.port, p.protocol)).collect::<Vec<_>>().join(", ")
}

/// Formats a service that was given by an address or a node: `shop/svc/web (203.0.113.50, load balancer)`.
fn through(given: &str, service: &ServiceEnd<'_>) -> String {
    let way = match service.way {
        Way::ClusterIp => "",
        Way::ExternalIp => ", external IP",
        Way::LoadBalancer => ", load balancer",
        Way::NodePort => ", node port",
    };
    format!("{} ({given}{way})", Named::Service(service.service))
}

fn protocol(spec: &Spec) -> Option<Protocol> {
    match spec.protocol {
        Some(ProtocolSpec::WithPorts(protocol)) => Some(protocol),
        Some(ProtocolSpec::Icmp) | None => None,
    }
}

/// Returns the service for which the port of a spec stands on the addresses of nodes.
fn service_of_node_port<'a>(cluster: &'a Cluster, spec: &Spec, node: &Node) -> Option<ServiceEnd<'a>> {
    let Some(PortSpec::Number(number)) = spec.port else { return None };
    let (service, port) = palisade_names::node_port(cluster, protocol(spec), number)?;
    let node = Some(node.name.clone());
    Some(ServiceEnd { way: Way::NodePort, port: Some(port.port), node, ..ServiceEnd::named(service) })
}

/// Resolves a port of a node to the pods whose `hostPort` it is. A connection is decided after its translation.
fn behind_host_port<'a>(
    cluster: &'a Cluster,
    spec: &Spec,
    node: &Node,
    family: Option<Family>,
) -> Option<Resolved<'a>> {
    let Some(PortSpec::Number(number)) = spec.port else { return None };
    if spec.protocol == Some(ProtocolSpec::Icmp) {
        return None;
    }
    let behind = palisade_names::host_port(cluster, &node.name, protocol(spec), number);
    let mut ends = Vec::new();
    for (pod, port) in &behind {
        let of_pod = palisade_names::endpoints_of(cluster, pod).unwrap_or_default();
        let fits = |end: &Endpoint| family.is_none_or(|family| Family::of(end.address()) == family);
        ends.extend(of_pod.into_iter().filter(fits).map(|end| (end, port.protocol, port.port)));
    }
    let (pod, port) = behind.first().filter(|_| !ends.is_empty())?;
    let (pod, node) = (Named::Pod(pod).to_string(), &node.name);
    let note = Note::host_port(node, number, &pod, port.port, behind.len() - 1);
    let name = format!("{pod} (node/{node}, host port)");
    Some(Resolved { notes: vec![note], ..Resolved::new(name, End::HostPort(ends)) })
}

fn endpoints_of_node(node: &Node) -> Result<Vec<Endpoint>> {
    if node.addresses.is_empty() {
        bail!("node {} has no address in status.addresses", node.name);
    }
    let endpoint = |address: &IpAddr| Endpoint::Node { name: node.name.clone(), address: *address };
    Ok(node.addresses.iter().map(endpoint).collect())
}

/// Returns the endpoints of a spec as a source. The port must be left out.
///
/// # Errors
/// As [`end`], and for the internet.
pub(crate) fn endpoints(cluster: &Cluster, spec: &EndpointSpec, namespace: &str) -> Result<Vec<Endpoint>> {
    let spec = Spec { endpoint: spec.clone(), port: None, protocol: None };
    match end(cluster, &spec, namespace)?.end {
        End::Endpoints(ends) => Ok(ends),
        End::Service(service) => of_service(cluster, &service),
        End::HostPort(ends) => Ok(ends.into_iter().map(|(end, ..)| end).collect()),
        End::Outside(Outside::Host(host)) => {
            bail!("{} is not in the cluster; give its address or a range", host.name)
        }
        End::Outside(_) => bail!("addresses outside the cluster are no single endpoint"),
    }
}

/// Returns the name of the host outside the cluster that the text denotes; `None` if it denotes something else.
///
/// # Errors
/// As [`end`].
#[cfg_attr(
    not(all(target_os = "linux", feature = "lab")),
    expect(dead_code, reason = "the lab asks its own DNS servers")
)]
pub(crate) fn host(cluster: &Cluster, spec: &Spec, namespace: &str) -> Result<Option<String>> {
    Ok(match end(cluster, spec, namespace)?.end {
        End::Outside(Outside::Host(host)) => Some(host.name),
        _ => None,
    })
}

/// Returns the endpoints behind every port of a service.
///
/// # Errors
/// When there are none.
pub(crate) fn of_service(cluster: &Cluster, given: &ServiceEnd<'_>) -> Result<Vec<Endpoint>> {
    let found = palisade_names::service_targets(cluster, given.service, None, None)?;
    let ends: BTreeSet<Endpoint> = found.targets.into_iter().map(|target| target.end).collect();
    Ok(ends.into_iter().filter(|e| given.family.is_none_or(|f| Family::of(e.address()) == f)).collect())
}

/// Returns whether a spec stands for a service.
pub(crate) fn is_service(cluster: &Cluster, spec: &Spec, namespace: &str) -> bool {
    matches!(end(cluster, spec, namespace), Ok(Resolved { end: End::Service(_), .. }))
}

/// Returns the endpoints of pods, and those of every node if some use the host network of a node that isn't known; whether
/// there are such pods.
///
/// # Errors
/// The first one, if no pod has an endpoint.
fn possible_endpoints(cluster: &Cluster, pods: &[&Pod]) -> Result<(Vec<Endpoint>, bool)> {
    let anywhere = pods.iter().map(|pod| palisade_names::endpoints_on_any_node(cluster, pod));
    let Some(anywhere) = anywhere.into_iter().find(|ends| !ends.is_empty()) else {
        return Ok((endpoints_of_all(cluster, pods)?, false));
    };
    let mut ends = endpoints_of_all(cluster, pods).unwrap_or_default();
    let known: BTreeSet<Endpoint> = ends.iter().cloned().collect();
    ends.extend(anywhere.into_iter().filter(|end| !known.contains(end)));
    Ok((ends, true))
}

/// Returns the endpoints of pods, or the first error if none has an endpoint.
fn endpoints_of_all(cluster: &Cluster, pods: &[&Pod]) -> Result<Vec<Endpoint>> {
    let (mut out, mut first_error) = (Vec::new(), None);
    for pod in pods {
        match palisade_names::endpoints_of(cluster, pod) {
            Ok(ends) => out.extend(ends),
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    match first_error {
        Some(error) if out.is_empty() => Err(error.into()),
        _ => Ok(out),
    }
}

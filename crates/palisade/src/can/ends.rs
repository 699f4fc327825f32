//! Resolves one spec to endpoints, a service or the internet.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Result, bail};
use palisade_names::{EndpointKind, LookupError, Named, PortSpec, Way};
use palisade_policy::{Cluster, Endpoint, Family, Name, Node, Pod, Protocol, Service};

use super::spec::{EndpointSpec, ProtocolSpec, Spec};

/// What a spec resolves to.
#[derive(Debug)]
pub(crate) enum End<'a> {
    /// These endpoints.
    Endpoints(Vec<Endpoint>),
    /// A service.
    Service(ServiceEnd<'a>),
    /// The internet.
    Internet,
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

/// Resolves a spec. Returns the full spelling of its object too.
///
/// # Errors
/// When there is no such object, when it has no endpoint, or when nothing answers on the port of an address.
pub(crate) fn end<'a>(cluster: &'a Cluster, spec: &Spec, namespace: &str) -> Result<(String, End<'a>)> {
    let (namespace, kind, name) = match &spec.endpoint {
        EndpointSpec::Internet => return Ok(("internet".to_owned(), End::Internet)),
        EndpointSpec::Address(address) => return at_address(cluster, spec, *address),
        EndpointSpec::Named { namespace: own, kind, name } => {
            (own.as_deref().unwrap_or(namespace), *kind, name)
        }
    };
    let found = palisade_names::find(cluster, kind, namespace, name)
        .map_err(|e| with_service_hint(cluster, e, kind, namespace, name))?;
    let label = found.to_string();
    let end = match found {
        Named::Pod(pod) => End::Endpoints(palisade_names::endpoints_of(cluster, pod)?),
        Named::Workload(_, pods) => End::Endpoints(endpoints_of_all(cluster, &pods)?),
        Named::Service(service) => End::Service(ServiceEnd::named(service)),
        Named::Node(node) => match service_of_node_port(cluster, spec, node) {
            Some(service) => return Ok((through(&label, &service), End::Service(service))),
            None => End::Endpoints(endpoints_of_node(node)?),
        },
    };
    Ok((label, end))
}

/// Resolves an address. A connection to an address of a service is decided after its translation (SEMANTICS G-1).
fn at_address<'a>(cluster: &'a Cluster, spec: &Spec, address: IpAddr) -> Result<(String, End<'a>)> {
    let family = Some(Family::of(address));
    let of_service = |service: ServiceEnd<'a>| {
        let name = through(&address.to_string(), &service);
        (name, End::Service(ServiceEnd { family, ..service }))
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
            None => {
                let endpoint = cluster.endpoint(address);
                (endpoint.to_string(), End::Endpoints(vec![endpoint]))
            }
        });
    }
    match (&services[..], &spec.port) {
        ([], _) => {
            let endpoint = cluster.endpoint(address);
            Ok((endpoint.to_string(), End::Endpoints(vec![endpoint])))
        }
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
    match end(cluster, &spec, namespace)?.1 {
        End::Endpoints(ends) => Ok(ends),
        End::Service(service) => of_service(cluster, &service),
        End::Internet => bail!("the internet is not an endpoint"),
    }
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
    matches!(end(cluster, spec, namespace), Ok((_, End::Service(_))))
}

/// Adds a hint if only a service or node has this name, which must be given with its kind.
fn with_service_hint(
    cluster: &Cluster,
    error: LookupError,
    kind: Option<EndpointKind>,
    namespace: &str,
    name: &str,
) -> anyhow::Error {
    let hint = [EndpointKind::Service, EndpointKind::Node]
        .into_iter()
        .find_map(|k| palisade_names::find(cluster, Some(k), namespace, name).ok());
    match (hint, kind) {
        (Some(found), None) => anyhow::anyhow!(
            "there is no pod or workload `{name}` in namespace {namespace}; did you mean {found}?"
        ),
        _ => error.into(),
    }
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

//! What is behind a service: its pods, the addresses that EndpointSlices list, or the API server.

use std::sync::LazyLock;

use palisade_policy::{
    Cluster, Endpoint, Name, ObjectKey, Protocol, Service, ServiceEndpoints, ServicePort, TargetPort,
};

use crate::{
    endpoints::endpoints_of,
    routes::PortSpec,
    services::{NoBackend, backends, ports_of, selected},
};

/// Namespace and name of the API server's service, which every cluster has.
pub const API_SERVER: (&str, &str) = ("default", "kubernetes");

/// The port on which an API server listens, unless it is told otherwise.
const API_SERVER_PORT: u16 = 6443;

/// The labels of nodes that run the control plane; the second one is of releases before 1.24.
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

/// Returns the API server's service as every cluster makes it, for an input that doesn't have it.
#[must_use]
pub fn api_server() -> Service {
    Service {
        ports: vec![ServicePort {
            name: Some("https".into()),
            protocol: Protocol::Tcp,
            port: 443,
            target: TargetPort::Number(API_SERVER_PORT),
            node_port: None,
        }],
        ..Service::new(ObjectKey::new(API_SERVER.0, API_SERVER.1))
    }
}

/// The service of [`api_server`], for lookups that return a reference.
pub(crate) static API_SERVICE: LazyLock<Service> = LazyLock::new(api_server);

/// Returns whether this is the service of the API server.
#[must_use]
pub fn is_api_server(service: &ObjectKey) -> bool {
    (&*service.namespace, &*service.name) == API_SERVER
}

/// An endpoint of a service port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceTarget {
    /// The endpoint: a pod, a node or any other address.
    pub end: Endpoint,
    /// The protocol of the service port.
    pub protocol: Protocol,
    /// The port on the endpoint.
    pub port: u16,
    /// The port on the service.
    pub service_port: u16,
}

/// The endpoints of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTargets {
    /// The endpoints, one for each address and port. Never empty.
    pub targets: Vec<ServiceTarget>,
    /// They are those of the API server, taken from the labels of nodes and its usual port.
    pub guessed: bool,
}

/// Returns the endpoints to which a connection to a service may be translated: without `port` for every port of the
/// service, without `protocol` for every protocol. Connections to a headless service are not translated: of a number, only
/// the endpoints are looked up, whether the service has this port or not. `O(pods × ports)`.
///
/// # Errors
/// [`NoBackend`] with the reason if there are none.
pub fn service_targets(
    cluster: &Cluster,
    service: &Service,
    protocol: Option<Protocol>,
    port: Option<&PortSpec>,
) -> Result<ServiceTargets, NoBackend> {
    let key = || service.key.clone();
    if let Some(name) = &service.access.external_name {
        return Err(NoBackend::ExternalName(key(), name.clone()));
    }
    if let (true, Some(PortSpec::Number(port))) = (service.access.headless, port) {
        let targets = untranslated(cluster, service, protocol, *port)?;
        return nonempty(targets, false).ok_or_else(|| NoBackend::NoSelector(key()));
    }
    if service.selector.is_some() {
        let mut targets = Vec::new();
        for backend in backends(cluster, service, protocol, port)? {
            let (protocol, port, service_port) = (backend.protocol, backend.port, backend.service_port);
            // A backend has an endpoint.
            let ends = endpoints_of(cluster, backend.pod).unwrap_or_default();
            targets.extend(ends.into_iter().map(|end| ServiceTarget { end, protocol, port, service_port }));
        }
        return Ok(ServiceTargets { targets, guessed: false });
    }
    let ports = ports_of(service, protocol, port)?;
    if service.endpoints.iter().any(|e| !e.addresses.is_empty()) {
        let targets = ports.iter().flat_map(|port| listed(cluster, &service.endpoints, port)).collect();
        return nonempty(targets, false).ok_or_else(|| NoBackend::NoListedPort(key()));
    }
    if is_api_server(&service.key) {
        let targets = ports.iter().flat_map(|port| control_plane(cluster, port)).collect();
        return nonempty(targets, true).ok_or(NoBackend::ApiServer);
    }
    Err(NoBackend::NoSelector(key()))
}

/// The endpoints of a headless service on a port of their own: its name is another name for their addresses.
fn untranslated(
    cluster: &Cluster,
    service: &Service,
    protocol: Option<Protocol>,
    port: u16,
) -> Result<Vec<ServiceTarget>, NoBackend> {
    let ends: Vec<Endpoint> = if service.selector.is_some() {
        let pods = selected(cluster, service, |pod| endpoints_of(cluster, pod).is_ok())?;
        pods.into_iter().flat_map(|pod| endpoints_of(cluster, pod).unwrap_or_default()).collect()
    } else {
        let addresses = service.endpoints.iter().flat_map(|listed| &listed.addresses);
        addresses.map(|address| cluster.endpoint(*address)).collect()
    };
    let is_meant = |p: &&ServicePort| p.port == port || p.target == TargetPort::Number(port);
    let mut protocols: Vec<Protocol> = match protocol {
        Some(protocol) => vec![protocol],
        None => service.ports.iter().filter(is_meant).map(|p| p.protocol).collect(),
    };
    if protocols.is_empty() {
        protocols.push(Protocol::Tcp);
    }
    let target = |end: &Endpoint| {
        let end = end.clone();
        protocols.iter().map(move |protocol| ServiceTarget {
            end: end.clone(),
            protocol: *protocol,
            port,
            service_port: port,
        })
    };
    Ok(ends.iter().flat_map(target).collect())
}

fn nonempty(mut targets: Vec<ServiceTarget>, guessed: bool) -> Option<ServiceTargets> {
    targets.sort();
    targets.dedup();
    (!targets.is_empty()).then_some(ServiceTargets { targets, guessed })
}

/// The endpoints that are listed for a service port. Both have the same name, or none.
fn listed(cluster: &Cluster, endpoints: &[ServiceEndpoints], port: &ServicePort) -> Vec<ServiceTarget> {
    let mut out = Vec::new();
    for one in endpoints {
        let same = |name: &Option<Name>| name.as_ref().filter(|n| !n.is_empty()) == port.name.as_ref();
        let numbers = one.ports.iter().filter(|p| p.protocol == port.protocol && same(&p.name));
        for number in numbers.map(|p| p.port.unwrap_or(port.port)) {
            out.extend(one.addresses.iter().map(|address| ServiceTarget {
                end: cluster.endpoint(*address),
                protocol: port.protocol,
                port: number,
                service_port: port.port,
            }));
        }
    }
    out
}

/// The addresses of the nodes that run the control plane.
fn control_plane(cluster: &Cluster, port: &ServicePort) -> Vec<ServiceTarget> {
    let number = match port.target {
        TargetPort::Number(number) => number,
        TargetPort::Name(_) => API_SERVER_PORT,
    };
    let nodes =
        cluster.nodes.values().filter(|n| CONTROL_PLANE.iter().any(|key| n.labels.get(key).is_some()));
    let of_node = |node: &palisade_policy::Node| {
        let end = |address: &std::net::IpAddr| Endpoint::Node { name: node.name.clone(), address: *address };
        node.addresses.iter().map(end).collect::<Vec<_>>()
    };
    let target = |end| ServiceTarget { end, protocol: port.protocol, port: number, service_port: port.port };
    nodes.flat_map(of_node).map(target).collect()
}

#[cfg(test)]
mod tests {
    use palisade_policy::{EndpointPort, Labels};

    use super::*;
    use crate::sample::{cluster, service};

    fn ends(c: &Cluster, s: &Service) -> Result<Vec<String>, String> {
        let found = service_targets(c, s, None, None).map_err(|e| e.to_string())?;
        Ok(found.targets.iter().map(|t| format!("{} {}→{}", t.end, t.service_port, t.port)).collect())
    }

    #[test]
    fn listed_endpoints_are_pods_nodes_or_other_addresses() {
        let mut s = service(TargetPort::Number(8080), None);
        s.endpoints = vec![ServiceEndpoints {
            addresses: ["10.0.0.1", "192.0.2.1", "198.51.100.9"].map(|a| a.parse().unwrap()).to_vec(),
            ports: vec![EndpointPort { name: Some("main".into()), protocol: Protocol::Tcp, port: Some(9) }],
        }];
        let found = ends(&cluster(), &s).unwrap();
        assert_eq!(found, ["shop/web-1 (10.0.0.1) 80→9", "node n1 (192.0.2.1) 80→9", "198.51.100.9 80→9"]);
        s.endpoints[0].ports[0].name = None;
        assert!(ends(&cluster(), &s).unwrap_err().contains("none of them has a port"));
        s.ports[0].name = None;
        assert_eq!(ends(&cluster(), &s).unwrap().len(), 3);
    }

    #[test]
    fn the_api_server_is_on_the_control_plane_or_unknown() {
        let mut c = cluster();
        assert!(ends(&c, &api_server()).unwrap_err().contains("give its EndpointSlice"));
        let node = c.nodes.get_mut("n1").unwrap();
        node.labels = Labels::from_iter([(CONTROL_PLANE[0], "")]);
        assert_eq!(ends(&c, &api_server()).unwrap(), ["node n1 (192.0.2.1) 443→6443"]);
        assert!(service_targets(&c, &api_server(), None, None).unwrap().guessed);
    }

    #[test]
    fn nothing_translates_a_headless_service() {
        let web = Some(palisade_policy::Selector::of_labels([("app", "web")]));
        let mut s = service(TargetPort::Number(8080), web);
        let c = cluster();
        let asked = |s: &Service, protocol, port| {
            let found = service_targets(&c, s, protocol, Some(&port)).map_err(|e| e.to_string())?;
            Ok::<_, String>(found.targets.iter().map(|t| (t.protocol, t.port)).collect::<Vec<_>>())
        };
        let ports = |protocol, port| vec![(protocol, port); 2];
        assert_eq!(asked(&s, None, PortSpec::Number(80)), Ok(ports(Protocol::Tcp, 8080)));
        s.access.headless = true;
        assert_eq!(asked(&s, None, PortSpec::Number(80)), Ok(ports(Protocol::Tcp, 80)));
        assert_eq!(asked(&s, None, PortSpec::Number(8080)), Ok(ports(Protocol::Tcp, 8080)));
        assert_eq!(asked(&s, Some(Protocol::Udp), PortSpec::Number(9)), Ok(ports(Protocol::Udp, 9)));
        // A name is looked up by an SRV record, which has the port of the endpoints.
        assert_eq!(asked(&s, None, PortSpec::Name("main".into())), Ok(ports(Protocol::Tcp, 8080)));
        s.selector = None;
        assert!(asked(&s, None, PortSpec::Number(80)).is_err_and(|e| e.contains("has no selector")));
        let addresses = vec!["198.51.100.9".parse().unwrap()];
        s.endpoints = vec![ServiceEndpoints { addresses, ports: Vec::new() }];
        assert_eq!(asked(&s, None, PortSpec::Number(80)), Ok(vec![(Protocol::Tcp, 80)]));
    }

    #[test]
    fn an_external_name_is_a_host_name() {
        let mut s = service(TargetPort::Number(1), None);
        s.access.external_name = Some("db.example.com".into());
        assert!(ends(&cluster(), &s).unwrap_err().contains("stands for the host name db.example.com"));
    }
}

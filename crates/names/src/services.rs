//! The pods and ports behind a service.

use std::collections::BTreeSet;

use palisade_policy::{Cluster, Name, ObjectKey, Phase, Pod, Protocol, Service, ServicePort, TargetPort};

use crate::{
    endpoints::endpoints_of,
    routes::{PortSpec, RouteBackend, RoutePort},
};

/// A pod behind a port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The protocol of the service port.
    pub protocol: Protocol,
    /// The port on the pod.
    pub port: u16,
    /// The port on the service.
    pub service_port: u16,
}

/// Why a service has no backends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBackend {
    /// There is no such service.
    #[error("there is no service {0}")]
    NoService(ObjectKey),
    /// It has no selector.
    #[error(
        "service {service} has no selector: its endpoints are managed by hand and are not in the input; give its EndpointSlice \
         (label kubernetes.io/service-name: {name}), or name the pods or addresses behind it instead",
        service = .0, name = .0.name
    )]
    NoSelector(ObjectKey),
    /// Endpoints are listed for it, but not on this port.
    #[error(
        "service {0} has endpoints, but none of them has a port with the name and protocol of the service's port: their \
         ports must have the same names"
    )]
    NoListedPort(ObjectKey),
    /// It is the API server's, whose address is unknown.
    #[error(
        "the API server's address is not in the input; give its EndpointSlice (`kubectl get endpointslice -n default \
         -o yaml`), or Nodes with the label node-role.kubernetes.io/control-plane"
    )]
    ApiServer,
    /// It stands for a host name.
    #[error("service {0} stands for the host name {1}: it has no endpoints in the cluster")]
    ExternalName(ObjectKey, Name),
    /// No running pod matches the selector.
    #[error("service {service} has no endpoints: no running pod in namespace {} matches its selector {selector}", service.namespace)]
    NoPods {
        /// The service.
        service: ObjectKey,
        /// Its selector.
        selector: String,
    },
    /// It doesn't have this port.
    #[error("service {service} has no port {port}; it has {}{cure}", if known.is_empty() { "none" } else { known })]
    NoPort {
        /// The service.
        service: ObjectKey,
        /// The port.
        port: String,
        /// Its ports.
        known: String,
        /// What was probably meant; empty if nothing was found.
        cure: String,
    },
    /// No pod declares the container port of the service port.
    #[error(
        "service {service} has no endpoints on port {port}: none of its {pods} pods declares a {protocol} container port \
         named `{name}`"
    )]
    NoNamedPort {
        /// The service.
        service: ObjectKey,
        /// The service port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// The target port name.
        name: Name,
        /// The number of pods that match the selector.
        pods: usize,
    },
}

/// Returns the pods and ports to which a connection to a service may be translated: without `port` for every port of
/// the service, without `protocol` for every protocol. A pod that doesn't declare a named target port is no backend of
/// that port, as in the EndpointSlice controller. `O(pods of the namespace × ports)`.
///
/// # Errors
/// [`NoBackend`] with the reason if there are none.
pub fn backends<'a>(
    cluster: &'a Cluster,
    service: &Service,
    protocol: Option<Protocol>,
    port: Option<&PortSpec>,
) -> Result<Vec<Backend<'a>>, NoBackend> {
    let port = port.map_or(RoutePort::Any, |port| RoutePort::Service(port.clone()));
    behind(cluster, service, protocol, &port, true, |pod| endpoints_of(cluster, pod).is_ok())
}

/// Returns the pods and ports of a route's backend. Pods that haven't finished count even without an address, which
/// they may get later. `O(pods of the namespace × ports)`.
///
/// # Errors
/// [`NoBackend`] with the reason if there are none.
pub fn route_backends<'a>(
    cluster: &'a Cluster,
    backend: &RouteBackend,
) -> Result<Vec<Backend<'a>>, NoBackend> {
    let service = cluster.services.get(&backend.service);
    let service = service.ok_or_else(|| NoBackend::NoService(backend.service.clone()))?;
    let lives = |pod: &Pod| !matches!(pod.phase, Phase::Succeeded | Phase::Failed);
    behind(cluster, service, Some(backend.protocol), &backend.port, false, lives)
}

/// Returns the pods that a service selects and that count.
///
/// # Errors
/// [`NoBackend::NoSelector`], and [`NoBackend::NoPods`] if there are none.
pub(crate) fn selected<'a>(
    cluster: &'a Cluster,
    service: &Service,
    counts: impl Fn(&Pod) -> bool,
) -> Result<Vec<&'a Pod>, NoBackend> {
    let key = || service.key.clone();
    if let Some(name) = &service.access.external_name {
        return Err(NoBackend::ExternalName(key(), name.clone()));
    }
    let Some(selector) = &service.selector else { return Err(NoBackend::NoSelector(key())) };
    let pods: Vec<&Pod> = cluster
        .pods
        .in_namespace(&service.key.namespace)
        .filter(|p| selector.matches(&p.labels) && counts(p))
        .collect();
    if pods.is_empty() {
        return Err(NoBackend::NoPods { service: key(), selector: selector.to_string() });
    }
    Ok(pods)
}

/// With `each`, every port must have backends; otherwise one is enough.
fn behind<'a>(
    cluster: &'a Cluster,
    service: &Service,
    protocol: Option<Protocol>,
    port: &RoutePort,
    each: bool,
    counts: impl Fn(&Pod) -> bool,
) -> Result<Vec<Backend<'a>>, NoBackend> {
    let key = || service.key.clone();
    let pods = selected(cluster, service, counts)?;
    let ports = matching_ports(service, protocol, port, &pods)?;
    let (mut out, mut nowhere) = (Vec::new(), None);
    for p in ports {
        let before = out.len();
        for &pod in &pods {
            let numbers: BTreeSet<u16> = match &p.target {
                TargetPort::Number(n) => BTreeSet::from([*n]),
                TargetPort::Name(name) => pod.named_ports(name, Some(p.protocol)).map(|(_, n)| n).collect(),
            };
            out.extend(numbers.into_iter().map(|port| Backend {
                pod,
                protocol: p.protocol,
                port,
                service_port: p.port,
            }));
        }
        if let (true, TargetPort::Name(name)) = (out.len() == before, &p.target) {
            let (port, protocol, name) = (p.port, p.protocol, name.clone());
            let error = NoBackend::NoNamedPort { service: key(), port, protocol, name, pods: pods.len() };
            if each {
                return Err(error);
            }
            nowhere.get_or_insert(error);
        }
    }
    if let Some(error) = nowhere.filter(|_| out.is_empty()) {
        return Err(error);
    }
    if let RoutePort::Target(PortSpec::Number(route_port)) = port {
        out.retain(|backend| backend.port == *route_port);
        if out.is_empty() {
            return Err(no_port(service, protocol, port, &pods));
        }
    }
    Ok(out)
}

/// Returns the ports of a service that fit, or every port.
///
/// # Errors
/// [`NoBackend::NoPort`] if there is none.
pub(crate) fn ports_of<'a>(
    service: &'a Service,
    protocol: Option<Protocol>,
    port: Option<&PortSpec>,
) -> Result<Vec<&'a ServicePort>, NoBackend> {
    let port = port.map_or(RoutePort::Any, |port| RoutePort::Service(port.clone()));
    matching_ports(service, protocol, &port, &[])
}

fn matching_ports<'a>(
    service: &'a Service,
    protocol: Option<Protocol>,
    port: &RoutePort,
    pods: &[&Pod],
) -> Result<Vec<&'a ServicePort>, NoBackend> {
    let of_protocol = |p: &&ServicePort| protocol.is_none_or(|q| p.protocol == q);
    let ports: Vec<_> = service.ports.iter().filter(of_protocol).filter(|p| may_mean(port, p)).collect();
    if ports.is_empty() { Err(no_port(service, protocol, port, pods)) } else { Ok(ports) }
}

fn no_port(service: &Service, protocol: Option<Protocol>, port: &RoutePort, pods: &[&Pod]) -> NoBackend {
    let given = match (port, protocol) {
        (RoutePort::Service(port) | RoutePort::Target(port), Some(protocol)) => format!("{port}/{protocol}"),
        (RoutePort::Service(port) | RoutePort::Target(port), None) => port.to_string(),
        (RoutePort::Any, Some(protocol)) => format!("with {protocol}"),
        (RoutePort::Any, None) => "at all".to_owned(),
    };
    let known = service.ports.iter().map(described).collect::<Vec<_>>().join(", ");
    let (RoutePort::Service(asked) | RoutePort::Target(asked)) = port else {
        return NoBackend::NoPort { service: service.key.clone(), port: given, known, cure: String::new() };
    };
    // A port of the pods, given as if the service had it, is the most frequent mistake.
    let means = service.ports.iter().find(|p| match (&p.target, asked) {
        (TargetPort::Number(target), PortSpec::Number(n)) => target == n,
        (TargetPort::Name(target), PortSpec::Name(name)) => target == name,
        (TargetPort::Name(target), PortSpec::Number(n)) => {
            pods.iter().any(|pod| pod.named_ports(target, Some(p.protocol)).any(|(_, port)| port == *n))
        }
        _ => false,
    });
    let cure = means.map(|p| format!("; {asked} is the port of its pods: use the service's port {}", p.port));
    NoBackend::NoPort { service: service.key.clone(), port: given, known, cure: cure.unwrap_or_default() }
}

/// Formats a port of a service: `80/TCP`, `80/TCP (http)`.
fn described(port: &ServicePort) -> String {
    let name = port.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    format!("{}/{}{name}", port.port, port.protocol)
}

/// Returns whether `route_port` may refer to this port. Each pod resolves the number of a named target port.
fn may_mean(route_port: &RoutePort, port: &ServicePort) -> bool {
    let is_called = |name: &Name| port.name.as_ref() == Some(name);
    match route_port {
        RoutePort::Any => true,
        RoutePort::Service(PortSpec::Number(n)) => port.port == *n,
        RoutePort::Service(PortSpec::Name(name)) => is_called(name),
        RoutePort::Target(PortSpec::Number(n)) => match &port.target {
            TargetPort::Number(target) => target == n,
            TargetPort::Name(_) => true,
        },
        RoutePort::Target(PortSpec::Name(name)) => {
            is_called(name) || matches!(&port.target, TargetPort::Name(target) if target == name)
        }
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::Selector;

    use super::*;
    use crate::sample::{cluster, service};

    #[test]
    fn a_service_has_the_ports_of_its_pods_or_an_error() {
        let mut c = cluster();
        let web = Some(Selector::of_labels([("app", "web")]));
        let ports = |c: &Cluster, s: &Service| {
            let all = backends(c, s, None, Some(&PortSpec::Number(80)));
            all.map(|b| b.iter().map(|b| (b.pod.key.name.to_string(), b.port)).collect::<Vec<_>>())
        };
        let named = service(TargetPort::Name("http".into()), web.clone());
        assert_eq!(ports(&c, &named).unwrap(), [("web-1".to_owned(), 8080), ("web-2".to_owned(), 8080)]);
        let bare = c.pods[&ObjectKey::new("shop", "web-2")].clone();
        c.pods.insert(Pod { ports: vec![].into(), ..bare });
        assert_eq!(
            ports(&c, &named).unwrap(),
            [("web-1".to_owned(), 8080)],
            "no endpoint without the named port"
        );
        let missing = service(TargetPort::Name("nope".into()), web);
        assert!(ports(&c, &missing).unwrap_err().to_string().contains("none of its 2 pods declares"));
        assert!(matches!(ports(&c, &service(TargetPort::Number(1), None)), Err(NoBackend::NoSelector(_))));
        let nobody = Some(Selector::of_labels([("app", "nobody")]));
        assert!(matches!(ports(&c, &service(TargetPort::Number(1), nobody)), Err(NoBackend::NoPods { .. })));
        let error = backends(&c, &named, Some(Protocol::Udp), Some(&PortSpec::Number(80))).unwrap_err();
        assert_eq!(error.to_string(), "service shop/web has no port 80/UDP; it has 80/TCP (main)");
        assert_eq!(backends(&c, &named, None, Some(&PortSpec::Name("main".into()))).unwrap().len(), 1);
    }
}

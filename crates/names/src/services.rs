//! The pods and ports behind a service.

use std::{collections::BTreeSet, net::IpAddr};

use palisade_policy::{Cluster, Name, ObjectKey, Phase, Pod, Protocol, Service, ServicePort, TargetPort};

use crate::{
    endpoints::endpoints_of,
    routes::{PortSpec, RouteBackend, RoutePort},
};

/// Returns the service with a cluster IP. `O(services)`.
#[must_use]
pub fn service_at(cluster: &Cluster, address: IpAddr) -> Option<&Service> {
    cluster.services.values().find(|s| s.addresses.contains(&address))
}

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
        "service {0} has no selector: its endpoints are managed by hand and are not in the input; name the pods or \
         addresses behind it instead"
    )]
    NoSelector(ObjectKey),
    /// No running pod matches the selector.
    #[error("service {service} has no endpoints: no running pod in namespace {} matches its selector {selector}", service.namespace)]
    NoPods {
        /// The service.
        service: ObjectKey,
        /// Its selector.
        selector: String,
    },
    /// It doesn't have this port.
    #[error("service {service} has no port {port}; it has {}", if known.is_empty() { "none" } else { known })]
    NoPort {
        /// The service.
        service: ObjectKey,
        /// The port.
        port: String,
        /// Its ports.
        known: String,
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
    let Some(selector) = &service.selector else { return Err(NoBackend::NoSelector(key())) };
    let pods: Vec<&Pod> = cluster
        .pods
        .in_namespace(&service.key.namespace)
        .filter(|p| selector.matches(&p.labels) && counts(p))
        .collect();
    if pods.is_empty() {
        return Err(NoBackend::NoPods { service: key(), selector: selector.to_string() });
    }
    let of_protocol = |p: &&ServicePort| protocol.is_none_or(|q| p.protocol == q);
    let ports: Vec<_> = service.ports.iter().filter(of_protocol).filter(|p| may_mean(port, p)).collect();
    let no_port = || {
        let known: Vec<String> = service.ports.iter().map(|p| format!("{}/{}", p.port, p.protocol)).collect();
        let port = match (port, protocol) {
            (RoutePort::Service(port) | RoutePort::Target(port), Some(protocol)) => {
                format!("{port}/{protocol}")
            }
            (RoutePort::Service(port) | RoutePort::Target(port), None) => port.to_string(),
            (RoutePort::Any, Some(protocol)) => format!("with {protocol}"),
            (RoutePort::Any, None) => "at all".to_owned(),
        };
        NoBackend::NoPort { service: key(), port, known: known.join(", ") }
    };
    if ports.is_empty() {
        return Err(no_port());
    }
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
            return Err(no_port());
        }
    }
    Ok(out)
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
        assert_eq!(error.to_string(), "service shop/web has no port 80/UDP; it has 80/TCP");
        assert_eq!(backends(&c, &named, None, Some(&PortSpec::Name("main".into()))).unwrap().len(), 1);
    }
}

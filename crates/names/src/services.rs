//! From a service to the pods and ports behind it.

use std::{collections::BTreeSet, net::IpAddr};

use palisade_policy::{Cluster, Name, ObjectKey, Phase, Pod, Protocol, Service, ServicePort, TargetPort};

use crate::{
    endpoints::endpoints_of,
    routes::{PortSpec, RouteBackend, RoutePort},
};

/// The service that has a cluster address. `O(services)`.
#[must_use]
pub fn service_at(cluster: &Cluster, address: IpAddr) -> Option<&Service> {
    cluster.services.values().find(|s| s.addresses.contains(&address))
}

/// One pod behind one port of a service.
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

/// Why a service leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBackend {
    /// There is no such service.
    #[error("there is no service {0}")]
    NoService(ObjectKey),
    /// It has no selector.
    #[error(
        "service {0} has no selector: its endpoints are kept by hand and are not part of what was read; ask for the \
         pods or addresses behind it instead"
    )]
    NoSelector(ObjectKey),
    /// No live pod fits the selector.
    #[error("service {service} has no endpoints: no running pod in namespace {} fits its selector {selector}", service.namespace)]
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
        /// The port asked for.
        port: String,
        /// Its ports.
        known: String,
    },
    /// No pod declares the container port that the service port leads to.
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
        /// How many pods were looked at.
        pods: usize,
    },
}

/// The pods and ports that a connection to a service may be translated to; without `port`, for every port of the
/// service, and without `protocol`, for every protocol. A pod that doesn't declare a named target port is no endpoint
/// of that port, as in the API's endpoint controller. `O(pods of the namespace × ports)`.
///
/// # Errors
/// [`NoBackend`] if there are none, with the reason.
pub fn backends<'a>(
    cluster: &'a Cluster,
    service: &Service,
    protocol: Option<Protocol>,
    port: Option<&PortSpec>,
) -> Result<Vec<Backend<'a>>, NoBackend> {
    let port = port.map_or(RoutePort::Any, |port| RoutePort::Service(port.clone()));
    behind(cluster, service, protocol, &port, true, |pod| endpoints_of(cluster, pod).is_ok())
}

/// The pods and ports that a route's backend stands for, of pods that haven't finished; whether they have an address
/// is not asked, since that may come later. `O(pods of the namespace × ports)`.
///
/// # Errors
/// [`NoBackend`] if there are none, with the reason.
pub fn route_backends<'a>(
    cluster: &'a Cluster,
    backend: &RouteBackend,
) -> Result<Vec<Backend<'a>>, NoBackend> {
    let service = cluster.services.get(&backend.service);
    let service = service.ok_or_else(|| NoBackend::NoService(backend.service.clone()))?;
    let lives = |pod: &Pod| !matches!(pod.phase, Phase::Succeeded | Phase::Failed);
    behind(cluster, service, Some(backend.protocol), &backend.port, false, lives)
}

/// `each`: whether every port must lead somewhere, or one that does is enough.
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
    if let RoutePort::Target(PortSpec::Number(wanted)) = port {
        out.retain(|backend| backend.port == *wanted);
        if out.is_empty() {
            return Err(no_port());
        }
    }
    Ok(out)
}

/// Whether `wanted` may mean this port. Which number a target's name stands for is each pod's to say.
fn may_mean(wanted: &RoutePort, port: &ServicePort) -> bool {
    let is_called = |name: &Name| port.name.as_ref() == Some(name);
    match wanted {
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
    fn a_service_leads_to_the_ports_of_its_pods_or_says_why_not() {
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

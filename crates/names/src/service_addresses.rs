//! The addresses that stand for a service: cluster IPs, external IPs, addresses of load balancers, and node ports.

use std::net::IpAddr;

use palisade_policy::{Cluster, ContainerPort, Phase, Pod, Protocol, Service, ServicePort};

use crate::routes::PortSpec;

/// How an address stands for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// It is a cluster IP, or the service was given by name.
    ClusterIp,
    /// It is one of `spec.externalIPs`.
    ExternalIp,
    /// It is an address of the service's load balancer.
    LoadBalancer,
    /// It is an address of a node, and the port is a node port.
    NodePort,
}

impl Way {
    /// Returns whether connections of clients outside the cluster come this way.
    #[must_use]
    pub fn is_external(self) -> bool {
        self != Self::ClusterIp
    }
}

/// Returns the services for which an address stands whatever the port, sorted. Several services may share an external IP or
/// the address of a load balancer. `O(services)`.
#[must_use]
pub fn services_at(cluster: &Cluster, address: IpAddr) -> Vec<(&Service, Way)> {
    let way = |service: &Service| {
        if service.addresses.contains(&address) {
            Some(Way::ClusterIp)
        } else if service.access.external_ips.contains(&address) {
            Some(Way::ExternalIp)
        } else {
            service.access.load_balancer.contains(&address).then_some(Way::LoadBalancer)
        }
    };
    cluster.services.values().filter_map(|service| Some((service, way(service)?))).collect()
}

/// Returns the service with a cluster IP, external IP or address of its load balancer. `O(services)`.
#[must_use]
pub fn service_at(cluster: &Cluster, address: IpAddr) -> Option<&Service> {
    services_at(cluster, address).into_iter().min_by_key(|(_, way)| *way).map(|(service, _)| service)
}

/// Returns the service with a load balancer of this host name. `O(services)`.
#[must_use]
pub fn service_of_host<'a>(cluster: &'a Cluster, host: &str) -> Option<&'a Service> {
    let host = host.trim_end_matches('.');
    cluster.services.values().find(|s| {
        s.access.host_names.iter().any(|name| name.trim_end_matches('.').eq_ignore_ascii_case(host))
    })
}

/// Returns the service that has a node port, and its port. `O(services)`.
#[must_use]
pub fn node_port(
    cluster: &Cluster,
    protocol: Option<Protocol>,
    port: u16,
) -> Option<(&Service, &ServicePort)> {
    let of_protocol = |p: &&ServicePort| protocol.is_none_or(|q| p.protocol == q);
    cluster.services.values().find_map(|service| {
        let found = service.ports.iter().filter(of_protocol).find(|p| p.node_port == Some(port))?;
        Some((service, found))
    })
}

/// Returns the pods to which connections to a port of a node are translated because of a `hostPort`, with the port that has
/// it. A pod without a node may be on any. `O(pods × ports)`.
#[must_use]
pub fn host_port<'a>(
    cluster: &'a Cluster,
    node: &str,
    protocol: Option<Protocol>,
    port: u16,
) -> Vec<(&'a Pod, &'a ContainerPort)> {
    let lives = |pod: &&Pod| !pod.host_network && !matches!(pod.phase, Phase::Succeeded | Phase::Failed);
    let is_on = |pod: &&Pod| pod.node.as_ref().is_none_or(|name| **name == *node);
    let has = move |p: &&ContainerPort| {
        p.host_port == Some(port) && protocol.is_none_or(|protocol| p.protocol == protocol)
    };
    let pods = cluster.pods.values().filter(lives).filter(is_on);
    pods.flat_map(|pod| pod.ports.iter().filter(has).map(move |port| (pod, port))).collect()
}

/// Returns whether a service has this port.
#[must_use]
pub fn has_port(service: &Service, protocol: Option<Protocol>, port: &PortSpec) -> bool {
    service.ports.iter().filter(|p| protocol.is_none_or(|q| p.protocol == q)).any(|p| match port {
        PortSpec::Number(number) => p.port == *number,
        PortSpec::Name(name) => p.name.as_ref() == Some(name),
    })
}

#[cfg(test)]
mod tests {
    use palisade_policy::TargetPort;

    use super::*;
    use crate::sample::{cluster, service};

    #[test]
    fn a_host_port_stands_for_the_pods_that_run_or_may_run_on_the_node() {
        let mut c = cluster();
        let with = |c: &mut Cluster, name: &str, change: &dyn Fn(&mut Pod)| {
            let mut pod = c.pods[&palisade_policy::ObjectKey::new("shop", name)].clone();
            pod.node = Some("n1".into());
            let port = ContainerPort { host_port: Some(8443), ..pod.ports[0].clone() };
            pod.ports = vec![port].into();
            change(&mut pod);
            c.pods.insert(pod);
        };
        let found = |c: &Cluster, node: &str, protocol| {
            let found = host_port(c, node, protocol, 8443);
            found.iter().map(|(pod, port)| format!("{} {}", pod.key.name, port.port)).collect::<Vec<_>>()
        };
        assert!(found(&c, "n1", None).is_empty());
        with(&mut c, "web-1", &|_| {});
        assert_eq!(found(&c, "n1", Some(Protocol::Tcp)), ["web-1 8080"]);
        assert!(found(&c, "n2", None).is_empty() && found(&c, "n1", Some(Protocol::Udp)).is_empty());
        with(&mut c, "web-1", &|pod| pod.node = None);
        assert_eq!(found(&c, "n2", None), ["web-1 8080"]);
        for change in [|pod: &mut Pod| pod.host_network = true, |pod: &mut Pod| pod.phase = Phase::Failed] {
            with(&mut c, "web-1", &change);
            assert!(found(&c, "n1", None).is_empty());
        }
    }

    #[test]
    fn every_address_of_a_service_stands_for_it() {
        let mut c = cluster();
        let mut s = service(TargetPort::Number(1), None);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        s.addresses = vec![ip("10.96.0.1")];
        s.access.external_ips = vec![ip("203.0.113.60")];
        s.access.load_balancer = vec![ip("203.0.113.50"), ip("203.0.113.60")];
        s.access.host_names = vec!["lb.example.com".into()];
        s.ports[0].node_port = Some(30_080);
        c.services.insert(s.key.clone(), s.clone());
        let way = |text: &str| services_at(&c, ip(text)).first().map(|(_, way)| *way);
        assert_eq!(way("10.96.0.1"), Some(Way::ClusterIp));
        assert_eq!(way("203.0.113.60"), Some(Way::ExternalIp));
        assert_eq!(way("203.0.113.50"), Some(Way::LoadBalancer));
        assert_eq!(way("203.0.113.51"), None);
        assert!(service_of_host(&c, "LB.example.com.").is_some());
        assert!(node_port(&c, Some(Protocol::Tcp), 30_080).is_some());
        assert!(node_port(&c, Some(Protocol::Udp), 30_080).is_none());
        assert!(has_port(&s, None, &PortSpec::Name("main".into())));
        assert!(!has_port(&s, None, &PortSpec::Number(81)));
    }
}

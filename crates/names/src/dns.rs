//! The DNS servers of a cluster.
//!
//! No API says which pods serve DNS. The Services have fixed names in practice, since kubelets and installers refer to
//! them, and the pods have well-known labels.

use palisade_policy::{Cluster, Name, ObjectKey, Pod, Protocol};

use crate::{routes::PortSpec, services::backends};

/// The Services through which pods reach DNS: kubeadm and most distributions, distributions that call it after its
/// program, and OpenShift.
const SERVICES: [(&str, &str); 4] = [
    ("kube-system", "kube-dns"),
    ("kube-system", "coredns"),
    ("kube-system", "rke2-coredns-rke2-coredns"),
    ("openshift-dns", "dns-default"),
];

/// Labels of DNS servers, in any of the namespaces of [`SERVICES`].
const LABELS: [(&str, &str); 4] = [
    ("k8s-app", "kube-dns"),
    ("k8s-app", "coredns"),
    ("app.kubernetes.io/name", "coredns"),
    ("dns.operator.openshift.io/daemonset-dns", "default"),
];

/// The port of DNS.
pub const DNS_PORT: u16 = 53;

/// A pod that serves DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsServer<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its port, on UDP and TCP: that to which the Service forwards port 53.
    pub port: u16,
}

/// Returns the pods that serve DNS, sorted; none if the input doesn't have them. `O(pods of a few namespaces)`.
#[must_use]
pub fn dns_servers(cluster: &Cluster) -> Vec<DnsServer<'_>> {
    for (namespace, name) in SERVICES {
        let Some(service) = cluster.services.get(&ObjectKey::new(namespace, name)) else { continue };
        let port = PortSpec::Number(DNS_PORT);
        let Ok(found) = backends(cluster, service, Some(Protocol::Udp), Some(&port)) else { continue };
        let mut servers: Vec<DnsServer<'_>> =
            found.iter().map(|backend| DnsServer { pod: backend.pod, port: backend.port }).collect();
        servers.sort_by(|a, b| a.pod.key.cmp(&b.pod.key));
        servers.dedup();
        if !servers.is_empty() {
            return servers;
        }
    }
    let is_server = |pod: &&Pod| {
        SERVICES.iter().any(|(namespace, _)| *pod.key.namespace == **namespace)
            && LABELS.iter().any(|(key, value)| pod.labels.get(key) == Some(*value))
    };
    let pods = cluster.pods.values().filter(|pod| pod.is_running()).filter(is_server);
    pods.map(|pod| DnsServer { pod, port: DNS_PORT }).collect()
}

/// Returns the addresses of the Services through which pods reach DNS: those in the first namespace that has one. The others exist only in some
/// clusters, and elsewhere users who may create namespaces could have one.
pub fn dns_service_addresses(cluster: &Cluster) -> impl Iterator<Item = std::net::IpAddr> {
    let services = SERVICES
        .iter()
        .filter_map(|(namespace, name)| cluster.services.get(&ObjectKey::new(*namespace, *name)));
    let namespace = services.clone().next().map(|service| service.key.namespace.clone());
    let services = services.filter(move |service| Some(&service.key.namespace) == namespace.as_ref());
    services.flat_map(|service| service.addresses.iter().copied())
}

/// Whether a Service with this name is one of those through which pods reach DNS, in some clusters.
#[must_use]
pub fn is_dns_service(key: &ObjectKey) -> bool {
    SERVICES.iter().any(|(namespace, name)| *key.namespace == **namespace && *key.name == **name)
}

/// Returns a DNS server as most clusters have it, without an address, for input that has none: a pod `k8s-app=kube-dns`
/// in namespace kube-system.
#[must_use]
pub fn usual_dns_server() -> Pod {
    Pod::new(
        ObjectKey::new(SERVICES[0].0, "kube-dns"),
        [LABELS[0]].map(|(k, v)| (Name::from(k), Name::from(v))).into_iter().collect(),
        Vec::new(),
    )
}

#[cfg(test)]
mod tests {
    use palisade_policy::{Selector, Service, ServicePort, TargetPort};

    use super::*;

    #[test]
    fn servers_are_found_by_service_and_by_label() {
        let mut cluster = Cluster::default();
        assert!(dns_servers(&cluster).is_empty());
        let named = |name: &str, label: (&str, &str)| Pod {
            key: ObjectKey::new("kube-system", name),
            labels: [label].map(|(k, v)| (Name::from(k), Name::from(v))).into_iter().collect(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            ..usual_dns_server()
        };
        cluster.pods.insert(named("coredns-1", ("k8s-app", "kube-dns")));
        cluster.pods.insert(named("custom-1", ("app", "my-dns")));
        let found = |cluster: &Cluster| -> Vec<(String, u16)> {
            dns_servers(cluster).iter().map(|s| (s.pod.key.name.to_string(), s.port)).collect()
        };
        assert_eq!(found(&cluster), [("coredns-1".to_owned(), 53)]);
        let target = TargetPort::Number(5353);
        let port = |protocol| ServicePort {
            name: None,
            protocol,
            port: 53,
            target: target.clone(),
            node_port: None,
        };
        let service = Service {
            selector: Some(Selector::of_labels([("app", "my-dns")])),
            ports: vec![port(Protocol::Udp), port(Protocol::Tcp)],
            ..Service::new(ObjectKey::new("kube-system", "kube-dns"))
        };
        cluster.services.insert(service.key.clone(), service);
        assert_eq!(found(&cluster), [("custom-1".to_owned(), 5353)]);
    }
}

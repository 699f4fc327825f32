//! The servers that are trusted, as far as no Service takes the packets to their addresses: its owner could answer for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr},
};

use palisade_policy::{Cluster, ObjectKey};

use super::DNS_PORT;

/// The nameservers of the node.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Users who may create Services in this namespace can replace the cluster's DNS anyway.
const SYSTEM_NAMESPACE: &str = "kube-system";

/// What is trusted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TrustedServers {
    pub(super) servers: BTreeSet<SocketAddr>,
    /// The others, with the Service that has the address.
    pub(super) taken: BTreeMap<SocketAddr, ObjectKey>,
}

/// Returns the servers that are trusted: `set`, or if there are none, the cluster's, by its Service, and the node's.
///
/// `O(services)`.
pub(super) fn of(cluster: &Cluster, set: &BTreeSet<SocketAddr>) -> TrustedServers {
    if !set.is_empty() {
        return untaken(cluster, set, &BTreeSet::new());
    }
    let of_cluster = palisade_names::dns_service_addresses(cluster).map(on_dns_port).collect();
    // A missing file names no server.
    let text = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    untaken(cluster, &of_cluster, &named_servers(&text).map(on_dns_port).collect())
}

fn on_dns_port(server: IpAddr) -> SocketAddr {
    SocketAddr::new(server, DNS_PORT)
}

/// The nameservers of a `resolv.conf` that pods can ask too.
fn named_servers(text: &str) -> impl Iterator<Item = IpAddr> {
    let named = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok());
    named.filter(|server: &IpAddr| !server.is_loopback() && !server.is_unspecified())
}

/// Leaves out the servers whose packets a Service takes. `chosen` are those that are set, or of the cluster: as a cluster IP their address is that of the
/// Service that is meant, since the API server gives each to one. A nameserver of the node is no Service.
fn untaken(
    cluster: &Cluster,
    chosen: &BTreeSet<SocketAddr>,
    of_node: &BTreeSet<SocketAddr>,
) -> TrustedServers {
    let all: BTreeSet<IpAddr> = chosen.iter().chain(of_node).map(SocketAddr::ip).collect();
    // By the Services that could answer for a server that is chosen, and for one of the node.
    let (mut of_tenants, mut of_any) = (BTreeMap::new(), BTreeMap::new());
    for service in cluster.services.values() {
        for address in service.access.translated().filter(|address| all.contains(address)) {
            of_any.insert(address, &service.key);
            if *service.key.namespace != *SYSTEM_NAMESPACE {
                of_tenants.insert(address, &service.key);
            }
        }
        let own = service.addresses.iter().filter(|address| all.contains(address));
        of_any.extend(own.map(|address| (*address, &service.key)));
    }
    let mut out = TrustedServers::default();
    let of_node = of_node.difference(chosen).map(|server| (server, of_any.get(&server.ip())));
    let chosen = chosen.iter().map(|server| (server, of_tenants.get(&server.ip())));
    for (server, taken) in chosen.chain(of_node) {
        match taken {
            Some(service) => drop(out.taken.insert(*server, (*service).clone())),
            None => drop(out.servers.insert(*server)),
        }
    }
    out
}

/// The servers of which the log says that they are not trusted.
#[derive(Debug, Default)]
pub(super) struct TakenServers(BTreeMap<SocketAddr, ObjectKey>);

impl TakenServers {
    /// Logs what is new.
    pub(super) fn log(&mut self, taken: &BTreeMap<SocketAddr, ObjectKey>) {
        let is_new = |(server, service): &(&SocketAddr, &ObjectKey)| self.0.get(*server) != Some(*service);
        for (server, service) in taken.iter().filter(is_new) {
            tracing::warn!(%server, %service, "a Service has the address of a DNS server, its answers are not learned");
        }
        for server in self.0.keys().filter(|server| !taken.contains_key(server)) {
            tracing::info!(%server, "no Service has the address of the DNS server any longer");
        }
        self.0.clone_from(taken);
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::Service;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn servers(texts: &[&str]) -> BTreeSet<SocketAddr> {
        texts.iter().map(|text| on_dns_port(ip(text))).collect()
    }

    /// A Service with its cluster IPs, external IPs and addresses of its load balancer.
    type Addressed<'a> = (&'a str, &'a [&'a str], &'a [&'a str], &'a [&'a str]);

    fn cluster(services: &[Addressed<'_>]) -> Cluster {
        let mut cluster = Cluster::default();
        for (name, cluster_ips, external, load_balancer) in services {
            let (namespace, name) = name.split_once('/').unwrap();
            let mut service = Service::new(ObjectKey::new(namespace, name));
            let ips = |texts: &[&str]| texts.iter().map(|text| ip(text)).collect::<Vec<_>>();
            service.addresses = ips(cluster_ips);
            service.access.external_ips = ips(external);
            service.access.load_balancer = ips(load_balancer);
            cluster.services.insert(service.key.clone(), service);
        }
        cluster
    }

    #[test]
    fn a_service_at_the_address_of_a_nameserver_makes_it_untrusted() {
        let cluster = cluster(&[
            ("kube-system/kube-dns", &["10.96.0.10"], &["198.51.100.10"], &[]),
            ("openshift-dns/dns-default", &["10.96.0.66"], &[], &[]),
            ("tenant/mine", &["10.96.0.67"], &["198.51.100.53"], &[]),
        ]);
        let text = "# nameserver 192.0.2.1\nsearch a.io\n nameserver 198.51.100.53\nnameserver\t198.51.100.54 \n\
                    nameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver 10.96.0.67\noptions ndots:5\n";
        let of_cluster = palisade_names::dns_service_addresses(&cluster).map(on_dns_port).collect();
        let trusted = untaken(&cluster, &of_cluster, &named_servers(text).map(on_dns_port).collect());
        assert_eq!(trusted.servers, servers(&["10.96.0.10", "198.51.100.54"]));
        assert_eq!(
            trusted.taken.into_keys().collect::<BTreeSet<_>>(),
            servers(&["198.51.100.53", "10.96.0.67"])
        );
    }

    /// Users who may create Services choose external IPs, and some controllers give them the load balancer's address that they ask for.
    #[test]
    fn a_service_of_a_tenant_takes_the_trust_from_servers_that_are_set_and_from_that_of_the_cluster() {
        let set = servers(&["203.0.113.53", "198.51.100.53", "10.96.0.10", "10.96.0.53", "192.0.2.53"]);
        let services = [
            ("kube-system/kube-dns", &["10.96.0.10"][..], &["192.0.2.53"][..], &[][..]),
            // A DNS server that is set by its cluster IP.
            ("dns/own", &["10.96.0.53"], &[], &[]),
        ];
        let trusted = of(&cluster(&services), &set);
        assert_eq!((trusted.servers, trusted.taken.len()), (set.clone(), 0));
        for (external, load_balancer) in [("203.0.113.53", ""), ("", "203.0.113.53"), ("10.96.0.10", "")] {
            let of_text = |text: &'static str| text.split_terminator(',').collect::<Vec<_>>();
            let (external, load_balancer) = (of_text(external), of_text(load_balancer));
            let tenant = ("tenant/web", &["10.96.7.7"][..], &external[..], &load_balancer[..]);
            let all = cluster(&[services[0], services[1], tenant]);
            let trusted = of(&all, &set);
            let taken = [external, load_balancer].concat();
            assert_eq!(trusted.servers, &set - &servers(&taken));
            let expected = (on_dns_port(ip(taken[0])), ObjectKey::new("tenant", "web"));
            assert_eq!(trusted.taken, [expected].into());
            // By default, too.
            let is_of_cluster = taken == ["10.96.0.10"];
            assert_eq!(
                of(&all, &BTreeSet::new()).servers.contains(&on_dns_port(ip("10.96.0.10"))),
                !is_of_cluster
            );
        }
    }

    /// Otherwise any user who may create a Service could keep names from being learned.
    #[test]
    fn an_address_that_a_service_only_asks_for_takes_nothing() {
        let set = servers(&["203.0.113.53"]);
        let is_trusted = |spec: &str, status: &str| {
            let text = format!(
                "{{apiVersion: v1, kind: Service, metadata: {{name: web, namespace: tenant}}, spec: {{type: LoadBalancer, \
                 clusterIP: 10.96.7.7, ports: [{{port: 53, protocol: UDP}}], {spec}}}, status: {{loadBalancer: {{{status}}}}}}}"
            );
            let input = palisade_manifest::Input::Text { name: "m".into(), text };
            let loaded = palisade_manifest::load(&[input], &palisade_manifest::LoadOptions::default());
            assert_eq!(loaded.cluster.services.len(), 1, "{:?}", loaded.diagnostics);
            of(&loaded.cluster, &set).servers == set
        };
        let (wish, other) = ("loadBalancerIP: 203.0.113.53", "ingress: [{ip: 198.51.100.7}]");
        assert!(is_trusted(wish, "") && is_trusted(wish, other));
        let granted = "ingress: [{ip: 203.0.113.53}]";
        assert!(!is_trusted(wish, granted) && !is_trusted("", granted));
        assert!(!is_trusted(&format!("{wish}, externalIPs: [203.0.113.53]"), other));
    }
}

//! The servers that are trusted, as far as no Service takes the packets to their addresses: its owner could answer for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use palisade_policy::{Cluster, ObjectKey, Service};

use super::DNS_PORT;

/// The nameservers of the node.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Users who may create Services in this namespace can replace the cluster's DNS anyway.
const SYSTEM_NAMESPACE: &str = "kube-system";

/// How long no Service must have had the address of a server before it is trusted again.
const REGAINED_AFTER: Duration = Duration::from_secs(10);

/// What is trusted.
#[derive(Debug, Default, PartialEq, Eq)]
struct TrustedServers {
    servers: BTreeSet<SocketAddr>,
    /// The others, with the Service that has the address.
    taken: BTreeMap<SocketAddr, ObjectKey>,
}

/// Returns the servers that are trusted: `set`, or if there are none, the cluster's, by its Service, and the node's.
///
/// `O(services)`.
fn of(cluster: &Cluster, set: &BTreeSet<SocketAddr>) -> TrustedServers {
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

/// The trusted servers, as Services come and go.
#[derive(Debug)]
pub(super) struct Servers {
    /// The servers that are set. None: those of the cluster and of the node.
    set: BTreeSet<SocketAddr>,
    /// Whether Services are known. Until then any of them could have the address of a server, so none is trusted.
    services_are_known: bool,
    trusted: BTreeSet<SocketAddr>,
    /// The servers whose addresses Services have, or had a moment ago.
    taken: BTreeMap<SocketAddr, Taken>,
    /// The Services that have the address of a server, or are the cluster's DNS.
    concerned: BTreeSet<ObjectKey>,
}

/// A server whose address a Service has.
#[derive(Debug, PartialEq, Eq)]
struct Taken {
    /// The Service that the log has named.
    service: ObjectKey,
    /// When the log has named it.
    logged: Instant,
    /// When it was first seen that no Service has it any longer.
    free_since: Option<Instant>,
}

impl Servers {
    pub(super) fn new(set: BTreeSet<SocketAddr>, services_are_known: bool) -> Self {
        Self {
            set,
            services_are_known,
            trusted: BTreeSet::new(),
            taken: BTreeMap::new(),
            concerned: BTreeSet::new(),
        }
    }

    /// Replaces those that are set, from the next [`Servers::update`] on.
    pub(super) fn set(&mut self, servers: BTreeSet<SocketAddr>) {
        self.set = servers;
    }

    /// Services are known from now on. Returns whether they were not.
    pub(super) fn know_services(&mut self) -> bool {
        !std::mem::replace(&mut self.services_are_known, true)
    }

    pub(super) fn trusted(&self) -> &BTreeSet<SocketAddr> {
        &self.trusted
    }

    /// Whether a Service that changed may change which servers are trusted. `service`: as it is now. `O(its addresses)`.
    pub(super) fn depend_on(&self, key: &ObjectKey, service: Option<&Service>) -> bool {
        self.concerned.contains(key) || service.is_some_and(|service| self.concern(service))
    }

    fn concern(&self, service: &Service) -> bool {
        let is_server = |address: IpAddr| {
            let mut all = self.set.iter().chain(&self.trusted).chain(self.taken.keys());
            all.any(|server| server.ip() == address)
        };
        palisade_names::is_dns_service(&service.key)
            || service.addresses.iter().copied().chain(service.access.translated()).any(is_server)
    }

    /// Whether time alone changes which servers are trusted.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.taken.values().any(|taken| taken.is_free(now))
    }

    /// Finds out which servers are trusted, and logs what has changed. Returns whether they have. `O(services)`.
    pub(super) fn update(&mut self, cluster: &Cluster, now: Instant) -> bool {
        if !self.services_are_known {
            return !std::mem::take(&mut self.trusted).is_empty();
        }
        let TrustedServers { mut servers, taken } = of(cluster, &self.set);
        for (server, service) in &taken {
            // Services that take turns are named at intervals.
            let is_logged = self.taken.get_mut(server).is_some_and(|known| {
                known.free_since = None;
                known.service == *service || now.saturating_duration_since(known.logged) < REGAINED_AFTER
            });
            if !is_logged {
                tracing::warn!(%server, %service, "a Service has the address of a DNS server, its answers are not learned");
                self.taken.insert(*server, Taken { service: service.clone(), logged: now, free_since: None });
            }
        }
        self.taken.retain(|server, of_server| {
            if taken.contains_key(server) {
                return true;
            }
            of_server.free_since.get_or_insert(now);
            if !servers.contains(server) {
                // It is no server any longer.
                return false;
            }
            let stays = !of_server.is_free(now);
            if stays {
                servers.remove(server);
            } else {
                tracing::info!(%server, "no Service has the address of the DNS server any longer");
            }
            stays
        });
        let has_changed = self.trusted != servers;
        self.trusted = servers;
        let concerned = cluster.services.values().filter(|service| self.concern(service));
        self.concerned = concerned.map(|service| service.key.clone()).collect();
        has_changed
    }
}

impl Taken {
    /// Whether the server is trusted again. Not at once: a Service that comes and goes would cost every node a transaction each time.
    fn is_free(&self, now: Instant) -> bool {
        self.free_since.is_some_and(|since| now.saturating_duration_since(since) >= REGAINED_AFTER)
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn no_server_is_trusted_before_services_are_known() {
        let mut all = Servers::new(servers(&["203.0.113.53"]), false);
        let now = Instant::now();
        assert!(!all.update(&Cluster::default(), now) && all.trusted().is_empty());
        assert!(all.know_services() && !all.know_services());
        assert!(all.update(&Cluster::default(), now));
        assert_eq!(all.trusted(), &servers(&["203.0.113.53"]));
    }

    /// A tenant could create and delete a Service all the time.
    #[test]
    fn a_server_is_trusted_again_a_while_after_its_address_is_free() {
        let mut all = Servers::new(servers(&["203.0.113.53", "203.0.113.54"]), true);
        let taken = cluster(&[("tenant/web", &["10.96.7.7"], &["203.0.113.53"], &[])]);
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        assert!(all.update(&taken, start));
        assert_eq!(all.trusted(), &servers(&["203.0.113.54"]));
        for round in 0..20 {
            let cluster = if round % 2 == 0 { &Cluster::default() } else { &taken };
            assert!(!all.update(cluster, start + second * round), "{round}");
            assert!(!all.is_due(start + second * round));
        }
        let free = Cluster::default();
        let at = start + second * 20;
        assert!(!all.update(&free, at) && !all.is_due(at + second * 9));
        assert!(all.is_due(at + second * 10) && all.update(&free, at + second * 10));
        assert_eq!(all.trusted().len(), 2);
        assert!(!all.is_due(at + second * 30));
    }

    #[test]
    fn only_services_with_the_address_of_a_server_and_those_of_dns_matter() {
        let cluster = cluster(&[
            ("kube-system/kube-dns", &["10.96.0.10"], &[], &[]),
            ("tenant/web", &["10.96.7.7"], &["203.0.113.53"], &[]),
            ("tenant/other", &["10.96.7.8"], &["203.0.113.55"], &["203.0.113.56"]),
        ]);
        let mut all = Servers::new(servers(&["203.0.113.53"]), true);
        all.update(&cluster, Instant::now());
        let matters = |name: &str, now: Option<&Service>| all.depend_on(&ObjectKey::new("tenant", name), now);
        for service in cluster.services.values() {
            let expected = *service.key.name != *"other";
            assert_eq!(all.depend_on(&service.key, Some(service)), expected, "{}", service.key);
        }
        assert!(matters("web", None), "it was deleted");
        assert!(!matters("other", None) && !matters("new", None));
        let mut later = Service::new(ObjectKey::new("tenant", "later"));
        later.access.load_balancer = vec![ip("203.0.113.53")];
        assert!(matters("later", Some(&later)));
        later.access.load_balancer_wish = Some(ip("203.0.113.53"));
        assert!(!matters("later", Some(&later)), "it only asks for the address");
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

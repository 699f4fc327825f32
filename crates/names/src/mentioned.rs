//! What the host names in settings are in a cluster.

use std::{collections::HashMap, net::IpAddr};

use palisade_policy::{Cluster, Name, ObjectKey, Pod, Service};

use crate::dns_name::{DnsName, dashed};

/// How many ExternalName Services that stand for each other are followed.
const MAX_ALIASES: usize = 8;

/// What a host name stands for, as a pod of some namespace sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mentioned<'c> {
    /// A Service.
    Service(&'c Service),
    /// A pod of a headless Service.
    Pod(&'c Pod),
    /// An address that is not one of a Service.
    Address(IpAddr),
    /// A name of the cluster's DNS without an object: the one that would have it.
    Missing(ObjectKey),
    /// A name with dots that is not one of the cluster.
    Outside(Name),
    /// A word that is no name of a host here.
    Nothing,
    /// The pod itself, such as `localhost`.
    Itself,
}

/// Resolves the host names in settings.
pub struct MentionResolver<'c> {
    cluster: &'c Cluster,
    addresses: HashMap<IpAddr, &'c Service>,
}

impl<'c> MentionResolver<'c> {
    /// Prepares the addresses of Services. `O(services)`.
    #[must_use]
    pub fn new(cluster: &'c Cluster) -> Self {
        let of = |service: &'c Service| service.addresses.iter().map(move |address| (*address, service));
        Self { cluster, addresses: cluster.services.values().flat_map(of).collect() }
    }

    /// Returns what `host` stands for in a pod of `namespace`.
    #[must_use]
    pub fn resolve(&self, namespace: &Name, host: &str) -> Mentioned<'c> {
        let (mut namespace, mut host): (Name, Name) = (namespace.clone(), host.into());
        for _ in 0..MAX_ALIASES {
            let found = self.one(&namespace, &host);
            match found {
                Mentioned::Service(Service { key, access, .. }) => match &access.external_name {
                    Some(name) => (namespace, host) = (key.namespace.clone(), name.clone()),
                    None => return found,
                },
                _ => return found,
            }
        }
        Mentioned::Outside(host)
    }

    fn one(&self, namespace: &Name, host: &str) -> Mentioned<'c> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return match self.addresses.get(&address) {
                Some(service) => Mentioned::Service(service),
                None if address.is_loopback() || address.is_unspecified() => Mentioned::Itself,
                None => Mentioned::Address(address),
            };
        }
        if host == "localhost" {
            return Mentioned::Itself;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let key = |namespace: &str, name: &str| ObjectKey::new(namespace, name);
        let labels: Vec<&str> = host.split('.').collect();
        match (DnsName::parse(host), &labels[..]) {
            (_, [name]) => self.service(&key(namespace, name)).map_or(Mentioned::Nothing, Mentioned::Service),
            (Some(DnsName::Service { name, namespace }), _) => self.existing(key(namespace, name)),
            (Some(DnsName::PodAddress(address)), _) => Mentioned::Address(address),
            (Some(DnsName::PodOfService { .. }), [pod, service, namespace, ..]) => self
                .pod(pod, &key(namespace, service))
                .map_or_else(|| Mentioned::Missing(key(namespace, pod)), Mentioned::Pod),
            (_, [name, other]) => {
                let of_service = self.service(&key(other, name)).map(Mentioned::Service);
                let of_pod = || self.pod(name, &key(namespace, other)).map(Mentioned::Pod);
                of_service.or_else(of_pod).unwrap_or_else(|| Mentioned::Outside(host.into()))
            }
            (_, [pod, service, other]) => {
                let of_pod = self.pod(pod, &key(other, service)).map(Mentioned::Pod);
                of_pod.unwrap_or_else(|| Mentioned::Outside(host.into()))
            }
            _ => Mentioned::Outside(host.into()),
        }
    }

    fn existing(&self, key: ObjectKey) -> Mentioned<'c> {
        match self.service(&key) {
            Some(service) => Mentioned::Service(service),
            None => Mentioned::Missing(key),
        }
    }

    fn service(&self, key: &ObjectKey) -> Option<&'c Service> {
        let found = self.cluster.services.get(key);
        found.or_else(|| crate::is_api_server(key).then_some(&*crate::service_targets::API_SERVICE))
    }

    /// A pod by its host name, or by its address with dashes, behind a headless Service.
    fn pod(&self, pod: &str, service: &ObjectKey) -> Option<&'c Pod> {
        let headless = self.cluster.services.get(service).filter(|service| service.access.headless)?;
        let by_name = self.cluster.pods.get(&ObjectKey::new(headless.key.namespace.clone(), pod));
        by_name.or_else(|| {
            let end = self.cluster.endpoint(dashed(pod)?);
            let palisade_policy::Endpoint::Pod { key, .. } = end else { return None };
            self.cluster.pods.get(&key)
        })
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::TargetPort;

    use super::*;
    use crate::sample::{cluster, service};

    fn text(found: &Mentioned<'_>) -> String {
        match found {
            Mentioned::Service(service) => format!("service {}", service.key),
            Mentioned::Pod(pod) => format!("pod {}", pod.key),
            Mentioned::Address(address) => address.to_string(),
            Mentioned::Missing(key) => format!("missing {key}"),
            Mentioned::Outside(name) => format!("outside {name}"),
            Mentioned::Nothing => "nothing".to_owned(),
            Mentioned::Itself => "itself".to_owned(),
        }
    }

    #[test]
    fn names_are_resolved_as_pods_see_them() {
        let mut c = cluster();
        let mut add = |name: &str, alias: Option<&str>, headless: bool| {
            let mut one = service(TargetPort::Number(80), None);
            one.key = ObjectKey::new("shop", name);
            one.access.external_name = alias.map(Into::into);
            one.access.headless = headless;
            one.addresses = if name == "web" { vec!["10.96.0.1".parse().unwrap()] } else { Vec::new() };
            c.services.insert(one.key.clone(), one);
        };
        add("web", None, false);
        add("db", None, true);
        add("alias", Some("web.shop.svc.cluster.local"), false);
        add("away", Some("db.example.com"), false);
        add("loop-a", Some("loop-b.shop.svc"), false);
        add("loop-b", Some("loop-a.shop.svc"), false);
        let resolver = MentionResolver::new(&c);
        for (namespace, host, expected) in [
            ("shop", "web", "service shop/web"),
            ("default", "web", "nothing"),
            ("default", "web.shop", "service shop/web"),
            ("default", "web.shop.svc.cluster.local", "service shop/web"),
            ("default", "alias.shop", "service shop/web"),
            ("shop", "away", "outside db.example.com"),
            ("shop", "loop-a", "outside loop-a.shop.svc"),
            ("shop", "gone.shop.svc", "missing shop/gone"),
            ("shop", "db-0.db", "pod shop/db-0"),
            ("default", "db-0.db.shop", "pod shop/db-0"),
            ("default", "db-0.db.shop.svc", "pod shop/db-0"),
            ("default", "10-0-0-3.db.shop.svc", "pod shop/db-0"),
            ("default", "db-9.db.shop.svc", "missing shop/db-9"),
            ("shop", "db-0.web", "outside db-0.web"),
            ("shop", "10.96.0.1", "service shop/web"),
            ("shop", "192.0.2.9", "192.0.2.9"),
            ("shop", "127.0.0.1", "itself"),
            ("shop", "localhost", "itself"),
            ("shop", "api.example.com", "outside api.example.com"),
            ("shop", "kubernetes.default.svc", "service default/kubernetes"),
        ] {
            assert_eq!(text(&resolver.resolve(&namespace.into(), host)), expected, "{host} in {namespace}");
        }
    }
}

//! Names of the cluster's DNS: `web.shop.svc.cluster.local`, `db-0.db.shop.svc`, `10-0-0-7.shop.pod`.
//!
//! Only the form is here: whether a name is one of the cluster's depends on what the cluster has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A name in a form that the cluster's DNS knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsName<'n> {
    /// `NAME.NAMESPACE`, which a pod's search path completes. It may be a name of the outside as well.
    Short {
        /// The name.
        name: &'n str,
        /// The namespace.
        namespace: &'n str,
    },
    /// `NAME.NAMESPACE.svc`, with any cluster domain after it.
    Service {
        /// The name.
        name: &'n str,
        /// The namespace.
        namespace: &'n str,
    },
    /// `POD.SERVICE.NAMESPACE.svc`: a pod of a headless service, such as a StatefulSet's.
    PodOfService {
        /// The host name of the pod, which is its name, or its address with dashes.
        pod: &'n str,
        /// The namespace.
        namespace: &'n str,
    },
    /// `10-0-0-7.NAMESPACE.pod`: a pod by its address.
    PodAddress(IpAddr),
}

impl<'n> DnsName<'n> {
    /// Reads a name. `None` if the cluster's DNS has no names of this form. A dot at the end is accepted.
    #[must_use]
    pub fn parse(name: &'n str) -> Option<Self> {
        let labels: Vec<&str> = name.strip_suffix('.').unwrap_or(name).split('.').collect();
        if labels.iter().any(|label| label.is_empty()) {
            return None;
        }
        match labels[..] {
            [name, namespace] => Some(Self::Short { name, namespace }),
            [name, namespace, "svc", ..] => Some(Self::Service { name, namespace }),
            [address, _, "pod", ..] => dashed(address).map(Self::PodAddress),
            [pod, _, namespace, "svc", ..] => Some(Self::PodOfService { pod, namespace }),
            _ => None,
        }
    }
}

/// Reads an address whose dots or colons are dashes.
#[must_use]
pub fn dashed(text: &str) -> Option<IpAddr> {
    let v4 = || text.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    v4().or_else(|| text.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_cluster_have_a_few_forms() {
        let service = Some(DnsName::Service { name: "web", namespace: "shop" });
        for name in [
            "web.shop.svc",
            "web.shop.svc.cluster.local",
            "web.shop.svc.cluster.local.",
            "web.shop.svc.k8s.corp",
        ] {
            assert_eq!(DnsName::parse(name), service, "{name}");
        }
        assert_eq!(DnsName::parse("web.shop"), Some(DnsName::Short { name: "web", namespace: "shop" }));
        let pod = Some(DnsName::PodOfService { pod: "db-0", namespace: "shop" });
        assert_eq!(DnsName::parse("db-0.db.shop.svc.cluster.local"), pod);
        let address = |text: &str| Some(DnsName::PodAddress(text.parse().unwrap()));
        assert_eq!(DnsName::parse("10-0-0-7.shop.pod.cluster.local"), address("10.0.0.7"));
        assert_eq!(DnsName::parse("fd00--7.shop.pod"), address("fd00::7"));
        for other in ["web", "api.github.com", "a..b", ".", "x.y.pod", ""] {
            assert_eq!(DnsName::parse(other), None, "{other}");
        }
    }
}

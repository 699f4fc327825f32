//! Generated addresses for pods and services that declare none, so that manifests alone describe a cluster that can be
//! queried and run.
//!
//! Addresses are assigned in the order of namespace and name, so the same manifests always produce the same addresses.
//! A caller whose cluster keeps running while its files change passes the previous cluster to [`keep_addresses`], so
//! that existing pods keep their addresses.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use palisade_policy::{
    Cluster, Family, IpRange, ObjectKey,
    address::{from_number, to_number},
};

use crate::diagnostic::{Code, Diagnostic, Severity};

/// The ranges from which addresses are generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPlan {
    /// The families in which addresses are generated, in the order in which pods list them.
    pub families: Vec<Family>,
    /// Pod ranges for IPv4. The first one that is large enough is used.
    pub pods_v4: Vec<Ipv4Net>,
    /// The pod range for IPv6.
    pub pods_v6: Ipv6Net,
    /// The service range for IPv4.
    pub services_v4: Ipv4Net,
    /// The service range for IPv6.
    pub services_v6: Ipv6Net,
}

impl Default for AddressPlan {
    /// The ranges that kubeadm and common CNI plugins use. Pods: 10.244.0.0/16 (10.128.0.0/9 if 65,000 addresses are
    /// not enough) and fd00:10:244::/48. Services: 10.96.0.0/12 and fd00:10:96::/112.
    fn default() -> Self {
        let v6 =
            |third: u16, length| Ipv6Net::new_assert([0xfd00, 0x10, third, 0, 0, 0, 0, 0].into(), length);
        Self {
            families: Family::BOTH.to_vec(),
            pods_v4: vec![
                Ipv4Net::new_assert([10, 244, 0, 0].into(), 16),
                Ipv4Net::new_assert([10, 128, 0, 0].into(), 9),
            ],
            pods_v6: v6(0x244, 48),
            services_v4: Ipv4Net::new_assert([10, 96, 0, 0].into(), 12),
            services_v6: v6(0x96, 112),
        }
    }
}

/// Pods and services that get no generated address, or not in every family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unaddressed {
    /// Pods whose status says that they have no address yet.
    pub pods: BTreeSet<ObjectKey>,
    /// The families in which each service needs an address. Empty for a service that declares its addresses, is
    /// headless, or is an ExternalName. A service that is not listed needs an address in every family.
    pub services: BTreeMap<ObjectKey, BTreeSet<Family>>,
}

/// Assigns addresses to the pods and services of `cluster` that have none. Host-network pods get their node's
/// addresses; others get unused ones from the ranges of `plan`. Returns an error for each object for which a range was
/// too small. `O(pods · log pods)`.
pub fn assign_addresses(
    cluster: &mut Cluster,
    plan: &AddressPlan,
    unaddressed: &Unaddressed,
) -> Vec<Diagnostic> {
    let mut taken: HashSet<IpAddr> =
        cluster.pods.values().flat_map(|p| p.addresses.iter().copied()).collect();
    taken.extend(cluster.services.values().flat_map(|s| s.addresses.iter().copied()));
    taken.extend(cluster.nodes.values().flat_map(|n| n.addresses.iter().copied()));
    let mut found = Vec::new();
    pods(cluster, plan, unaddressed, &mut taken, &mut found);
    services(cluster, plan, unaddressed, &mut taken, &mut found);
    found
}

/// Copies addresses from `before` to the same pods and services of `cluster` if they have none, unless the addresses
/// are in use. For callers whose cluster keeps running while its manifests change: load without an address plan, call
/// this function, then [`assign_addresses`].
pub fn keep_addresses(cluster: &mut Cluster, before: &Cluster, unaddressed: &Unaddressed) {
    let mut taken: HashSet<IpAddr> =
        cluster.pods.values().flat_map(|p| p.addresses.iter().copied()).collect();
    taken.extend(cluster.services.values().flat_map(|s| s.addresses.iter().copied()));
    taken.extend(cluster.nodes.values().flat_map(|n| n.addresses.iter().copied()));
    cluster.pods.edit(|pod| {
        if let Some(old) = before.pods.get(&pod.key)
            && pod.addresses.is_empty()
            && !pod.host_network
            && !old.host_network
            && !unaddressed.pods.contains(&pod.key)
            && old.addresses.iter().all(|a| !taken.contains(a))
        {
            pod.addresses.clone_from(&old.addresses);
            taken.extend(&old.addresses);
        }
    });
    for (key, service) in &mut cluster.services {
        let needs = |a: &IpAddr| unaddressed.services.get(key).is_none_or(|w| w.contains(&Family::of(*a)));
        if let Some(old) = before.services.get(key)
            && service.addresses.is_empty()
            && old.addresses.iter().all(|a| needs(a) && !taken.contains(a))
        {
            service.addresses.clone_from(&old.addresses);
            taken.extend(&old.addresses);
        }
    }
}

fn pods(
    cluster: &mut Cluster,
    plan: &AddressPlan,
    unaddressed: &Unaddressed,
    taken: &mut HashSet<IpAddr>,
    found: &mut Vec<Diagnostic>,
) {
    let nodes = &cluster.nodes;
    let mut without_address = Vec::new();
    cluster.pods.edit(|pod| {
        if !pod.addresses.is_empty() || unaddressed.pods.contains(&pod.key) {
            return;
        }
        if !pod.host_network {
            without_address.push(pod.clone());
            return;
        }
        // A node may have several addresses of a family. A pod reports the first of each.
        for address in pod.node.as_ref().and_then(|n| nodes.get(n)).into_iter().flat_map(|n| &n.addresses) {
            if pod.address(Family::of(*address)).is_none() {
                pod.addresses.push(*address);
            }
        }
    });
    // 3 of 256 addresses are skipped, and addresses in use may be anywhere in the range.
    let is_large_enough = |net: &&Ipv4Net| {
        (1u64 << (32 - net.prefix_len())) / 256 * 253 > (without_address.len() + taken.len()) as u64
    };
    let v4 = plan.pods_v4.iter().find(is_large_enough).or(plan.pods_v4.last()).copied();
    for family in &plan.families {
        let range = match (family, v4) {
            (Family::V4, Some(net)) => IpNet::V4(net),
            (Family::V4, None) => continue,
            (Family::V6, _) => IpNet::V6(plan.pods_v6),
        };
        let mut free = FreeAddresses::new(&range);
        for pod in &mut without_address {
            match free.next(taken) {
                Some(address) => pod.addresses.push(address),
                None => found.push(exhausted(format!("Pod {}", pod.key), &range)),
            }
        }
    }
    cluster.pods.extend(without_address);
}

fn services(
    cluster: &mut Cluster,
    plan: &AddressPlan,
    unaddressed: &Unaddressed,
    taken: &mut HashSet<IpAddr>,
    found: &mut Vec<Diagnostic>,
) {
    for family in &plan.families {
        let range = match family {
            Family::V4 => IpNet::V4(plan.services_v4),
            Family::V6 => IpNet::V6(plan.services_v6),
        };
        let mut free = FreeAddresses::new(&range);
        for (key, service) in &mut cluster.services {
            let needs = match unaddressed.services.get(key) {
                Some(families) => families.contains(family),
                None => {
                    service.addresses.is_empty()
                        || service.addresses.iter().all(|a| Family::of(*a) != *family)
                }
            };
            if !needs || service.addresses.iter().any(|a| Family::of(*a) == *family) {
                continue;
            }
            match free.next(taken) {
                Some(address) => service.addresses.push(address),
                None => found.push(exhausted(format!("Service {key}"), &range)),
            }
        }
    }
}

fn exhausted(object: String, range: &IpNet) -> Diagnostic {
    let message = format!("gets no address: {range} has no free address left");
    Diagnostic { object: Some(object), ..Diagnostic::new(Severity::Error, Code::NoAddress, message) }
}

/// Iterates over a range.
struct FreeAddresses {
    family: Family,
    next: u128,
    last: u128,
}

impl FreeAddresses {
    fn new(net: &IpNet) -> Self {
        let range = IpRange::of_net(net);
        Self { family: Family::of_net(net), next: to_number(range.first), last: to_number(range.last) }
    }

    /// Returns the next unused address. Skips those that end in 0, 1 or 255: networks, gateways and broadcasts.
    fn next(&mut self, taken: &mut HashSet<IpAddr>) -> Option<IpAddr> {
        while self.next <= self.last {
            let number = self.next;
            self.next = number.checked_add(1)?;
            let address = from_number(self.family, number);
            if !matches!(number & 0xff, 0 | 1 | 255) && taken.insert(address) {
                return Some(address);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::{Labels, Node, Phase, Pod, Service, Workload};

    use super::*;

    fn pod(name: &str, addresses: &[&str]) -> Pod {
        Pod {
            key: ObjectKey::new("ns", name),
            labels: Labels::default(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            node: Some("n".into()),
            host_network: false,
            phase: Phase::Running,
            ports: [].into(),
            created: 0,
            workload: Some(Workload { kind: "Pod".into(), name: name.into() }),
        }
    }

    fn cluster(pods: impl IntoIterator<Item = Pod>) -> Cluster {
        Cluster { pods: pods.into_iter().collect(), ..Cluster::default() }
    }

    fn addresses_of(cluster: &Cluster, name: &str) -> String {
        let addresses = &cluster.pods[&ObjectKey::new("ns", name)].addresses;
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn addresses_are_assigned_in_order_and_declared_ones_are_skipped() {
        let mut c = cluster([pod("a", &[]), pod("b", &["10.244.0.3"]), pod("c", &[])]);
        assert!(assign_addresses(&mut c, &AddressPlan::default(), &Unaddressed::default()).is_empty());
        assert_eq!(addresses_of(&c, "a"), "10.244.0.2 fd00:10:244::2");
        assert_eq!(addresses_of(&c, "b"), "10.244.0.3");
        assert_eq!(addresses_of(&c, "c"), "10.244.0.4 fd00:10:244::3");
        let before = c.clone();
        assign_addresses(&mut c, &AddressPlan::default(), &Unaddressed::default());
        assert_eq!(c, before, "an assigned address is kept");
    }

    #[test]
    fn existing_pods_keep_their_addresses_when_pods_are_added() {
        let plan = AddressPlan::default();
        let none = Unaddressed::default();
        let mut old = cluster([pod("b", &[]), pod("c", &[])]);
        assign_addresses(&mut old, &plan, &none);
        let mut later = cluster([pod("b", &[]), pod("c", &[]), pod("d", &[])]);
        assign_addresses(&mut later, &plan, &none);
        assert_eq!(addresses_of(&old, "c"), addresses_of(&later, "c"));
        let mut earlier = cluster([pod("a", &[]), pod("b", &[]), pod("c", &[])]);
        keep_addresses(&mut earlier, &old, &none);
        assign_addresses(&mut earlier, &plan, &none);
        assert_eq!(addresses_of(&old, "b"), addresses_of(&earlier, "b"));
        assert_eq!(addresses_of(&old, "c"), addresses_of(&earlier, "c"));
        assert_eq!(addresses_of(&earlier, "a"), "10.244.0.4 fd00:10:244::4");
    }

    #[test]
    fn host_network_pods_get_their_nodes_addresses_and_pending_pods_none() {
        let mut c = cluster([Pod { host_network: true, ..pod("h", &[]) }, pod("w", &[])]);
        let addresses = ["192.168.0.1", "203.0.113.1", "fd00::1"].map(|a| a.parse().unwrap()).to_vec();
        c.nodes.insert("n".into(), Node { name: "n".into(), labels: Labels::default(), addresses });
        let unaddressed = Unaddressed { pods: [ObjectKey::new("ns", "w")].into(), ..Unaddressed::default() };
        assign_addresses(&mut c, &AddressPlan::default(), &unaddressed);
        assert_eq!(addresses_of(&c, "h"), "192.168.0.1 fd00::1");
        assert_eq!(addresses_of(&c, "w"), "");
    }

    #[test]
    fn services_get_an_address_in_each_family_they_need() {
        let service = |name: &str| Service::new(ObjectKey::new("ns", name));
        let mut c = Cluster::default();
        for name in ["both", "headless", "six"] {
            c.services.insert(ObjectKey::new("ns", name), service(name));
        }
        let mut unaddressed = Unaddressed::default();
        unaddressed.services.insert(ObjectKey::new("ns", "headless"), BTreeSet::new());
        unaddressed.services.insert(ObjectKey::new("ns", "six"), [Family::V6].into());
        assign_addresses(&mut c, &AddressPlan::default(), &unaddressed);
        let addresses_of = |name: &str| format!("{:?}", c.services[&ObjectKey::new("ns", name)].addresses);
        assert_eq!(addresses_of("both"), "[10.96.0.2, fd00:10:96::2]");
        assert_eq!(addresses_of("headless"), "[]");
        assert_eq!(addresses_of("six"), "[fd00:10:96::3]");
    }

    #[test]
    fn a_larger_range_is_used_if_needed_and_exhaustion_is_an_error() {
        let mut c = cluster((0..70_000).map(|n| pod(&format!("p{n:06}"), &[])));
        assert!(assign_addresses(&mut c, &AddressPlan::default(), &Unaddressed::default()).is_empty());
        assert_eq!(addresses_of(&c, "p000000"), "10.128.0.2 fd00:10:244::2");
        let distinct: HashSet<_> = c.pods.values().flat_map(|p| &p.addresses).collect();
        assert_eq!(distinct.len(), 140_000);
        let small = AddressPlan {
            pods_v4: vec!["10.0.0.0/29".parse().unwrap()],
            families: vec![Family::V4],
            ..AddressPlan::default()
        };
        let mut c = cluster((0..8).map(|n| pod(&format!("p{n}"), &[])));
        let found = assign_addresses(&mut c, &small, &Unaddressed::default());
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].headline(), "Pod ns/p6: gets no address: 10.0.0.0/29 has no free address left");
    }
}

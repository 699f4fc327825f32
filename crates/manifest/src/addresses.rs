//! Addresses for pods and services that declare none, so that manifests alone make a cluster that can be asked and run.
//!
//! Addresses are dealt out in the order of namespace and name, so the same manifests always give the same addresses. A
//! caller that keeps a cluster running while its files change passes the last one in ([`keep_addresses`]), and nobody
//! who stays moves.

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

/// Where addresses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPlan {
    /// The families in which addresses are made up, in the order in which pods carry them.
    pub families: Vec<Family>,
    /// Pod ranges of IPv4, tried in order: the first that is large enough is used.
    pub pods_v4: Vec<Ipv4Net>,
    /// The pod range of IPv6.
    pub pods_v6: Ipv6Net,
    /// The service range of IPv4.
    pub services_v4: Ipv4Net,
    /// The service range of IPv6.
    pub services_v6: Ipv6Net,
}

impl Default for AddressPlan {
    /// The ranges that kubeadm and the common CNIs use: pods 10.244.0.0/16 and fd00:10:244::/48, and 10.128.0.0/9 where
    /// 65,000 are not enough; services 10.96.0.0/12 and fd00:10:96::/112.
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

/// What gets no made-up address, or not in every family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unaddressed {
    /// Pods whose status says that they have none (yet).
    pub pods: BTreeSet<ObjectKey>,
    /// The families in which a service wants an address: none for one that declares its addresses, is headless, or is
    /// an ExternalName. A service that isn't here wants every family.
    pub services: BTreeMap<ObjectKey, BTreeSet<Family>>,
}

/// Gives addresses to pods and services of `cluster` that have none: host-network pods those of their node, others from
/// the ranges of `plan`, never one that somebody else declares. The findings say for whom the ranges were too small.
/// `O(pods · log pods)`.
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

/// Gives pods and services of `cluster` without addresses those that the same ones have in `before`, unless somebody
/// else has them now. For callers whose cluster lives on while its manifests change: load without an address plan, keep,
/// then [`assign_addresses`] to the rest.
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
        let wants = |a: &IpAddr| unaddressed.services.get(key).is_none_or(|w| w.contains(&Family::of(*a)));
        if let Some(old) = before.services.get(key)
            && service.addresses.is_empty()
            && old.addresses.iter().all(|a| wants(a) && !taken.contains(a))
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
    let mut waiting = Vec::new();
    cluster.pods.edit(|pod| {
        if !pod.addresses.is_empty() || unaddressed.pods.contains(&pod.key) {
            return;
        }
        if !pod.host_network {
            waiting.push(pod.clone());
            return;
        }
        // A node may have several addresses of a family; a pod reports the first of each.
        for address in pod.node.as_ref().and_then(|n| nodes.get(n)).into_iter().flat_map(|n| &n.addresses) {
            if pod.address(Family::of(*address)).is_none() {
                pod.addresses.push(*address);
            }
        }
    });
    // Three of each 256 are skipped, and what is taken may lie anywhere.
    let room =
        |net: &&Ipv4Net| (1u64 << (32 - net.prefix_len())) / 256 * 253 > (waiting.len() + taken.len()) as u64;
    let v4 = plan.pods_v4.iter().find(room).or(plan.pods_v4.last()).copied();
    for family in &plan.families {
        let range = match (family, v4) {
            (Family::V4, Some(net)) => IpNet::V4(net),
            (Family::V4, None) => continue,
            (Family::V6, _) => IpNet::V6(plan.pods_v6),
        };
        let mut free = Free::new(&range);
        for pod in &mut waiting {
            match free.next(taken) {
                Some(address) => pod.addresses.push(address),
                None => found.push(exhausted(format!("Pod {}", pod.key), &range)),
            }
        }
    }
    cluster.pods.extend(waiting);
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
        let mut free = Free::new(&range);
        for (key, service) in &mut cluster.services {
            let wants = match unaddressed.services.get(key) {
                Some(families) => families.contains(family),
                None => {
                    service.addresses.is_empty()
                        || service.addresses.iter().all(|a| Family::of(*a) != *family)
                }
            };
            if !wants || service.addresses.iter().any(|a| Family::of(*a) == *family) {
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
    let message = format!("gets no address: {range} is used up");
    Diagnostic { object: Some(object), ..Diagnostic::new(Severity::Error, Code::NoAddress, message) }
}

/// Walks a range.
struct Free {
    family: Family,
    next: u128,
    last: u128,
}

impl Free {
    fn new(net: &IpNet) -> Self {
        let range = IpRange::of_net(net);
        Self { family: Family::of_net(net), next: to_number(range.first), last: to_number(range.last) }
    }

    /// The next address that nobody has. Skips those that end in 0, 1 or 255: networks, gateways and broadcasts.
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

    fn shown(cluster: &Cluster, name: &str) -> String {
        let addresses = &cluster.pods[&ObjectKey::new("ns", name)].addresses;
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn dealt_in_order_round_what_is_declared() {
        let mut c = cluster([pod("a", &[]), pod("b", &["10.244.0.3"]), pod("c", &[])]);
        assert!(assign_addresses(&mut c, &AddressPlan::default(), &Unaddressed::default()).is_empty());
        assert_eq!(shown(&c, "a"), "10.244.0.2 fd00:10:244::2");
        assert_eq!(shown(&c, "b"), "10.244.0.3");
        assert_eq!(shown(&c, "c"), "10.244.0.4 fd00:10:244::3");
        let before = c.clone();
        assign_addresses(&mut c, &AddressPlan::default(), &Unaddressed::default());
        assert_eq!(c, before, "who has one keeps it");
    }

    #[test]
    fn later_names_move_nobody_and_keeping_moves_nobody_at_all() {
        let plan = AddressPlan::default();
        let none = Unaddressed::default();
        let mut old = cluster([pod("b", &[]), pod("c", &[])]);
        assign_addresses(&mut old, &plan, &none);
        let mut later = cluster([pod("b", &[]), pod("c", &[]), pod("d", &[])]);
        assign_addresses(&mut later, &plan, &none);
        assert_eq!(shown(&old, "c"), shown(&later, "c"));
        let mut earlier = cluster([pod("a", &[]), pod("b", &[]), pod("c", &[])]);
        keep_addresses(&mut earlier, &old, &none);
        assign_addresses(&mut earlier, &plan, &none);
        assert_eq!(shown(&old, "b"), shown(&earlier, "b"));
        assert_eq!(shown(&old, "c"), shown(&earlier, "c"));
        assert_eq!(shown(&earlier, "a"), "10.244.0.4 fd00:10:244::4");
    }

    #[test]
    fn host_network_pods_have_their_nodes_addresses_and_waiting_pods_none() {
        let mut c = cluster([Pod { host_network: true, ..pod("h", &[]) }, pod("w", &[])]);
        let addresses = ["192.168.0.1", "203.0.113.1", "fd00::1"].map(|a| a.parse().unwrap()).to_vec();
        c.nodes.insert("n".into(), Node { name: "n".into(), labels: Labels::default(), addresses });
        let unaddressed = Unaddressed { pods: [ObjectKey::new("ns", "w")].into(), ..Unaddressed::default() };
        assign_addresses(&mut c, &AddressPlan::default(), &unaddressed);
        assert_eq!(shown(&c, "h"), "192.168.0.1 fd00::1");
        assert_eq!(shown(&c, "w"), "");
    }

    #[test]
    fn services_get_what_they_want() {
        let service = |name: &str| Service {
            key: ObjectKey::new("ns", name),
            addresses: vec![],
            selector: None,
            ports: vec![],
        };
        let mut c = Cluster::default();
        for name in ["both", "headless", "six"] {
            c.services.insert(ObjectKey::new("ns", name), service(name));
        }
        let mut unaddressed = Unaddressed::default();
        unaddressed.services.insert(ObjectKey::new("ns", "headless"), BTreeSet::new());
        unaddressed.services.insert(ObjectKey::new("ns", "six"), [Family::V6].into());
        assign_addresses(&mut c, &AddressPlan::default(), &unaddressed);
        let shown = |name: &str| format!("{:?}", c.services[&ObjectKey::new("ns", name)].addresses);
        assert_eq!(shown("both"), "[10.96.0.2, fd00:10:96::2]");
        assert_eq!(shown("headless"), "[]");
        assert_eq!(shown("six"), "[fd00:10:96::3]");
    }

    #[test]
    fn ranges_grow_and_run_out_loudly() {
        let mut c = cluster((0..70_000).map(|n| pod(&format!("p{n:06}"), &[])));
        assert!(assign_addresses(&mut c, &AddressPlan::default(), &Unaddressed::default()).is_empty());
        assert_eq!(shown(&c, "p000000"), "10.128.0.2 fd00:10:244::2");
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
        assert_eq!(found[0].headline(), "Pod ns/p6: gets no address: 10.0.0.0/29 is used up");
    }
}

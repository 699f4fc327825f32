//! The layout of a lab: which node each pod runs on and which addresses everything has. A pure value, computed from a
//! [`Cluster`] before anything is built.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use palisade_policy::{Cluster, Endpoint, Family, Name, Node, ObjectKey, Phase, Pod, address};

use crate::{
    options::LayoutOptions,
    outside::{self, is_usable},
};

/// A network namespace of the lab, named by what it represents.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A pod.
    Pod(ObjectKey),
    /// A node, with its host-network pods.
    Node(Name),
    /// The network outside the cluster.
    Outside,
}

impl Place {
    /// Returns the place of an endpoint.
    #[must_use]
    pub fn of(endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint::Pod { key, .. } => Self::Pod(key.clone()),
            Endpoint::Node { name, .. } => Self::Node(name.clone()),
            Endpoint::External(_) => Self::Outside,
        }
    }
}

impl fmt::Display for Place {
    /// Writes `shop/web`, `node/worker-1` or `outside`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => write!(f, "{key}"),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Outside => f.write_str("outside"),
        }
    }
}

/// The node and the addresses of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPlace {
    /// The node.
    pub node: Name,
    /// The addresses of its interface: at most one per family. No two pods share one.
    pub addresses: Vec<IpAddr>,
}

/// The layout of a lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The options that it was computed with.
    pub options: LayoutOptions,
    /// The cluster as the lab runs it: every running pod has a node and addresses, every node and every service with a
    /// selector has addresses. The nodes enforce this cluster, and outcomes are compared with it.
    pub cluster: Cluster,
    /// The addresses of each node.
    pub nodes: BTreeMap<Name, Vec<IpAddr>>,
    /// The pods that have a network namespace of their own.
    pub pods: BTreeMap<ObjectKey, PodPlace>,
    /// The outside addresses.
    pub outside: Vec<IpAddr>,
    /// What was left out or changed, as text for the user.
    pub notes: Vec<String>,
}

/// Why a cluster can't be laid out.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LayoutError {
    /// Zero nodes were requested and the cluster has none.
    #[error("a lab needs at least one node")]
    NoNodes,
    /// More nodes than the fabric's bridge has ports for (`BR_MAX_PORTS` is 1024).
    #[error(
        "a lab has at most {MAX_NODES} nodes, and {0} are needed; request fewer, or use fewer names in spec.nodeName"
    )]
    TooManyNodes(usize),
}

/// The maximum number of nodes. The kernel's bridge has room for 1,023 ports, and each node runs an agent.
pub const MAX_NODES: usize = 250;

/// The number of nodes if neither the options nor the cluster name any.
const DEFAULT_NODES: usize = 2;

/// The first generated addresses of pods, nodes and services: the defaults of kubeadm and the common CNIs.
const PODS: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(10, 244, 0, 0), Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0));
const NODES: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(192, 168, 200, 10), Ipv6Addr::new(0xfd00, 0x192, 0x168, 0x200, 0, 0, 0, 0x10));
const SERVICES: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(10, 96, 0, 9), Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 9));

impl Layout {
    /// Computes the layout of a cluster. `O(objects · log objects)`.
    ///
    /// # Errors
    /// Fails if there would be no node, or too many.
    pub fn of(cluster: &Cluster, options: &LayoutOptions) -> Result<Self, LayoutError> {
        Planner::new(cluster, options, None).plan()
    }

    /// Computes the layout of a changed cluster with the same options. Objects that stay keep their node and addresses.
    ///
    /// # Errors
    /// Fails as [`Layout::of`] does.
    pub fn with_cluster(&self, cluster: &Cluster) -> Result<Self, LayoutError> {
        Planner::new(cluster, &self.options, Some(self)).plan()
    }

    /// Returns the host-network pods of `node`.
    pub fn host_pods<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Pod> {
        self.cluster
            .pods
            .values()
            .filter(move |p| p.host_network && runs(p) && p.node.as_deref() == Some(node))
    }

    /// Returns the namespaces of the lab with their addresses: pods, nodes, then the outside.
    pub fn places(&self) -> impl Iterator<Item = (Place, &[IpAddr])> {
        let pods = self.pods.iter().map(|(k, p)| (Place::Pod(k.clone()), &*p.addresses));
        let nodes = self.nodes.iter().map(|(n, a)| (Place::Node(n.clone()), &**a));
        pods.chain(nodes).chain([(Place::Outside, &*self.outside)])
    }
}

fn runs(pod: &Pod) -> bool {
    !matches!(pod.phase, Phase::Succeeded | Phase::Failed)
}

struct Planner<'a> {
    input: &'a Cluster,
    options: &'a LayoutOptions,
    before: Option<&'a Layout>,
    /// Addresses that are assigned, or declared by an object of the cluster.
    used: BTreeSet<IpAddr>,
    next: BTreeMap<(u128, Family), u128>,
    notes: Vec<String>,
}

impl<'a> Planner<'a> {
    fn new(input: &'a Cluster, options: &'a LayoutOptions, before: Option<&'a Layout>) -> Self {
        let pods = input.pods.values().filter(|p| !p.host_network).flat_map(|p| &p.addresses);
        let nodes = input.nodes.values().flat_map(|n| &n.addresses);
        let services =
            input.services.values().flat_map(|s| s.addresses.iter().copied().chain(s.access.addresses()));
        // The addresses of the previous layout stay reserved, so that no new object gets one of them.
        let generated = before.iter().flat_map(|b| {
            let pods = b.pods.values().flat_map(|p| &p.addresses);
            pods.chain(b.nodes.values().flatten())
                .chain(b.cluster.services.values().flat_map(|s| &s.addresses))
        });
        let used = pods.chain(nodes).chain(generated).copied().chain(services).collect();
        Self { input, options, before, used, next: BTreeMap::new(), notes: Vec::new() }
    }

    fn plan(mut self) -> Result<Layout, LayoutError> {
        let names = self.node_names()?;
        let owners = self.owners();
        let nodes = self.nodes(&names, &owners);
        let mut cluster = self.input.clone();
        for (name, addresses) in &nodes {
            let node = cluster.nodes.entry(name.clone()).or_insert_with(|| Node {
                name: name.clone(),
                labels: palisade_policy::Labels::default(),
                addresses: Vec::new(),
                pod_cidrs: Vec::new(),
            });
            node.addresses.extend(addresses.iter().filter(|a| !self.input_node_has(name, **a)));
        }
        let pods = self.pods(&names, &nodes, &owners, &mut cluster);
        self.services(&mut cluster);
        let taken = pods.values().flat_map(|p| &p.addresses).chain(nodes.values().flatten());
        self.used.extend(taken.copied());
        let chosen = outside::addresses(&cluster, self.options, &self.used);
        self.notes.extend(chosen.note);
        let options = self.options.clone();
        Ok(Layout { options, cluster, nodes, pods, outside: chosen.addresses, notes: self.notes })
    }

    fn node_names(&self) -> Result<Vec<Name>, LayoutError> {
        let mentioned = self.input.pods.values().filter(|p| runs(p)).filter_map(|p| p.node.clone());
        let mut names: BTreeSet<Name> = self.input.nodes.keys().cloned().chain(mentioned).collect();
        let wanted = self.options.nodes.unwrap_or(if names.is_empty() { DEFAULT_NODES } else { 1 });
        // A running lab keeps its nodes, so that pods without `spec.nodeName` don't move.
        let before = self.before.iter().flat_map(|b| b.nodes.keys().cloned());
        let generated = (1..).map(|i| Name::from(format!("node-{i}")));
        for name in before.chain(generated) {
            if names.len() >= wanted {
                break;
            }
            names.insert(name);
        }
        match names.len() {
            0 => Err(LayoutError::NoNodes),
            n if n > MAX_NODES => Err(LayoutError::TooManyNodes(n)),
            _ => Ok(names.into_iter().collect()),
        }
    }

    fn input_node_has(&self, name: &str, address: IpAddr) -> bool {
        self.input.nodes.get(name).is_some_and(|n| n.addresses.contains(&address))
    }

    /// Returns the pod that gets each declared address (SEMANTICS G-10).
    fn owners(&self) -> BTreeMap<IpAddr, ObjectKey> {
        let mut owners: BTreeMap<IpAddr, &Pod> = BTreeMap::new();
        for pod in self.input.pods.values().filter(|p| p.is_running()) {
            for address in pod.addresses.iter().filter(|a| is_usable(**a)) {
                let owner = owners.entry(*address).or_insert(pod);
                if Pod::precedence(pod, owner).is_lt() {
                    *owner = pod;
                }
            }
        }
        owners.into_iter().map(|(a, p)| (a, p.key.clone())).collect()
    }

    fn nodes(&mut self, names: &[Name], pods: &BTreeMap<IpAddr, ObjectKey>) -> BTreeMap<Name, Vec<IpAddr>> {
        let mut taken: BTreeSet<IpAddr> = pods.keys().copied().collect();
        let mut out = BTreeMap::new();
        for name in names {
            let declared = self.input.nodes.get(name).map_or(&[][..], |n| &n.addresses);
            let mut addresses = Vec::new();
            for address in declared.iter().filter(|a| self.options.families.has(Family::of(**a))) {
                if is_usable(*address) && taken.insert(*address) {
                    addresses.push(*address);
                } else {
                    self.notes.push(format!(
                        "node {name} does not get its declared address {address}: it is in use, or no host can have it"
                    ));
                }
            }
            for family in self.options.families.all() {
                if !addresses.iter().any(|a| Family::of(*a) == *family) {
                    let before = self.before.and_then(|b| b.nodes.get(name));
                    let address =
                        self.kept(before, *family).unwrap_or_else(|| self.generate(NODES, 0, *family));
                    taken.insert(address);
                    addresses.push(address);
                }
            }
            out.insert(name.clone(), addresses);
        }
        out
    }

    fn pods(
        &mut self,
        names: &[Name],
        nodes: &BTreeMap<Name, Vec<IpAddr>>,
        owners: &BTreeMap<IpAddr, ObjectKey>,
        cluster: &mut Cluster,
    ) -> BTreeMap<ObjectKey, PodPlace> {
        let mut out = BTreeMap::new();
        let mut robin = names.iter().cycle();
        let before: BTreeMap<&ObjectKey, &PodPlace> = self.before.iter().flat_map(|b| &b.pods).collect();
        cluster.pods.edit(|pod| {
            if !runs(pod) {
                return;
            }
            let place = before.get(&pod.key);
            let stays = place.map(|p| &p.node).filter(|n| nodes.contains_key(*n));
            // The cycle has no end: `names` isn't empty.
            let node = pod.node.clone().or_else(|| stays.cloned()).or_else(|| robin.next().cloned());
            let Some(node) = node else { return };
            pod.node = Some(node.clone());
            if pod.host_network {
                pod.addresses.clone_from(&nodes[&node]);
                return;
            }
            let mut addresses = Vec::new();
            for family in self.options.families.all() {
                let address = match pod.address(*family) {
                    Some(declared) if owners.get(&declared) == Some(&pod.key) => declared,
                    Some(declared) => {
                        self.notes.push(match owners.get(&declared) {
                            Some(owner) => {
                                format!(
                                    "pod {} runs without its declared address {declared}: pod {owner} has it",
                                    pod.key
                                )
                            }
                            None => format!(
                                "pod {} runs without its declared address {declared}: no host can have it",
                                pod.key
                            ),
                        });
                        continue;
                    }
                    None => {
                        let index = names.binary_search(&node).unwrap_or(0) as u128;
                        let generated = self
                            .kept(place.map(|p| &p.addresses), *family)
                            .unwrap_or_else(|| self.generate(PODS, index, *family));
                        pod.addresses.push(generated);
                        generated
                    }
                };
                addresses.push(address);
            }
            out.insert(pod.key.clone(), PodPlace { node, addresses });
        });
        out
    }

    fn services(&mut self, cluster: &mut Cluster) {
        let before = self.before.map(|b| &b.cluster.services);
        for service in cluster.services.values_mut() {
            if !service.addresses.is_empty() || service.selector.is_none() || service.ports.is_empty() {
                continue;
            }
            let kept = before.and_then(|b| b.get(&service.key)).map(|s| &s.addresses);
            for family in self.options.families.all() {
                let address = self.kept(kept, *family).unwrap_or_else(|| self.generate(SERVICES, 0, *family));
                service.addresses.push(address);
            }
        }
    }

    /// Returns the generated address that an object had in this family before, unless another object declares it now.
    fn kept(&self, before: Option<&Vec<IpAddr>>, family: Family) -> Option<IpAddr> {
        let address = before?.iter().copied().find(|a| Family::of(*a) == family)?;
        let declared = self.input.pods.values().any(|p| p.addresses.contains(&address))
            || self.input.node_at(address).is_some();
        (!declared).then_some(address)
    }

    /// Returns a free address: for IPv4 in the `index`th /24 after the base, for IPv6 in the `index`th /64.
    fn generate(&mut self, base: (Ipv4Addr, Ipv6Addr), index: u128, family: Family) -> IpAddr {
        let (first, step) = match family {
            Family::V4 => (address::to_number(base.0.into()), 1 << 8),
            Family::V6 => (address::to_number(base.1.into()), 1 << 64),
        };
        let start = first + index * step;
        let next = self.next.entry((start, family)).or_insert(start);
        loop {
            *next += 1;
            let address = address::from_number(family, *next);
            let is_edge = family == Family::V4 && matches!(*next & 0xff, 0 | 0xff);
            if !is_edge && self.used.insert(address) {
                return address;
            }
        }
    }
}

#[cfg(test)]
mod tests {

    use palisade_policy::{Change, Labels};

    use palisade_testkit::running_pod;

    use super::*;
    use crate::options::Families;

    fn pod(name: &str, addresses: &[&str]) -> Pod {
        Pod {
            labels: Labels::default(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            ..running_pod("x", name)
        }
    }

    fn cluster(pods: impl IntoIterator<Item = Pod>) -> Cluster {
        let mut c = Cluster::default();
        pods.into_iter().for_each(|p| c.apply(Change::SetPod(p)));
        c
    }

    fn place<'a>(layout: &'a Layout, name: &str) -> &'a PodPlace {
        &layout.pods[&ObjectKey::new("x", name)]
    }

    #[test]
    fn pods_without_node_are_spread_round_robin_and_get_an_address_of_each_family() {
        let layout =
            Layout::of(&cluster([pod("a", &[]), pod("b", &[]), pod("c", &[])]), &LayoutOptions::default())
                .unwrap();
        assert_eq!(layout.nodes.len(), 2);
        assert_eq!(&*place(&layout, "a").node, "node-1");
        assert_eq!(&*place(&layout, "b").node, "node-2");
        assert_eq!(&*place(&layout, "c").node, "node-1");
        let all: BTreeSet<IpAddr> = layout.places().flat_map(|(_, a)| a.to_vec()).collect();
        assert_eq!(all.len(), 3 * 2 + 2 * 2 + layout.outside.len(), "no address is given twice");
        assert_eq!(layout.cluster.pods[&ObjectKey::new("x", "b")].addresses, place(&layout, "b").addresses);
        assert_eq!(place(&layout, "a").addresses[0].to_string(), "10.244.0.1");
        assert_eq!(place(&layout, "b").addresses[1].to_string(), "fd00:10:244:1::1");
    }

    #[test]
    fn declared_addresses_are_kept_and_generated_ones_avoid_them() {
        let declared = [pod("a", &["10.244.0.1"]), pod("b", &[]), pod("c", &["192.168.200.11"])];
        let layout = Layout::of(
            &cluster(declared),
            &LayoutOptions { families: Families::V4, nodes: Some(1), ..LayoutOptions::default() },
        )
        .unwrap();
        assert_eq!(place(&layout, "a").addresses, ["10.244.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(place(&layout, "b").addresses, ["10.244.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(layout.nodes["node-1"], ["192.168.200.12".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn an_address_that_two_pods_declare_goes_to_its_owner() {
        let mut newer = pod("b", &["10.0.0.1"]);
        newer.created = 5;
        let finished = Pod { phase: Phase::Succeeded, created: 9, ..pod("c", &["10.0.0.1"]) };
        let options = LayoutOptions { families: Families::V4, ..LayoutOptions::default() };
        let layout = Layout::of(&cluster([pod("a", &["10.0.0.1"]), newer, finished]), &options).unwrap();
        assert!(place(&layout, "a").addresses.is_empty());
        assert_eq!(place(&layout, "b").addresses.len(), 1);
        assert!(!layout.pods.contains_key(&ObjectKey::new("x", "c")), "finished pods don't run");
        assert_eq!(layout.notes.len(), 1, "{:?}", layout.notes);
    }

    #[test]
    fn nodes_named_by_pods_exist_and_host_network_pods_have_their_addresses() {
        let mut c = cluster([
            Pod { node: Some("w2".into()), ..pod("a", &[]) },
            Pod { node: Some("w1".into()), host_network: true, ..pod("h", &["10.9.9.9"]) },
        ]);
        let addresses = vec!["127.0.0.1".parse().unwrap(), "10.0.0.8".parse().unwrap()];
        c.apply(Change::SetNode(Node {
            name: "w1".into(),
            labels: Labels::default(),
            addresses,
            pod_cidrs: Vec::new(),
        }));
        let layout =
            Layout::of(&c, &LayoutOptions { families: Families::V4, ..LayoutOptions::default() }).unwrap();
        assert_eq!(layout.nodes.keys().map(|n| &**n).collect::<Vec<_>>(), ["w1", "w2"]);
        assert_eq!(layout.nodes["w1"], ["10.0.0.8".parse::<IpAddr>().unwrap()]);
        assert_eq!(layout.cluster.pods[&ObjectKey::new("x", "h")].addresses, layout.nodes["w1"]);
        assert_eq!(layout.host_pods("w1").count(), 1);
        assert_eq!(layout.host_pods("w2").count(), 0);
    }

    #[test]
    fn objects_that_stay_keep_their_place() {
        let first = Layout::of(&cluster([pod("b", &[]), pod("c", &[])]), &LayoutOptions::default()).unwrap();
        let second = first.with_cluster(&cluster([pod("a", &[]), pod("b", &[]), pod("c", &[])])).unwrap();
        for name in ["b", "c"] {
            assert_eq!(place(&first, name), place(&second, name));
        }
        assert_eq!(first.nodes, second.nodes);
        let third = second.with_cluster(&cluster([pod("c", &[])])).unwrap();
        assert_eq!(place(&third, "c"), place(&first, "c"));
    }

    #[test]
    fn zero_and_too_many_nodes_are_refused() {
        let options = LayoutOptions { nodes: Some(0), ..LayoutOptions::default() };
        assert_eq!(Layout::of(&Cluster::default(), &options), Err(LayoutError::NoNodes));
        let options = LayoutOptions { nodes: Some(300), ..LayoutOptions::default() };
        assert_eq!(Layout::of(&Cluster::default(), &options), Err(LayoutError::TooManyNodes(300)));
    }
}

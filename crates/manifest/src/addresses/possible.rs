//! The ranges in which an unknown address may lie.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use palisade_policy::{
    Cluster, Family, IpRange, Name, Pod,
    address::{union, without},
};

use super::{AddressEvidence, AddressPlan};

/// Where no pod or node can be: this network, loopback, link-local, multicast and broadcast addresses (RFC 6890, RFC
/// 4291). Class E is not among them: some clusters use it for pods.
const IMPOSSIBLE: [&str; 10] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "::ffff:0:0/96",
    "fe80::/10",
    "ff00::/8",
];

/// The possible addresses of pods and nodes.
#[derive(Debug)]
pub(super) struct PossibleRanges {
    /// The ranges that the user gave.
    given: Vec<IpRange>,
    /// The ranges of all nodes, if no pod contradicts them.
    of_nodes: Vec<IpRange>,
    /// The ranges of each node, if no pod contradicts them.
    of_node: BTreeMap<Name, Vec<IpRange>>,
    /// `given` and `of_nodes`.
    all: Vec<IpRange>,
    /// The known addresses of pods, nodes and services, sorted.
    held: Vec<IpRange>,
    /// The answers for the pods of each node that has ranges of its own, and of all other nodes.
    known: HashMap<(Option<Name>, Family), Arc<[IpRange]>>,
}

impl PossibleRanges {
    /// Collects what is known. The nodes' ranges count only if all known pods are in them: some network plugins ignore
    /// them.
    pub(super) fn new(cluster: &Cluster, plan: &AddressPlan, evidence: &AddressEvidence) -> Self {
        let ranges = |nets: &[IpNet]| union(nets.iter().map(IpRange::of_net).collect());
        let given = ranges(&plan.pod_cidrs);
        let of_node: BTreeMap<Name, Vec<IpRange>> =
            evidence.pod_cidrs.iter().map(|(name, nets)| (name.clone(), ranges(nets))).collect();
        let of_nodes = union(of_node.values().flatten().copied().collect());
        let agree = |pod: &Pod, ranges: &[IpRange]| {
            pod.addresses.iter().all(|a| ranges.iter().all(|r| !same_family(r, *a)) || holds(ranges, *a))
        };
        let pods = || cluster.pods.values().filter(|pod| pod.is_running());
        let of_nodes = if pods().all(|pod| agree(pod, &of_nodes)) { of_nodes } else { Vec::new() };
        let on_their_node =
            pods().all(|pod| pod.node.as_ref().and_then(|n| of_node.get(n)).is_none_or(|r| agree(pod, r)));
        let of_node = if on_their_node && !of_nodes.is_empty() { of_node } else { BTreeMap::new() };
        let known = cluster.pods.values().flat_map(|pod| &pod.addresses);
        let known = known.chain(cluster.nodes.values().flat_map(|node| &node.addresses));
        let known = known.chain(cluster.services.values().flat_map(|service| &service.addresses));
        let held = union(known.map(|a| IpRange { first: *a, last: *a }).collect());
        let all = union(given.iter().chain(&of_nodes).copied().collect());
        Self { given, of_nodes, of_node, all, held, known: HashMap::new() }
    }

    /// Returns the ranges from which pods get their addresses, canonical; empty if they are not known.
    pub(super) fn pod_ranges(&self) -> &[IpRange] {
        &self.all
    }

    /// Returns the possible addresses of a pod on this node, canonical: those of the node, else those that the user gave,
    /// else those of all nodes, else any; without those that other objects have.
    pub(super) fn of_pod(&mut self, node: Option<&Name>, family: Family) -> Arc<[IpRange]> {
        let node = node.filter(|n| self.of_node.contains_key(*n));
        let key = (node.cloned(), family);
        if let Some(known) = self.known.get(&key) {
            return Arc::clone(known);
        }
        let ranges = self.without_held(self.base(node, family));
        self.known.insert(key, Arc::clone(&ranges));
        ranges
    }

    /// Returns the ranges of a pod, with the addresses that other objects have.
    fn base(&self, node: Option<&Name>, family: Family) -> Vec<IpRange> {
        let of_family = |ranges: &[IpRange]| -> Vec<IpRange> {
            ranges.iter().copied().filter(|r| Family::of(r.first) == family).collect()
        };
        let given = of_family(&self.given);
        let own = node.and_then(|n| self.of_node.get(n)).map_or_else(Vec::new, |ranges| of_family(ranges));
        let is_given = |r: &IpRange| given.iter().any(|g| g.contains(r.first) && g.contains(r.last));
        if !own.is_empty() && (given.is_empty() || own.iter().all(is_given)) {
            return own;
        }
        let ranges = if given.is_empty() { of_family(&self.of_nodes) } else { given };
        if ranges.is_empty() { anywhere(family) } else { ranges }
    }

    /// Returns the possible addresses of a node, canonical: any that no pod can have and no other object has.
    pub(super) fn of_node(&self, family: Family) -> Arc<[IpRange]> {
        let base = anywhere(family);
        self.without_held(
            base.into_iter().flat_map(|range| without(range, self.all.iter().copied())).collect(),
        )
    }

    fn without_held(&self, base: Vec<IpRange>) -> Arc<[IpRange]> {
        let free = base.iter().flat_map(|range| {
            let first = self.held.partition_point(|h| h.last < range.first);
            let inside = self.held[first..].iter().take_while(|h| h.first <= range.last);
            without(*range, inside.copied())
        });
        let free: Vec<IpRange> = free.collect();
        // If the range is used up, the manifests contradict each other, and its addresses are the best guess.
        if free.is_empty() { base.into() } else { free.into() }
    }
}

fn same_family(range: &IpRange, address: IpAddr) -> bool {
    Family::of(range.first) == Family::of(address)
}

/// Returns whether canonical ranges contain an address.
fn holds(ranges: &[IpRange], address: IpAddr) -> bool {
    let after = ranges.partition_point(|r| r.first <= address);
    after > 0 && ranges[after - 1].contains(address)
}

/// Returns all addresses of a family that a pod or node can have.
fn anywhere(family: Family) -> Vec<IpRange> {
    let impossible = IMPOSSIBLE.iter().filter_map(|net| net.parse::<IpNet>().ok());
    without(IpRange::whole(family), impossible.map(|net| IpRange::of_net(&net)))
}

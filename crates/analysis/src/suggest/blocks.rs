//! CIDRs for addresses that were seen: few enough to be read, and none that contains an address of a pod, or of a node that was
//! not seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use palisade_policy::{Cluster, Family, IpBlock, IpRange, address::union};

use crate::public::{has_public_address, internet_block};

/// The most CIDRs that are listed before they are merged to greater ones.
const MAX_BLOCKS: usize = 8;

/// The lengths of the prefixes to which addresses are merged: single addresses, subnets, sites.
const LENGTHS: [(Family, [u8; 3]); 2] = [(Family::V4, [32, 24, 16]), (Family::V6, [128, 64, 48])];

/// Addresses that no merged block may contain: those of pods, and those of nodes that were not seen.
pub(super) struct ClusterRanges {
    /// The ranges of pods, IPv4 first.
    pods: [Vec<IpRange>; 2],
    nodes: BTreeSet<IpAddr>,
}

impl ClusterRanges {
    pub(super) fn of(cluster: &Cluster) -> Self {
        let addressing = &cluster.addressing;
        let pods = cluster
            .pods
            .values()
            .filter(|pod| pod.is_running())
            .flat_map(|pod| pod.addresses.iter().copied());
        let known = pods.filter(|address| !addressing.is_placeholder(*address));
        let known = known.map(|address| IpRange { first: address, last: address });
        let of_nodes = cluster.nodes.values().flat_map(|node| &node.pod_cidrs).map(IpRange::of_net);
        let all: Vec<IpRange> = known.chain(of_nodes).chain(addressing.pod_ranges.iter().copied()).collect();
        let pods = Family::BOTH.map(|family| {
            union(all.iter().copied().filter(|range| Family::of(range.first) == family).collect())
        });
        let nodes = cluster.nodes.values().flat_map(|node| node.addresses.iter().copied());
        Self { pods, nodes: nodes.filter(|address| !addressing.is_placeholder(*address)).collect() }
    }

    /// Returns whether a block for `seen` may not be this one.
    fn forbid(&self, net: &IpNet, seen: &BTreeSet<IpAddr>) -> bool {
        let range = IpRange::of_net(net);
        let pods = &self.pods[usize::from(Family::of_net(net) == Family::V6)];
        // The first range that does not end before it.
        let at = pods.partition_point(|other| other.last < range.first);
        let has_pods = pods.get(at).is_some_and(|other| other.first <= range.last);
        has_pods || self.nodes.range(range.first..=range.last).any(|node| !seen.contains(node))
    }
}

/// Returns the blocks for these addresses, sorted, each with the addresses that it stands for.
pub(super) fn blocks(
    addresses: &BTreeSet<IpAddr>,
    cluster: &ClusterRanges,
) -> BTreeMap<IpBlock, BTreeSet<IpAddr>> {
    let mut out = BTreeMap::new();
    for (family, lengths) in LENGTHS {
        let own = addresses.iter().copied().filter(|address| Family::of(*address) == family);
        let is_public = |address: &IpAddr| has_public_address(&IpRange { first: *address, last: *address });
        let (public, other): (BTreeSet<IpAddr>, BTreeSet<IpAddr>) = own.partition(is_public);
        let merged = merged(&public, lengths, cluster);
        if merged.len() > MAX_BLOCKS {
            out.insert(internet_block(family), public);
        } else {
            out.extend(merged);
        }
        out.extend(self::merged(&other, lengths, cluster));
    }
    out
}

/// Merges addresses to the longest prefixes of which there are not too many, else to the shortest.
fn merged(
    addresses: &BTreeSet<IpAddr>,
    lengths: [u8; 3],
    cluster: &ClusterRanges,
) -> BTreeMap<IpBlock, BTreeSet<IpAddr>> {
    let mut out = BTreeMap::new();
    for length in lengths {
        out.clear();
        for address in addresses {
            let net = IpNet::new(*address, length).map(|net| net.trunc()).ok();
            let cidr = net.filter(|net| !cluster.forbid(net, addresses)).unwrap_or(IpNet::from(*address));
            let block = IpBlock { cidr, except: [].into() };
            out.entry(block).or_insert_with(BTreeSet::new).insert(*address);
        }
        if out.len() <= MAX_BLOCKS {
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use palisade_testkit::running_pod;

    use super::*;

    fn texts(addresses: &[String], cluster: &Cluster) -> Vec<String> {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let found = blocks(&addresses, &ClusterRanges::of(cluster));
        found.iter().map(|(block, seen)| format!("{}: {}", block.cidr, seen.len())).collect()
    }

    #[test]
    fn few_addresses_are_listed_and_many_are_merged() {
        let empty = Cluster::default();
        let hosts = |net: &str, number: usize| -> Vec<String> {
            (1..=number).map(|n| format!("{net}.{n}")).collect()
        };
        assert_eq!(texts(&hosts("8.8.8", 2), &empty), ["8.8.8.1/32: 1", "8.8.8.2/32: 1"]);
        assert_eq!(texts(&hosts("8.8.8", 9), &empty), ["8.8.8.0/24: 9"]);
        let spread: Vec<String> = (1..=9).map(|n| format!("8.8.{n}.1")).collect();
        assert_eq!(texts(&spread, &empty), ["8.8.0.0/16: 9"]);
        let far: Vec<String> = (1..=9).map(|n| format!("8.{n}.1.1")).collect();
        assert_eq!(texts(&far, &empty), ["0.0.0.0/0: 9"], "the internet");
        let private: Vec<String> = (1..=9).map(|n| format!("10.{n}.1.1")).collect();
        assert_eq!(texts(&private, &empty).len(), 9, "private networks are not merged to all of them");
        let v6: Vec<String> = (1..=9).map(|n| format!("2a00:1::{n}")).collect();
        assert_eq!(texts(&v6, &empty), ["2a00:1::/64: 9"]);
    }

    #[test]
    fn addresses_of_pods_are_not_in_a_block_that_others_made() {
        let mut cluster = Cluster::default();
        let hosts: Vec<String> = (1..=9).map(|n| format!("192.168.7.{n}")).collect();
        assert_eq!(texts(&hosts, &cluster), ["192.168.7.0/24: 9"]);
        let pod = palisade_policy::Pod {
            addresses: vec!["192.168.7.200".parse().unwrap()],
            ..running_pod("shop", "web")
        };
        cluster.pods.insert(pod);
        assert_eq!(texts(&hosts, &cluster).len(), 9);
        cluster.pods = palisade_policy::Pods::default();
        let node = |last| palisade_policy::Node {
            name: "n1".into(),
            labels: palisade_policy::Labels::default(),
            addresses: vec![[192, 168, 7, last].into()],
            pod_cidrs: Vec::new(),
        };
        cluster.nodes.insert("n1".into(), node(200));
        assert_eq!(texts(&hosts, &cluster).len(), 9, "a node that was not seen");
        cluster.nodes.insert("n1".into(), node(3));
        assert_eq!(texts(&hosts, &cluster).len(), 1, "a node that was seen");
        cluster.pods = palisade_policy::Pods::default();
        cluster.addressing.pod_ranges.push(IpRange::of_net(&"192.168.0.0/16".parse().unwrap()));
        assert_eq!(texts(&hosts, &cluster).len(), 9);
    }
}

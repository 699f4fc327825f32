//! Regions of the internet that policies distinguish.
//!
//! "Can this pod reach the internet?" has a single answer only if no CIDR divides the internet. This module divides it, so
//! that the question can be asked once for each region.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use palisade_policy::{
    Cluster, Direction, Family, IpRange, Peer, Pod, Policy,
    address::{from_number, to_number, union, without},
};

use crate::{
    public::not_internet,
    space::{AddressSpace, BlockSet},
};

/// Addresses outside the cluster that no rule distinguishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// The ranges: sorted, disjoint, not adjacent.
    pub ranges: Vec<IpRange>,
    /// An address that represents the region.
    pub sample: IpAddr,
    /// The ranges of the question of which it is a part. Empty: the internet.
    pub asked: Vec<IpRange>,
}

impl Region {
    /// Returns the number of addresses, or `u128::MAX` if there are more.
    #[must_use]
    pub fn size(&self) -> u128 {
        self.ranges.iter().fold(0, |sum: u128, r| sum.saturating_add(distance(r)).saturating_add(1))
    }
}

/// Preferred samples: documentation addresses (RFC 5737, RFC 3849), which belong to no real host.
const PREFERRED: [&str; 3] = ["203.0.113.1", "198.51.100.1", "2001:db8::1"];

/// Divides the public internet of one family by the rules that apply to `subject` in `direction`. The addresses of the
/// cluster are left out. The largest region comes first. Without a subject (if the other end is no running pod) no rule
/// applies, and there is a single region.
///
/// `O(n log n)` in the CIDRs of the policies that select the subject, times the rules that overlap at one address.
#[must_use]
pub fn internet(
    cluster: &Cluster,
    subject: Option<&Pod>,
    direction: Direction,
    family: Family,
) -> Vec<Region> {
    divided(cluster, subject, direction, family, None)
}

/// Returns the ranges of the public internet, in the families of the cluster, without those of its pods.
#[must_use]
pub fn public_ranges(cluster: &Cluster) -> Vec<IpRange> {
    let holes = union(not_internet().chain(cluster.addressing.pod_ranges.iter().copied()).collect());
    let families = Family::BOTH.into_iter().filter(|family| cluster.addressing.has(*family));
    families.flat_map(|family| without(IpRange::whole(family), holes.iter().copied())).collect()
}

/// As [`internet`], for the addresses of some ranges, whether they are public or not. The addresses of the cluster are left
/// out.
#[must_use]
pub fn within(
    cluster: &Cluster,
    subject: Option<&Pod>,
    direction: Direction,
    family: Family,
    ranges: &[IpRange],
) -> Vec<Region> {
    divided(cluster, subject, direction, family, Some(ranges))
}

/// Divides the public internet, or these ranges.
fn divided(
    cluster: &Cluster,
    subject: Option<&Pod>,
    direction: Direction,
    family: Family,
    ranges: Option<&[IpRange]>,
) -> Vec<Region> {
    let blocks = subject.map_or_else(Vec::new, |pod| rule_ranges(cluster, pod, direction));
    divided_by(cluster, blocks, family, ranges)
}

/// Returns an address of each part of the public internet that an egress rule of any policy distinguishes, in the families of
/// the cluster.
///
/// `O(n log n)` in the CIDRs of the policies, times the rules that overlap at one address.
#[must_use]
pub fn samples(cluster: &Cluster) -> Vec<IpAddr> {
    of_all_policies(cluster).map(|region| region.sample).collect()
}

/// As [`samples`], with at most `most` neighboring addresses of each part, the sample first.
#[must_use]
pub fn several_samples(cluster: &Cluster, most: usize) -> Vec<Vec<IpAddr>> {
    let several = |region: Region| {
        let range = region.ranges.iter().find(|range| range.contains(region.sample));
        let last = range.map_or(region.sample, |range| range.last);
        let numbers = to_number(region.sample)..=to_number(last);
        numbers.take(most).map(|number| from_number(Family::of(last), number)).collect()
    };
    of_all_policies(cluster).map(several).collect()
}

/// Divides the public internet by the egress rules of all policies.
fn of_all_policies(cluster: &Cluster) -> impl Iterator<Item = Region> {
    let blocks = ranges_of(cluster, cluster.policies.values().map(|policy| &**policy), Direction::Egress);
    let families = Family::BOTH.into_iter().filter(|family| cluster.addressing.has(*family));
    families.flat_map(move |family| divided_by(cluster, blocks.clone(), family, None))
}

/// Divides the public internet, or these ranges, by blocks.
fn divided_by(
    cluster: &Cluster,
    mut blocks: Vec<Vec<IpRange>>,
    family: Family,
    ranges: Option<&[IpRange]>,
) -> Vec<Region> {
    let (excluded, included) = (blocks.len(), blocks.len() + 1);
    // An address in the pods' ranges belongs to a pod or is unused.
    let special = not_internet().chain(cluster.addressing.pod_ranges.iter().copied());
    let special = special.filter(|_| ranges.is_none());
    blocks.push(union(special.chain(own_ranges(cluster)).collect()));
    blocks.push(union(ranges.unwrap_or_default().to_vec()));
    let space = AddressSpace::new(blocks);
    let excluded: HashSet<&BlockSet> = space.sets_with(excluded).iter().collect();
    let included: HashSet<&BlockSet> = space.sets_with(included).iter().collect();
    let is_meant = |set: &BlockSet| !excluded.contains(set) && (ranges.is_none() || included.contains(set));
    let mut regions: BTreeMap<BlockSet, Vec<IpRange>> = BTreeMap::new();
    for (range, set) in space.ranges(family).filter(|(_, set)| is_meant(set)) {
        regions.entry(set).or_default().push(range);
    }
    let of_family = |range: &&IpRange| Family::of(range.first) == family;
    let asked = union(ranges.unwrap_or_default().iter().filter(of_family).copied().collect());
    let part = |ranges| Region { asked: asked.clone(), ..region(family, ranges) };
    let mut out: Vec<Region> = regions.into_values().map(part).collect();
    out.sort_by_key(|r| (std::cmp::Reverse(r.size()), r.sample));
    out
}

/// The known addresses of the cluster's objects.
fn own_ranges(cluster: &Cluster) -> Vec<IpRange> {
    let pods = cluster.pods.values().flat_map(|p| &p.addresses);
    let nodes = cluster.nodes.values().flat_map(|n| &n.addresses);
    let services =
        cluster.services.values().flat_map(|s| s.addresses.iter().copied().chain(s.access.addresses()));
    let own = pods.chain(nodes).copied().chain(services);
    let own = own.filter(|a| !cluster.addressing.is_placeholder(*a));
    own.map(|a| IpRange { first: a, last: a }).collect()
}

/// The ranges in the blocks and the learned addresses of each rule that applies to a pod.
pub(crate) fn rule_ranges(cluster: &Cluster, pod: &Pod, direction: Direction) -> Vec<Vec<IpRange>> {
    let namespace = cluster.namespaces.get(&pod.key.namespace).map(|n| &n.labels);
    let selects = |p: &&Policy| p.subject.matches(&pod.key.namespace, namespace, &pod.labels);
    ranges_of(cluster, cluster.policies.values().map(|policy| &**policy).filter(selects), direction)
}

/// The ranges in the blocks and the learned addresses of each rule of some policies.
pub(crate) fn ranges_of<'a>(
    cluster: &Cluster,
    policies: impl Iterator<Item = &'a Policy>,
    direction: Direction,
) -> Vec<Vec<IpRange>> {
    let peers =
        policies.flat_map(|p| p.rules(direction).unwrap_or_default()).filter_map(|r| r.peers.as_ref());
    let ranges = peers.map(|peers| {
        let ranges = peers.iter().filter_map(|p| match &p.peer {
            Peer::Block(block) => Some(block.ranges()),
            Peer::DomainName(pattern) => Some(cluster.learned_ranges(pattern)),
            Peer::Pods(_) | Peer::Nodes(_) => None,
        });
        union(ranges.flatten().collect())
    });
    ranges.filter(|ranges| !ranges.is_empty()).collect()
}

/// The last address of a range minus the first.
fn distance(range: &IpRange) -> u128 {
    to_number(range.last) - to_number(range.first)
}

fn region(family: Family, ranges: Vec<IpRange>) -> Region {
    let preferred = PREFERRED.iter().filter_map(|a| a.parse::<IpAddr>().ok());
    let preferred = preferred.into_iter().find(|a| ranges.iter().any(|r| r.contains(*a)));
    // In the first of the largest ranges, the second address, since the first may be the network's.
    let largest = ranges.iter().min_by_key(|r| std::cmp::Reverse(distance(r)));
    let number = largest.map_or(0, |r| to_number(r.first) + distance(r).min(1));
    let sample = preferred.unwrap_or_else(|| from_number(family, number));
    Region { sample, ranges, asked: Vec::new() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use palisade_policy::{
        Action, IpBlock, Labels, NamespaceMatch, PeerEntry, PodMatch, PolicyKey, Rule, Selector, Tier,
    };
    use palisade_testkit::running_pod;

    fn subject() -> Pod {
        Pod {
            labels: Labels::default(),
            addresses: vec!["8.8.8.8".parse().unwrap()],
            ..running_pod("shop", "web")
        }
    }

    fn cluster(rules: &[&[(&str, &[&str])]]) -> Cluster {
        let rule = |blocks: &&[(&str, &[&str])]| Rule {
            name: None,
            action: Action::Accept,
            peers: Some(
                blocks
                    .iter()
                    .map(|(cidr, except)| PeerEntry {
                        peer: Peer::Block(IpBlock {
                            cidr: cidr.parse().unwrap(),
                            except: except.iter().map(|e| e.parse().unwrap()).collect(),
                        }),
                        origin: None,
                    })
                    .collect(),
            ),
            ports: None,
            origin: None,
        };
        let policy = Policy {
            key: PolicyKey::network_policy("shop", "p"),
            tier: Tier::Developer,
            priority: 0,
            mode: None,
            subject: PodMatch {
                namespaces: NamespaceMatch::Named("shop".into()),
                pods: Selector::everything(),
            },
            ingress: None,
            egress: Some(rules.iter().map(rule).collect()),
            origin: None,
        };
        let mut cluster = Cluster::default();
        cluster.policies.insert(policy.key.clone(), Arc::new(policy));
        let pod = subject();
        cluster.pods.insert(pod);
        cluster
    }

    fn samples(cluster: &Cluster, family: Family) -> Vec<String> {
        let regions = internet(cluster, Some(&subject()), Direction::Egress, family);
        regions.iter().map(|r| r.sample.to_string()).collect()
    }

    #[test]
    fn without_cidrs_there_is_one_region() {
        let cluster = cluster(&[]);
        assert_eq!(samples(&cluster, Family::V4), ["203.0.113.1"]);
        assert_eq!(samples(&cluster, Family::V6), ["2001:db8::1"]);
        assert_eq!(internet(&cluster, None, Direction::Egress, Family::V4).len(), 1);
        assert_eq!(internet(&cluster, Some(&subject()), Direction::Ingress, Family::V4).len(), 1);
    }

    #[test]
    fn excepting_private_ranges_does_not_divide_it() {
        let all = [("0.0.0.0/0", &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"] as &[&str])];
        assert_eq!(samples(&cluster(&[&all]), Family::V4), ["203.0.113.1"]);
    }

    #[test]
    fn a_cidr_divides_it_and_its_exceptions_join_the_rest() {
        let cluster = cluster(&[&[("203.0.113.0/24", &["203.0.113.128/25"])]]);
        let regions = internet(&cluster, Some(&subject()), Direction::Egress, Family::V4);
        assert_eq!(regions.len(), 2);
        assert_eq!(regions[0].sample.to_string(), "198.51.100.1");
        assert!(regions[0].ranges.iter().any(|r| r.contains("203.0.113.200".parse().unwrap())));
        assert_eq!(
            regions[1].ranges.iter().map(IpRange::to_string).collect::<Vec<_>>(),
            ["203.0.113.0-203.0.113.127"]
        );
        assert_eq!(regions[1].size(), 128);
        assert_eq!(samples(&cluster, Family::V6).len(), 1, "the other family is not divided");
    }

    #[test]
    fn each_rule_is_one_region_and_overlaps_are_others() {
        let many: Vec<String> = (0..200).map(|i| format!("20.0.{i}.0/28")).collect();
        let many: Vec<(&str, &[&str])> = many.iter().map(|c| (&**c, &[] as &[&str])).collect();
        assert_eq!(samples(&cluster(&[&many]), Family::V4).len(), 2);
        let overlapping = cluster(&[&[("20.0.0.0/8", &[])], &[("20.1.0.0/16", &[])], &[("21.0.0.0/8", &[])]]);
        assert_eq!(samples(&overlapping, Family::V4).len(), 4);
    }

    #[test]
    fn the_addresses_of_the_cluster_are_left_out() {
        let cluster = cluster(&[&[("8.8.8.8/32", &[])], &[("10.0.0.0/8", &[])]]);
        assert_eq!(samples(&cluster, Family::V4), ["203.0.113.1"], "8.8.8.8 is a pod, and 10/8 is private");
    }

    #[test]
    fn regions_cover_the_internet_once() {
        let cluster =
            cluster(&[&[("0.0.0.0/1", &["8.0.0.0/8"])], &[("255.0.0.0/8", &[]), ("1.0.0.0/32", &[])]]);
        let regions = internet(&cluster, Some(&subject()), Direction::Egress, Family::V4);
        let whole = internet(&cluster, None, Direction::Egress, Family::V4);
        assert_eq!(regions.iter().map(Region::size).sum::<u128>(), whole[0].size());
        assert_eq!(union(regions.into_iter().flat_map(|r| r.ranges).collect()), whole[0].ranges);
    }
}

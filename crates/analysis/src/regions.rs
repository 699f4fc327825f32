//! The outside of a cluster, cut into the pieces that policies tell apart.
//!
//! "Can this pod reach the internet?" has one answer only if no CIDR splits the internet. This module finds the splits,
//! so that the question can be asked once for each piece, and be answered for all of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::{
    Cluster, Direction, Family, IpBlock, IpRange, Peer, Pod,
    address::{from_number, max_number, to_number},
};

/// Addresses outside the cluster that every rule in question treats alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its ranges, sorted, disjoint.
    pub ranges: Vec<IpRange>,
    /// One address of it. It stands for all.
    pub sample: IpAddr,
}

impl Region {
    /// How many addresses it has, at most `u128::MAX`.
    #[must_use]
    pub fn size(&self) -> u128 {
        self.ranges.iter().fold(0, |sum: u128, r| {
            sum.saturating_add(to_number(r.last) - to_number(r.first)).saturating_add(1)
        })
    }
}

/// Ranges that are no part of the public internet. IPv4: this host, private and shared networks, loopback, link-local,
/// multicast and reserved (IANA's special-purpose address registry, RFC 6890). IPv6: whatever is not global unicast,
/// 2000::/3 (RFC 4291). Documentation ranges stay in: they are what examples call the outside.
const NOT_PUBLIC: [&str; 12] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "224.0.0.0/3",
    "::/3",
    "4000::/2",
    "8000::/1",
];

/// What a region's sample is, where the region has it: the documentation addresses (RFC 5737, RFC 3849), which can't be
/// taken for anybody's.
const PREFERRED: [&str; 3] = ["203.0.113.1", "198.51.100.1", "2001:db8::1"];

/// The public internet in one family, less the cluster's own addresses, cut where the rules that act on `subject` in
/// `direction` cut it. The largest region comes first. Without a subject (the other end is no live pod) no rule acts,
/// and there is one region.
///
/// `O(n log n)` in the CIDRs of the policies that select the subject, times the rules that overlap at one address.
#[must_use]
pub fn internet(
    cluster: &Cluster,
    subject: Option<&Pod>,
    direction: Direction,
    family: Family,
) -> Vec<Region> {
    let outside = complement(family, closed_ranges(cluster, family));
    let rules = subject.map_or_else(Vec::new, |pod| rule_ranges(cluster, pod, direction, family));
    let mut regions: BTreeMap<BTreeSet<usize>, Vec<Span>> = BTreeMap::new();
    for (active, span) in segments(family, &rules) {
        let open = intersect(&outside, span);
        if !open.is_empty() {
            regions.entry(active).or_default().extend(open);
        }
    }
    let mut out: Vec<Region> = regions.into_values().map(|spans| region(family, spans)).collect();
    out.sort_by_key(|r| (std::cmp::Reverse(r.size()), r.sample));
    out
}

/// First and last address as numbers.
type Span = (u128, u128);

/// What isn't the internet: special ranges, and the addresses of the cluster's own objects.
fn closed_ranges(cluster: &Cluster, family: Family) -> Vec<Span> {
    let special = NOT_PUBLIC.iter().filter_map(|c| c.parse::<ipnet::IpNet>().ok());
    let special = special.filter(|c| Family::of_net(c) == family).map(|c| span_of(IpRange::of_net(&c)));
    let pods = cluster.pods.values().flat_map(|p| &p.addresses);
    let nodes = cluster.nodes.values().flat_map(|n| &n.addresses);
    let services = cluster.services.values().flat_map(|s| &s.addresses);
    let own = pods.chain(nodes).chain(services).filter(|a| Family::of(**a) == family);
    special.chain(own.map(|a| (to_number(*a), to_number(*a)))).collect()
}

fn span_of(range: IpRange) -> Span {
    (to_number(range.first), to_number(range.last))
}

/// For each rule that acts on the subject, the addresses that its blocks hold.
fn rule_ranges(cluster: &Cluster, pod: &Pod, direction: Direction, family: Family) -> Vec<Vec<Span>> {
    let namespace = cluster.namespaces.get(&pod.key.namespace).map(|n| &n.labels);
    let acting =
        cluster.policies.values().filter(|p| p.subject.matches(&pod.key.namespace, namespace, &pod.labels));
    acting
        .flat_map(|p| p.rules(direction).unwrap_or_default())
        .filter_map(|rule| rule.peers.as_ref())
        .map(|peers| {
            let blocks =
                peers.iter().filter_map(|p| if let Peer::Block(b) = &p.peer { Some(b) } else { None });
            merge(
                blocks
                    .filter(|b| Family::of_net(&b.cidr) == family)
                    .flat_map(|b| block_spans(b, family))
                    .collect(),
            )
        })
        .filter(|spans| !spans.is_empty())
        .collect()
}

fn block_spans(block: &IpBlock, family: Family) -> Vec<Span> {
    let except = block.except.iter().filter(|e| Family::of_net(e) == family);
    let allowed = complement(family, except.map(|e| span_of(IpRange::of_net(e))).collect());
    intersect(&allowed, span_of(IpRange::of_net(&block.cidr)))
}

/// Sorts spans and joins those that overlap or touch.
fn merge(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut out: Vec<Span> = Vec::with_capacity(spans.len());
    for (first, last) in spans {
        match out.last_mut() {
            Some(previous) if first <= previous.1.saturating_add(1) => previous.1 = previous.1.max(last),
            _ => out.push((first, last)),
        }
    }
    out
}

/// The addresses of the family that are in none of the spans.
fn complement(family: Family, spans: Vec<Span>) -> Vec<Span> {
    let (mut out, mut next) = (Vec::new(), Some(0));
    for (first, last) in merge(spans) {
        if let Some(next) = next.filter(|n| *n < first) {
            out.push((next, first - 1));
        }
        next = last.checked_add(1);
    }
    let end = max_number(family);
    out.extend(next.filter(|n| *n <= end).map(|n| (n, end)));
    out
}

/// What the sorted, disjoint spans have in common with one.
fn intersect(spans: &[Span], with: Span) -> Vec<Span> {
    let from = spans.partition_point(|s| s.1 < with.0);
    let common = spans[from..].iter().take_while(|s| s.0 <= with.1);
    common.map(|s| (s.0.max(with.0), s.1.min(with.1))).collect()
}

/// The whole family in pieces, each with the rules that hold it.
fn segments(family: Family, rules: &[Vec<Span>]) -> Vec<(BTreeSet<usize>, Span)> {
    // At each number, the rules that begin to hold and those that cease to.
    let mut edges: BTreeMap<u128, (Vec<usize>, Vec<usize>)> = BTreeMap::from([(0, Default::default())]);
    for (rule, spans) in rules.iter().enumerate() {
        for &(first, last) in spans {
            edges.entry(first).or_default().0.push(rule);
            if last < max_number(family) {
                edges.entry(last + 1).or_default().1.push(rule);
            }
        }
    }
    let (mut out, mut active) = (Vec::with_capacity(edges.len()), BTreeSet::new());
    let ends: Vec<u128> = edges.keys().skip(1).map(|n| n - 1).chain([max_number(family)]).collect();
    for ((first, (begin, cease)), last) in edges.into_iter().zip(ends) {
        for rule in cease {
            active.remove(&rule);
        }
        active.extend(begin);
        out.push((active.clone(), (first, last)));
    }
    out
}

fn region(family: Family, spans: Vec<Span>) -> Region {
    let spans = merge(spans);
    let holds = |n: u128| spans.iter().any(|s| s.0 <= n && n <= s.1);
    let preferred = PREFERRED.iter().filter_map(|a| a.parse::<IpAddr>().ok());
    let preferred = preferred.filter(|a| Family::of(*a) == family).find(|a| holds(to_number(*a)));
    // The first of the largest ranges, and in it not the network's own address, where there is a choice.
    let largest = spans.iter().min_by_key(|s| std::cmp::Reverse(s.1 - s.0));
    let largest = largest.map_or(0, |s| (s.0 + 1).min(s.1));
    Region {
        sample: preferred.unwrap_or_else(|| from_number(family, largest)),
        ranges: spans
            .iter()
            .map(|s| IpRange { first: from_number(family, s.0), last: from_number(family, s.1) })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use palisade_policy::{
        Action, Labels, NamespaceMatch, ObjectKey, PeerEntry, Phase, PodMatch, Policy, PolicyKey, Rule,
        Selector, Tier,
    };

    fn subject() -> Pod {
        Pod {
            key: ObjectKey::new("shop", "web"),
            labels: Labels::default(),
            addresses: vec!["8.8.8.8".parse().unwrap()],
            node: None,
            host_network: false,
            phase: Phase::Running,
            ports: Arc::new([]),
            created: 0,
            workload: None,
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
    fn without_cidrs_the_internet_is_one() {
        let cluster = cluster(&[]);
        assert_eq!(samples(&cluster, Family::V4), ["203.0.113.1"]);
        assert_eq!(samples(&cluster, Family::V6), ["2001:db8::1"]);
        assert_eq!(internet(&cluster, None, Direction::Egress, Family::V4).len(), 1);
        assert_eq!(internet(&cluster, Some(&subject()), Direction::Ingress, Family::V4).len(), 1);
    }

    #[test]
    fn the_usual_exception_of_private_ranges_does_not_split_it() {
        let all = [("0.0.0.0/0", &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"] as &[&str])];
        assert_eq!(samples(&cluster(&[&all]), Family::V4), ["203.0.113.1"]);
    }

    #[test]
    fn a_cidr_splits_it_and_a_hole_joins_the_rest() {
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
        assert_eq!(samples(&cluster, Family::V6).len(), 1, "the other family is untouched");
    }

    #[test]
    fn many_cidrs_of_one_rule_are_one_region_and_overlapping_rules_are_several() {
        let many: Vec<String> = (0..200).map(|i| format!("20.0.{i}.0/28")).collect();
        let many: Vec<(&str, &[&str])> = many.iter().map(|c| (&**c, &[] as &[&str])).collect();
        assert_eq!(samples(&cluster(&[&many]), Family::V4).len(), 2);
        let overlapping = cluster(&[&[("20.0.0.0/8", &[])], &[("20.1.0.0/16", &[])], &[("21.0.0.0/8", &[])]]);
        assert_eq!(samples(&overlapping, Family::V4).len(), 4);
    }

    #[test]
    fn the_clusters_own_addresses_are_not_outside() {
        let cluster = cluster(&[&[("8.8.8.8/32", &[])], &[("10.0.0.0/8", &[])]]);
        assert_eq!(samples(&cluster, Family::V4), ["203.0.113.1"], "8.8.8.8 is a pod here, 10/8 is private");
    }

    #[test]
    fn regions_cover_the_whole_outside_once() {
        let cluster =
            cluster(&[&[("0.0.0.0/1", &["8.0.0.0/8"])], &[("255.0.0.0/8", &[]), ("1.0.0.0/32", &[])]]);
        let regions = internet(&cluster, Some(&subject()), Direction::Egress, Family::V4);
        let whole = internet(&cluster, None, Direction::Egress, Family::V4);
        assert_eq!(regions.iter().map(Region::size).sum::<u128>(), whole[0].size());
        let joined = merge(regions.iter().flat_map(|r| &r.ranges).map(|r| span_of(*r)).collect());
        assert_eq!(joined, whole[0].ranges.iter().map(|r| span_of(*r)).collect::<Vec<_>>());
    }
}

//! `ipblock-covers-pods`: finds blocks that contain addresses of pods.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{
    Family, IpBlock, IpRange, Name, ObjectKey, Peer,
    address::{from_number, to_number, without},
};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL029",
    name: "ipblock-covers-pods",
    level: Level::Warning,
    what: "Finds blocks that contain addresses of pods.",
    why: "Addresses of pods change, and network plugins disagree about them: some, such as Cilium, never match a pod by an ipBlock, and others do. Selectors match pods everywhere. Blocks of all addresses are meant for the internet and are not reported. Addresses of pods are known from a cluster, from status.podIP, and from podCIDR of nodes.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Pod
metadata: {name: cache, namespace: shop, labels: {app: cache}}
spec:
  containers: [{name: main, image: example}]
status: {podIP: 10.244.3.7, phase: Running}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Ingress]
  ingress:
  - from:
    - ipBlock: {cidr: 10.244.0.0/16}
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Pod
metadata: {name: cache, namespace: shop, labels: {app: cache}}
spec:
  containers: [{name: main, image: example}]
status: {podIP: 10.244.3.7, phase: Running}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: cache
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let known = Known::new(cx);
    let mut out = Vec::new();
    for (policy, _, rule) in cx.rules() {
        for entry in rule.peers.iter().flatten() {
            let Peer::Block(block) = &entry.peer else { continue };
            let Some(what) = known.within(block) else { continue };
            let message = format!("{} {what}: plugins differ in whether it matches pods", block.cidr);
            out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
        }
    }
    out
}

/// The addresses of pods.
struct Known<'a> {
    pods: [BTreeMap<u128, &'a ObjectKey>; 2],
    /// The ranges of nodes.
    ranges: Vec<(IpRange, &'a Name)>,
}

fn at(family: Family) -> usize {
    usize::from(family == Family::V6)
}

impl<'a> Known<'a> {
    fn new(cx: &Context<'a>) -> Self {
        let cluster = &cx.loaded.cluster;
        let mut pods = [BTreeMap::new(), BTreeMap::new()];
        for pod in cluster.pods.values().filter(|pod| pod.is_running()) {
            for address in pod.addresses.iter().filter(|a| !cluster.addressing.is_placeholder(**a)) {
                pods[at(Family::of(*address))].insert(to_number(*address), &pod.key);
            }
        }
        let nodes = cluster.nodes.values();
        let ranges = nodes.flat_map(|n| n.pod_cidrs.iter().map(|net| (IpRange::of_net(net), &n.name)));
        Self { pods, ranges: ranges.collect() }
    }

    /// Returns a node's range of pods within which a block lies, if it is not a single address: that may be of something else.
    fn around(&self, block: &IpBlock) -> Option<String> {
        if block.cidr.prefix_len() == block.cidr.max_prefix_len() {
            return None;
        }
        let whole = IpRange::of_net(&block.cidr);
        let inside = |range: &IpRange| range.contains(whole.first) && range.contains(whole.last);
        let (_, node) = self.ranges.iter().find(|(range, _)| inside(range))?;
        Some(format!("lies within the addresses of the pods of node {node}"))
    }

    /// Returns a pod or a range of pods that a block contains; all of a range, since blocks of other things may lie within
    /// the range of a node that has hardly any pods.
    fn within(&self, block: &IpBlock) -> Option<String> {
        if block.cidr.prefix_len() == 0 {
            return None;
        }
        let ranges = block.ranges();
        let pod = ranges.iter().find_map(|range| {
            let family = Family::of_net(&block.cidr);
            let (first, last) = (to_number(range.first), to_number(range.last));
            let (number, key) = self.pods[at(family)].range(first..=last).next()?;
            let address: IpAddr = from_number(family, *number);
            Some(format!("contains the address {address} of pod {key}"))
        });
        pod.or_else(|| self.around(block)).or_else(|| {
            let all_within = |range: &IpRange| without(*range, ranges.iter().copied()).is_empty();
            let of_node = self.ranges.iter().find(|(range, _)| all_within(range));
            of_node.map(|(_, node)| format!("contains the addresses of the pods of node {node}"))
        })
    }
}

//! `ipv4-only-block`: finds rules that allow every address of one IP family on a cluster that has both.

use crate::wide::{Exceptions, whole_families};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Action, Direction, Family, Peer, PeerEntry, Policy};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL044",
    name: "ipv4-only-block",
    level: Level::Warning,
    what: "Finds rules that allow every address of one IP family, or restrict those of one family only, on a cluster that has both.",
    why: "A policy isolates its pods in both families. A block has addresses of one, so connections of the other are denied; and exceptions of one family leave the other as it is.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Node
metadata: {name: one}
spec: {podCIDRs: [10.244.1.0/24, "fd00:10:244:1::/64"]}
status: {addresses: [{type: InternalIP, address: 192.0.2.11}, {type: InternalIP, address: "2001:db8::11"}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Egress]
  egress:
  - to:
    - ipBlock: {cidr: 0.0.0.0/0, except: [169.254.0.0/16]}
    ports:
    - port: 443
      protocol: TCP
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Node
metadata: {name: one}
spec: {podCIDRs: [10.244.1.0/24, "fd00:10:244:1::/64"]}
status: {addresses: [{type: InternalIP, address: 192.0.2.11}, {type: InternalIP, address: "2001:db8::11"}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Egress]
  egress:
  - to:
    - ipBlock: {cidr: 0.0.0.0/0, except: [169.254.0.0/16]}
    - ipBlock: {cidr: "::/0", except: ["fd00:ec2::254/128"]}
    ports:
    - port: 443
      protocol: TCP
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    if !is_dual_stack(cx) {
        return out;
    }
    for (policy, direction, rule) in cx.allowing() {
        let whole = whole_families(rule, Exceptions::UpToHalf);
        if let [(family, entry)] = whole[..]
            && !beside(cx, policy).any(|policy| has_block_of(policy, direction, other(family)))
        {
            let message =
                format!("the cluster has both IP families, and the rule allows every {family} address only");
            out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
        }
        if let [(_, v4), (_, v6)] = whole[..] {
            let is_restricted =
                |entry: &PeerEntry| matches!(&entry.peer, Peer::Block(block) if !block.except.is_empty());
            let (restricted, open, entry) = match (is_restricted(v4), is_restricted(v6)) {
                (true, false) => (Family::V4, Family::V6, v6),
                (false, true) => (Family::V6, Family::V4, v4),
                _ => continue,
            };
            let message = format!(
                "`except` restricts {restricted} only: the cluster has both IP families, and every {open} address is allowed"
            );
            out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
        }
    }
    out
}

fn other(family: Family) -> Family {
    if family == Family::V4 { Family::V6 } else { Family::V4 }
}

/// Whether nodes, pods or Services of the input have addresses of both families.
fn is_dual_stack(cx: &Context<'_>) -> bool {
    let cluster = &cx.loaded.cluster;
    let nodes = cluster.nodes.values();
    let of_nodes = nodes.flat_map(|node| {
        let ranges = node.pod_cidrs.iter().map(Family::of_net);
        node.addresses.iter().map(|address| Family::of(*address)).chain(ranges)
    });
    let services = cluster.services.values();
    let of_services = services.flat_map(|service| service.addresses.iter().map(|a| Family::of(*a)));
    let pods = cluster.pods.values().flat_map(|pod| pod.addresses.iter());
    let of_pods = pods.filter(|a| !cluster.addressing.is_placeholder(**a)).map(|a| Family::of(*a));
    let mut all = of_nodes.chain(of_services).chain(of_pods);
    let Some(first) = all.next() else { return false };
    all.any(|family| family != first)
}

/// Iterates over a policy and those that also select the first of its pods.
fn beside<'c>(cx: &'c Context<'_>, policy: &'c Policy) -> impl Iterator<Item = &'c Policy> {
    let profile = cx.selected(policy).next().map(|class| cx.profile(class));
    let others: Vec<&Policy> = profile.iter().flat_map(|profile| cx.in_profile(profile)).collect();
    std::iter::once(policy).chain(others)
}

/// Whether a rule of a policy allows addresses of a family: it was not forgotten.
fn has_block_of(policy: &Policy, direction: Direction, family: Family) -> bool {
    let rules =
        policy.rules(direction).unwrap_or_default().iter().filter(|rule| rule.action == Action::Accept);
    let mut peers = rules.flat_map(|rule| rule.peers.iter().flatten());
    peers.any(|entry| matches!(&entry.peer, Peer::Block(block) if Family::of_net(&block.cidr) == family))
}

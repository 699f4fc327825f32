//! `ipv4-only-block`: finds rules that allow every address of one IP family on a cluster that has both.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Family, Peer};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL044",
    name: "ipv4-only-block",
    level: Level::Note,
    what: "Finds rules that allow every address of one IP family on a cluster that has both.",
    why: "A policy isolates its pods in both families. A block has addresses of one, so connections of the other are denied.",
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
    let has = |family| {
        let mut nodes = cx.loaded.cluster.nodes.values();
        nodes.any(|node| node.addresses.iter().any(|address| Family::of(*address) == family))
    };
    let mut out = Vec::new();
    if !Family::BOTH.into_iter().all(has) {
        return out;
    }
    for (policy, _, rule) in cx.rules() {
        let blocks = rule.peers.iter().flatten().filter_map(|entry| match &entry.peer {
            Peer::Block(block) => Some((entry, Family::of_net(&block.cidr), block.cidr.prefix_len() == 0)),
            _ => None,
        });
        let blocks: Vec<_> = blocks.collect();
        for (entry, family, _) in blocks.iter().filter(|(.., whole)| *whole) {
            if blocks.iter().all(|(_, other, _)| other == family) {
                let message = format!(
                    "the cluster has both IP families, and the rule allows every {family} address only"
                );
                out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
            }
        }
    }
    out
}

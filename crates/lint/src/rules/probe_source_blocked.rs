//! `probe-source-blocked`: finds rules that allow the node by its address.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use ipnet::IpNet;
use palisade_policy::{Direction, Peer};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL038",
    name: "probe-source-blocked",
    level: Level::Warning,
    what: "Finds rules that allow the node by its address.",
    why: "Connections from a pod's own node, such as the probes of the kubelet, are always allowed. A rule with the address of a node opens connections from that node to pods on other nodes, and nothing for probes.",
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
  policyTypes: [Ingress]
  ingress:
  - from:
    - ipBlock: {cidr: 192.0.2.11/32}
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
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: web
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.allowing() {
        for entry in rule.peers.iter().flatten().filter(|_| direction == Direction::Ingress) {
            let Peer::Block(block) = &entry.peer else { continue };
            let address = block.cidr.addr();
            let message = if block.cidr.prefix_len() == block.cidr.max_prefix_len()
                && let Some(node) = cx.loaded.cluster.node_at(address)
            {
                format!(
                    "{address} is node {}: probes from a pod's own node need no rule, and this one allows the node to reach pods of others",
                    node.name
                )
            } else if is_loopback(&block.cidr) {
                format!(
                    "no packet comes to a pod from {}, and probes from a pod's own node need no rule",
                    block.cidr
                )
            } else {
                continue;
            };
            out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
        }
    }
    out
}

/// Whether a block has only addresses by which a host connects to itself.
fn is_loopback(cidr: &IpNet) -> bool {
    match cidr {
        IpNet::V4(net) => net.prefix_len() >= 8 && net.addr().is_loopback(),
        IpNet::V6(net) => net.prefix_len() == 128 && net.addr().is_loopback(),
    }
}

//! `named-port-with-ipblock`: finds port names in rules whose peers are addresses.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, Peer, PortMatch};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL026",
    name: "named-port-with-ipblock",
    level: Level::Warning,
    what: "Finds port names in rules whose peers are addresses.",
    why: "A port name is looked up in the destination pod. An egress rule to a block of addresses has no pod to look in, so the name never matches and the rule allows nothing there.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Egress]
  egress:
  - to:
    - ipBlock: {cidr: 192.0.2.0/24}
    ports:
    - port: http
      protocol: TCP
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Egress]
  egress:
  - to:
    - ipBlock: {cidr: 192.0.2.0/24}
    ports:
    - port: 80
      protocol: TCP
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.rules() {
        let peers = rule.peers.as_deref().unwrap_or_default();
        // An ingress rule looks in the pod that the policy selects.
        let only_blocks = !peers.is_empty() && peers.iter().all(|entry| matches!(entry.peer, Peer::Block(_)));
        if direction != Direction::Egress || !only_blocks {
            continue;
        }
        for entry in rule.ports.iter().flatten() {
            let PortMatch::Named { name, .. } = &entry.port else { continue };
            let message =
                format!("port name \"{name}\" never matches an address, so the rule allows nothing on it");
            out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
        }
    }
    out
}

//! `named-port-with-ipblock`: finds port names in rules whose peers are addresses.

use crate::diagnostics::{about_policies, refused_or_unusable};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_manifest::{Code, Diagnostic};
use palisade_policy::{Direction, Peer, PortMatch};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL026",
    name: "named-port-with-ipblock",
    level: Level::Warning,
    what: "Finds port names in rules whose peers are addresses.",
    why: "A port name is looked up in the destination pod. For an address that no pod has there is nothing to look in, so the name never matches and the rule allows nothing there.",
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

/// Returns whether this is what the loader found: the APIs of cluster-wide policies refuse such rules.
pub(crate) fn fits(d: &Diagnostic) -> bool {
    d.code == Code::Forbidden && d.message.contains("cannot be set with namedPorts")
}

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = about_policies(cx, fits, refused_or_unusable);
    for (policy, direction, rule) in cx.rules() {
        // An ingress rule looks in the pod that the policy selects.
        let blocks = rule.peers.iter().flatten().filter(|entry| matches!(entry.peer, Peer::Block(_)));
        let (blocks, peers) = (blocks.count(), rule.peers.iter().flatten().count());
        if direction != Direction::Egress || blocks == 0 {
            continue;
        }
        let what = if blocks == peers {
            "the rule allows nothing on it outside the pods of the cluster"
        } else {
            "it opens nothing to addresses of the ipBlock that no pod has"
        };
        for entry in rule.ports.iter().flatten() {
            let PortMatch::Named { name, .. } = &entry.port else { continue };
            let message = format!("port name \"{name}\" matches pods only, so {what}");
            out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
        }
    }
    out
}

//! `egress-anywhere`: finds egress rules to every address on every port.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, Peer, Tier};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL042",
    name: "egress-anywhere",
    level: Level::Note,
    what: "Finds egress rules to every address on every port.",
    why: "Such a rule lets the pods reach every pod, node, cloud service and host of the internet. The isolation for egress then denies nothing, or only one IP family.",
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
    - ipBlock: {cidr: 0.0.0.0/0}
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
    - ipBlock: {cidr: 0.0.0.0/0, except: [169.254.0.0/16]}
    ports:
    - port: 443
      protocol: TCP
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.rules() {
        if direction != Direction::Egress || rule.ports.is_some() || policy.tier != Tier::Developer {
            continue;
        }
        let message = "the rule allows connections to every address on every port".to_owned();
        match &rule.peers {
            None => out.push(Found::of(&policy.key, rule.origin.as_ref(), message)),
            Some(peers) => {
                let whole = peers.iter().filter(|entry| match &entry.peer {
                    Peer::Block(block) => block.cidr.prefix_len() == 0 && block.except.is_empty(),
                    _ => false,
                });
                out.extend(whole.map(|entry| Found::of(&policy.key, entry.origin.as_ref(), message.clone())));
            }
        }
    }
    out
}

//! `egress-anywhere`: finds egress rules to every address on every port.

use crate::wide::{Exceptions, is_every_port, whole_families};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::Direction;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL042",
    name: "egress-anywhere",
    level: Level::Warning,
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
    for (policy, direction, rule) in cx.allowing() {
        if direction != Direction::Egress || !is_every_port(rule) {
            continue;
        }
        if rule.peers.is_none() {
            let message = "the rule allows connections to every address on every port".to_owned();
            out.push(Found::of(&policy.key, rule.origin.as_ref(), message));
        }
        for (family, entry) in whole_families(rule, Exceptions::Narrow) {
            let message = format!("the rule allows connections to every {family} address on every port");
            out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
        }
    }
    out
}

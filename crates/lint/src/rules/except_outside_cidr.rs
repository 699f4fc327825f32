//! `except-outside-cidr`: finds exceptions that are not inside of their block.

use crate::diagnostics::{about_policies, last};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_manifest::Diagnostic;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL009",
    name: "except-outside-cidr",
    level: Level::Error,
    what: "Finds exceptions that are outside their block.",
    why: "An exception can only take addresses out of the block that it belongs to. The API server rejects the policy, so its pods are not isolated.",
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
  policyTypes: [Ingress]
  ingress:
  - from:
    - ipBlock: {cidr: 10.0.0.0/8, except: [192.168.0.0/16]}
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
  policyTypes: [Ingress]
  ingress:
  - from:
    - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}
"#
);

/// Returns whether this is what the loader found.
pub(crate) fn fits(d: &Diagnostic) -> bool {
    last(d) == "except" && d.message.contains("strict subset")
}

fn check(cx: &Context<'_>) -> Vec<Found> {
    about_policies(cx, fits, |_| "the API server rejects the policy, and what it should isolate stays open")
}

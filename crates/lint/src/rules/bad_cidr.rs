//! `bad-cidr`: finds blocks that are no CIDR, or that have host bits set.

use crate::diagnostics::{about_policies, is_invalid};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_manifest::Diagnostic;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL008",
    name: "bad-cidr",
    level: Level::Warning,
    what: "Finds blocks that are no CIDR, or that have host bits set.",
    why: "The API server rejects what is no CIDR. Host bits are accepted and ignored: 10.0.0.7/8 is 10.0.0.0/8, which is sixteen million addresses.",
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
    - ipBlock: {cidr: 10.0.0.7/8}
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
    - ipBlock: {cidr: 10.0.0.0/8}
"#
);

/// Returns whether this is what the loader found.
pub(crate) fn fits(d: &Diagnostic) -> bool {
    (is_invalid(d, "cidr") || is_invalid(d, "except")) && !super::except_outside_cidr::fits(d)
}

fn check(cx: &Context<'_>) -> Vec<Found> {
    about_policies(cx, fits, |_| "the block is rejected, or has other addresses than it seems to have")
}

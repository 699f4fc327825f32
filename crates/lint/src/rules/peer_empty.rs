//! `peer-empty`: finds peers without a field.

use crate::diagnostics::about_policies;
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_manifest::{Code, Diagnostic};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL006",
    name: "peer-empty",
    level: Level::Error,
    what: "Finds peers without a field.",
    why: "A peer must have a podSelector, a namespaceSelector or an ipBlock. The API server rejects the policy, so its pods are not isolated.",
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
    - {}
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
    - podSelector:
        matchLabels:
          app: web
"#
);

/// Returns whether this is what the loader found.
pub(crate) fn fits(d: &Diagnostic) -> bool {
    d.code == Code::Required && d.message.ends_with("must specify a peer")
}

fn check(cx: &Context<'_>) -> Vec<Found> {
    about_policies(cx, fits, |_| "the API server rejects the policy, and what it should isolate stays open")
}

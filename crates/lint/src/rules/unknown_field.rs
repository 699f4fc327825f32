//! `unknown-field`: finds fields that the API does not have.

use crate::diagnostics::about_policies;
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_manifest::{Code, Diagnostic};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL015",
    name: "unknown-field",
    level: Level::Error,
    what: "Finds fields that the API does not have.",
    why: "kubectl rejects unknown fields; other clients drop them. Without a field that restricts a rule, the rule allows more: a rule whose misplaced ports are dropped allows every port.",
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
    - podSelector:
        matchLabels:
          app: web
    port:
    - port: 8080
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
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: web
    ports:
    - port: 8080
      protocol: TCP
"#
);

/// Returns whether this is what the loader found.
pub(crate) fn fits(d: &Diagnostic) -> bool {
    d.code == Code::UnknownField && !super::wrong_direction_key::fits(d)
}

fn check(cx: &Context<'_>) -> Vec<Found> {
    let found = about_policies(
        cx,
        fits,
        |_| "clients drop it or refuse the policy, and what is left means something else",
    );
    found.into_iter().map(|found| found.at_level(Level::Error)).collect()
}

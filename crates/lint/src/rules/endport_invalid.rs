//! `endport-invalid`: finds ranges of ports that end before they begin, or have no beginning.

use crate::diagnostics::{about_policies, is_invalid, refused_or_unusable};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_manifest::Diagnostic;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL010",
    name: "endport-invalid",
    level: Level::Error,
    what: "Finds ranges of ports that end before they begin, or have no beginning.",
    why: "endPort needs a port with a number that is not larger. The API server rejects the policy, so its pods are not isolated.",
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
  - ports:
    - port: 9000
      endPort: 8000
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
  - ports:
    - port: 8000
      endPort: 8100
      protocol: TCP
"#
);

/// Returns whether this is what the loader found.
pub(crate) fn fits(d: &Diagnostic) -> bool {
    // A range of a cluster-wide policy has `start` and `end`; these alone are ports.
    ["endPort", "portRange", "range"].iter().any(|field| is_invalid(d, field))
}

fn check(cx: &Context<'_>) -> Vec<Found> {
    let found = about_policies(cx, fits, refused_or_unusable);
    // What the API server admits and can't be used is as wrong as what it refuses.
    found.into_iter().map(|found| found.at_level(Level::Error)).collect()
}

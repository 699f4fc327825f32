//! `bad-selector`: finds selectors that the API server rejects.

use crate::diagnostics::{about_policies, refused_or_unusable};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_manifest::{Code, Diagnostic};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL012",
    name: "bad-selector",
    level: Level::Error,
    what: "Finds selectors that the API server rejects.",
    why: "In and NotIn need values, Exists and DoesNotExist must have none, and keys and values must be labels. The API server rejects the policy, so its pods are not isolated.",
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
        matchExpressions:
        - {key: app, operator: In}
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
        matchExpressions:
        - {key: app, operator: In, values: [web]}
"#
);

/// Returns whether this is what the loader found.
pub(crate) fn fits(d: &Diagnostic) -> bool {
    let path = d.path.as_deref().unwrap_or_default();
    let in_selector = path.contains("atchExpressions") || path.contains("atchLabels");
    in_selector && d.code != Code::UnknownField && d.code != Code::DuplicateKey
}

fn check(cx: &Context<'_>) -> Vec<Found> {
    let found = about_policies(cx, fits, refused_or_unusable);
    // What the API server admits and can't be used is as wrong as what it refuses.
    found.into_iter().map(|found| found.at_level(Level::Error)).collect()
}

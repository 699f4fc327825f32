//! `wrong-direction-key`: finds `to` in an ingress rule and `from` in an egress rule.

use crate::diagnostics::{about_policies, last};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_manifest::{Code, Diagnostic};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL055",
    name: "wrong-direction-key",
    level: Level::Error,
    what: "Finds `to` in an ingress rule and `from` in an egress rule.",
    why: "The field is unknown there. A client that drops it leaves a rule without peers, which allows every peer.",
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
  - to:
    - podSelector:
        matchLabels:
          app: web
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
    let path = d.path.as_deref().unwrap_or_default();
    let wrong = match last(d) {
        "to" => path.starts_with("spec.ingress["),
        "from" => path.starts_with("spec.egress["),
        _ => false,
    };
    wrong && d.code == Code::UnknownField
}

fn check(cx: &Context<'_>) -> Vec<Found> {
    let found = about_policies(cx, fits, |_| "without it, the rule allows every peer");
    found.into_iter().map(|f| f.at_level(Level::Error)).collect()
}

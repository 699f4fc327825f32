//! `typo-near-label`: finds labels that no pod has and that are one or two letters away from one that pods have.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use crate::{matching::misses, miss::Miss};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL037",
    name: "typo-near-label",
    level: Level::Warning,
    what: "Finds labels that no pod has and that are one or two letters away from one that pods have.",
    why: "The selector matches nothing: a policy with it isolates nothing, and a peer with it allows nothing.",
    fix: Some("Replaces the label by the one that exists."),
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
          app: wbe
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

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (selecting, miss) in misses(cx) {
        let Miss::Near(old, new) = miss else { continue };
        let message =
            format!("nothing has the label {old}, {}: did you mean {new}?", selecting.consequence());
        let fix = selecting.replaced(cx, &old, &new);
        out.push(selecting.found(cx, Some(&old), message).with_fix(fix));
    }
    out
}

//! `podselector-missing`: finds NetworkPolicies without a podSelector.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use crate::{
    fix::{field_before, value_of},
    written::Written,
};
use palisade_policy::PolicyKey;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL013",
    name: "podselector-missing",
    level: Level::Warning,
    what: "Finds NetworkPolicies without a podSelector.",
    why: "Without a podSelector, a policy applies to every pod of its namespace, as with an empty one. So more pods may be isolated than its author intended.",
    fix: Some("Writes the empty podSelector that applies; the policy means what it meant."),
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
  policyTypes: [Ingress]
  ingress:
  - from:
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

fn check(cx: &Context<'_>) -> Vec<Found> {
    let without = cx.written().filter(|(written, _)| !written.has_pod_selector);
    without.filter_map(|(written, key)| found(cx, written, key)).collect()
}

fn found(cx: &Context<'_>, written: &Written, key: &PolicyKey) -> Option<Found> {
    let origin = cx.origin(&written.file, written.spec.unwrap_or(written.start))?;
    let message = "podSelector is absent, so the policy applies to every pod of its namespace".to_owned();
    let does = "write the podSelector that applies";
    let fix = match &written.blank_pod_selector {
        Some(blank) => value_of(cx, &written.file, blank, ["{}"; 2], does),
        None => {
            let texts = ["podSelector: {}", "\"podSelector\": {}"];
            let fields = written.spec_fields.as_ref();
            fields.and_then(|fields| field_before(cx, &written.file, fields, texts, does))
        }
    };
    Some(Found::of(key, Some(&origin), message).with_fix(fix))
}

//! `missing-policy-types`: finds NetworkPolicies without policyTypes.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use crate::{
    fix::{field_before, value_of},
    written::Written,
};
use palisade_policy::PolicyKey;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL001",
    name: "missing-policy-types",
    level: Level::Warning,
    what: "Finds NetworkPolicies without policyTypes.",
    why: "Without policyTypes, a policy isolates ingress, and egress only if it has an egress rule. So the direction that a policy isolates changes when its last egress rule is removed, and an empty list of egress rules isolates nothing for egress: there the finding is a warning, and otherwise a note.",
    fix: Some("Writes the policyTypes that apply; the policy means what it meant."),
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
  podSelector: {}
  egress: []
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  egress: []
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let without = cx.written().filter(|(written, _)| !written.has_policy_types && written.spec.is_some());
    without.filter_map(|(written, key)| found(cx, written, key)).collect()
}

fn found(cx: &Context<'_>, written: &Written, key: &PolicyKey) -> Option<Found> {
    let origin = cx.origin(&written.file, written.spec?)?;
    let (types, json, isolates) = match written.egress {
        None => ("[Ingress]", "[\"Ingress\"]", "isolates its pods for ingress only"),
        Some(0) => (
            "[Ingress]",
            "[\"Ingress\"]",
            "isolates its pods for ingress only, and its empty list of egress rules denies nothing",
        ),
        Some(_) => (
            "[Ingress, Egress]",
            "[\"Ingress\", \"Egress\"]",
            "isolates its pods for ingress and, as it has egress rules, for egress",
        ),
    };
    let level = if written.egress == Some(0) { Level::Warning } else { Level::Note };
    let does = "write the policyTypes that apply";
    let (fix, is) = match &written.blank_policy_types {
        Some(blank) => {
            (value_of(cx, &written.file, blank, [types, json], does), "empty, which is like absent")
        }
        None => {
            let texts = [format!("policyTypes: {types}"), format!("\"policyTypes\": {json}")];
            let fields = written.spec_fields.as_ref();
            let fix = fields.and_then(|f| field_before(cx, &written.file, f, [&texts[0], &texts[1]], does));
            (fix, "absent")
        }
    };
    let message = format!("policyTypes is {is}, so the policy {isolates}");
    Some(Found::of(key, Some(&origin), message).at_level(level).with_fix(fix))
}

//! `namespace-label-guess`: finds namespaces that are selected by a label with their name that they do not have.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use crate::{matching::misses, miss::Miss};
use palisade_policy::{NAMESPACE_NAME_LABEL, Requirement};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL021",
    name: "namespace-label-guess",
    level: Level::Warning,
    what: "Finds namespaces that are selected by a label with their name that they do not have.",
    why: "Namespaces do not have a label `name`, unless someone gave it to them. They all have kubernetes.io/metadata.name. As it is, the selector matches no namespace, and the peer allows nothing. If the namespace is not among the manifests, its labels are not known, and the finding is a note.",
    fix: Some("Replaces the key by kubernetes.io/metadata.name."),
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Ingress]
  ingress:
  - from:
    - namespaceSelector:
        matchLabels:
          name: shop
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Ingress]
  ingress:
  - from:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: shop
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (selecting, miss) in misses(cx) {
        let Miss::NamespaceName(old, name, declared) = miss else { continue };
        let new = Requirement { key: NAMESPACE_NAME_LABEL.into(), test: old.test.clone() };
        let message = format!("namespace {name} has no label `{}`, {}", old.key, selecting.consequence());
        let level = if declared { Level::Warning } else { Level::Note };
        let fix = selecting.replaced(cx, &old, &new);
        out.push(selecting.found(cx, Some(&old), message).at_level(level).with_fix(fix));
    }
    out
}

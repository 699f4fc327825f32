//! `tenant-spoofable-selector`: finds peers that trust a label in every namespace.

use crate::wide::{is_every_namespace, is_open_to_new_namespaces};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, Peer};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL048",
    name: "tenant-spoofable-selector",
    level: Level::Warning,
    what: "Finds peers that trust a label in every namespace.",
    why: "Anyone who can create a pod in any namespace can give it the label, and the pod is then allowed. Select the namespaces by a label that only administrators set, or by kubernetes.io/metadata.name.",
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
    - namespaceSelector: {}
      podSelector:
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
    let mut out = Vec::new();
    for (policy, _, rule) in cx.allowing().filter(|(_, direction, _)| *direction == Direction::Ingress) {
        for entry in rule.peers.iter().flatten() {
            let Peer::Pods(choice) = &entry.peer else { continue };
            if is_open_to_new_namespaces(choice) && !choice.pods.is_everything() {
                let every =
                    if is_every_namespace(choice) { "every namespace" } else { "every other namespace" };
                let message = format!(
                    "pods with {} are allowed from {every}: anyone who can create a pod can set these labels",
                    choice.pods
                );
                out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
            }
        }
    }
    out
}

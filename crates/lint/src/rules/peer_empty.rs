//! `peer-empty`: finds peers without a field.

use crate::diagnostics::{about_policies, is_cluster_wide_peer, refused_or_unusable};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_manifest::{Code, Diagnostic};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL006",
    name: "peer-empty",
    level: Level::Error,
    what: "Finds peers without a field.",
    why: "A peer must have a podSelector, a namespaceSelector or an ipBlock; that of a cluster-wide policy must have namespaces, pods or, for egress, addresses. The API server rejects the policy, so its pods are not isolated.",
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
    d.code == Code::Required && (d.message.ends_with("must specify a peer") || is_cluster_wide_peer(d))
}

fn check(cx: &Context<'_>) -> Vec<Found> {
    let found = about_policies(cx, fits, refused_or_unusable);
    // What the API server admits and can't be used is as wrong as what it refuses.
    found.into_iter().map(|found| found.at_level(Level::Error)).collect()
}

//! `ipblock-with-selector`: finds peers with an ipBlock and a selector.

use crate::diagnostics::{about_policies, is_cluster_wide_peer, refused_or_unusable};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_manifest::{Code, Diagnostic};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL007",
    name: "ipblock-with-selector",
    level: Level::Error,
    what: "Finds peers with an ipBlock and a selector.",
    why: "A peer is either addresses or pods; that of a cluster-wide policy has one field. The API server rejects the policy, so its pods are not isolated.",
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
    - ipBlock: {cidr: 10.0.0.0/8}
      podSelector: {matchLabels: {app: web}}
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
    - ipBlock: {cidr: 192.0.2.0/24}
    - podSelector: {matchLabels: {app: web}}
"#
);

/// Returns whether this is what the loader found.
pub(crate) fn fits(d: &Diagnostic) -> bool {
    d.code == Code::Forbidden && (d.message.contains("ipBlock") || is_cluster_wide_peer(d))
}

fn check(cx: &Context<'_>) -> Vec<Found> {
    let found = about_policies(cx, fits, refused_or_unusable);
    // What the API server admits and can't be used is as wrong as what it refuses.
    found.into_iter().map(|found| found.at_level(Level::Error)).collect()
}

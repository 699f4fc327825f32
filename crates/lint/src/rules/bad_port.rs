//! `bad-port`: finds ports that are no port number and no port name.

use crate::diagnostics::{about_policies, is_invalid};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_manifest::Diagnostic;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL011",
    name: "bad-port",
    level: Level::Error,
    what: "Finds ports that are neither a port number nor a port name.",
    why: "Ports are numbers from 1 to 65535, or names of container ports. A number in quotes is a name, and names need a letter. The API server rejects the policy, so its pods are not isolated.",
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
    - port: "8080"
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
    - port: 8080
      protocol: TCP
"#
);

/// Returns whether this is what the loader found.
pub(crate) fn fits(d: &Diagnostic) -> bool {
    is_invalid(d, "port")
}

fn check(cx: &Context<'_>) -> Vec<Found> {
    about_policies(cx, fits, |_| "the API server rejects the policy, and what it should isolate stays open")
}

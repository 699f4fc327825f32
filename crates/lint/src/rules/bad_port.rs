//! `bad-port`: finds ports that are no port number and no port name.

use crate::diagnostics::{about_policies, is_invalid, refused_or_unusable};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_manifest::Diagnostic;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL011",
    name: "bad-port",
    level: Level::Error,
    what: "Finds ports that are neither a port number nor a port name, and protocols other than TCP, UDP and SCTP.",
    why: "Ports are numbers from 1 to 65535, or names of container ports. A number in quotes is a name, and names need a letter. Protocols are written in capital letters. The API server rejects the policy, so its pods are not isolated.",
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
    ["port", "number", "start", "end", "protocol"].iter().any(|field| is_invalid(d, field))
}

fn check(cx: &Context<'_>) -> Vec<Found> {
    let found = about_policies(cx, fits, refused_or_unusable);
    // What the API server admits and can't be used is as wrong as what it refuses.
    found.into_iter().map(|found| found.at_level(Level::Error)).collect()
}

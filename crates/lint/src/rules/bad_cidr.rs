//! `bad-cidr`: finds blocks that are no CIDR, or that have host bits set.

use crate::diagnostics::{about_policies, is_invalid, refused_or_unusable};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_manifest::{Code, Diagnostic, OTHER_FAMILY};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL008",
    name: "bad-cidr",
    level: Level::Error,
    what: "Finds blocks that are no CIDR, that have host bits set, or that have exceptions of another IP family.",
    why: "The API server rejects what is no CIDR, and IPv6 exceptions of an IPv4 block. Host bits are accepted and ignored: 10.0.0.7/8 is 10.0.0.0/8, which is sixteen million addresses; that is a warning.",
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
    - ipBlock: {cidr: 10.0.0.0/33}
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
    - ipBlock: {cidr: 10.0.0.0/8}
"#
);

/// Returns whether this is what the loader found.
pub(crate) fn fits(d: &Diagnostic) -> bool {
    let of_block = ["cidr", "except", "networks"].iter().any(|field| is_invalid(d, field));
    of_block && !super::except_outside_cidr::fits(d)
}

fn check(cx: &Context<'_>) -> Vec<Found> {
    about_policies(cx, fits, |d| match (d.code, &d.help) {
        (_, Some(help)) if *help == OTHER_FAMILY => {
            "the two are of different IP families, and the API server rejects the policy"
        }
        (Code::Ambiguous, _) => "the policy is accepted, and may mean other addresses than it seems to",
        _ => refused_or_unusable(d),
    })
}

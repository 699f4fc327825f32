//! `empty-vs-absent`: finds empty lists of peers.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::Direction;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL019",
    name: "empty-vs-absent",
    level: Level::Warning,
    what: "Finds empty lists of peers and ports.",
    why: "An empty list of peers means the same as an absent one, every peer, and an empty list of ports every port. It looks as if it meant none; to allow nothing, the list of rules must be empty.",
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
  - from: []
    ports:
    - port: 8080
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

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (written, key) in cx.written() {
        for rule in &written.rules {
            if let Some(at) = rule.empty_ports {
                let message =
                    "an empty `ports` allows every port; to allow none, leave the rule out".to_owned();
                out.push(Found::of(key, cx.origin(&written.file, at).as_ref(), message));
            }
            let Some(at) = rule.empty_peers else { continue };
            let (field, list, end) = match rule.direction {
                Direction::Ingress => ("from", "ingress", "source"),
                Direction::Egress => ("to", "egress", "destination"),
            };
            let message = format!(
                "an empty `{field}` allows every {end}; to allow none, leave the rule out and write `{list}: []`"
            );
            out.push(Found::of(key, cx.origin(&written.file, at).as_ref(), message));
        }
    }
    out
}

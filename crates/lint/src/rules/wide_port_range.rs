//! `wide-port-range`: finds ranges of more than a thousand ports.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::PortMatch;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL047",
    name: "wide-port-range",
    level: Level::Warning,
    what: "Finds ranges of more than a thousand ports.",
    why: "A wide range also opens ports that the program doesn't need today, or that its next version adds.",
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
  policyTypes: [Egress]
  egress:
  - to:
    - podSelector:
        matchLabels:
          app: web
    ports:
    - port: 3000
      endPort: 9000
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
  policyTypes: [Egress]
  egress:
  - to:
    - podSelector:
        matchLabels:
          app: web
    ports:
    - port: 8080
      endPort: 8090
      protocol: TCP
"#
);

/// The ports that a program may need for itself, such as passive FTP.
const WIDE: u16 = 1000;

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (policy, _, rule) in cx.allowing() {
        for entry in rule.ports.iter().flatten() {
            let PortMatch::Numbers { first, last, .. } = &entry.port else { continue };
            // All ports are no range.
            if last - first >= WIDE && (*first, *last) != (0, u16::MAX) {
                let message = format!("the rule allows {} ports", u32::from(last - first) + 1);
                out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
            }
        }
    }
    out
}

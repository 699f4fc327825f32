//! `wide-port-range`: finds ranges of more than a thousand ports.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::PortMatch;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL047",
    name: "wide-port-range",
    level: Level::Note,
    what: "Finds ranges of more than a thousand ports.",
    why: "A wide range opens ports that nobody thought of, now and with the next version of the program.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  containers:
  - name: main
    image: example
    ports: [{containerPort: 8080, name: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec:
  containers:
  - name: main
    image: example
    ports: [{containerPort: 8080, name: http}]
---
apiVersion: networking.k8s.io/v1
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
"#;

const GOOD: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  containers:
  - name: main
    image: example
    ports: [{containerPort: 8080, name: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec:
  containers:
  - name: main
    image: example
    ports: [{containerPort: 8080, name: http}]
---
apiVersion: networking.k8s.io/v1
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
"#;

/// The ports that a program may need for itself, such as passive FTP.
const WIDE: u16 = 1000;

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (policy, _, rule) in cx.rules() {
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

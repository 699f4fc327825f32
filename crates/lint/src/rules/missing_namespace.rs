//! `missing-namespace`: finds policies without a namespace.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL003",
    name: "missing-namespace",
    level: Level::Note,
    what: "Finds policies without a namespace.",
    why: "Such a policy is created in the namespace of the current kubectl context, or of the command line. Its selectors then select the pods of that namespace.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - name: main
    image: example
    ports: [{containerPort: 8080, name: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: db, labels: {app: db}}
spec:
  containers:
  - name: main
    image: example
    ports: [{containerPort: 8080, name: http}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db}
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
"#;

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
    let without =
        cx.written().filter(|(written, _)| written.name.1.is_none() && written.name.0 == "NetworkPolicy");
    let found = without.filter_map(|(written, key)| {
        let origin = cx.origin(&written.file, written.start)?;
        let message = "the policy has no namespace: it is created in that of the context".to_owned();
        Some(Found::of(key, Some(&origin), message))
    });
    found.collect()
}

//! `subject-in-other-namespace`: finds policies whose labels only pods of other namespaces have.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use crate::{
    matching::{Selecting, misses},
    miss::Miss,
};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL058",
    name: "subject-in-other-namespace",
    level: Level::Warning,
    what: "Finds policies whose labels only pods of other namespaces have.",
    why: "A NetworkPolicy applies to pods of its own namespace. The pods that it was probably written for stay open.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Pod
metadata: {name: pay, namespace: bank, labels: {app: pay}}
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
      app: pay
  policyTypes: [Ingress]
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Pod
metadata: {name: pay, namespace: bank, labels: {app: pay}}
spec:
  containers:
  - name: main
    image: example
    ports: [{containerPort: 8080, name: http}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: bank}
spec:
  podSelector:
    matchLabels:
      app: pay
  policyTypes: [Ingress]
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (selecting, miss) in misses(cx) {
        let (Selecting::Subject(policy), Miss::Elsewhere(namespaces)) = (selecting, miss) else { continue };
        let others = namespaces.iter().take(3).map(|n| &**n).collect::<Vec<_>>().join(", ");
        let message = format!(
            "the policy applies to no pod of namespace {}; pods with its labels are in {others}, and it does not isolate them",
            policy.key.namespace,
        );
        out.push(selecting.found(cx, None, message));
    }
    out
}

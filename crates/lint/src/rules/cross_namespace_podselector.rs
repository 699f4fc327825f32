//! `cross-namespace-podselector`: finds podSelectors of peers whose labels only pods of other namespaces have.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use crate::{
    matching::{Selecting, misses},
    miss::Miss,
};
use palisade_names::describe_peer;
use palisade_policy::Peer;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL018",
    name: "cross-namespace-podselector",
    level: Level::Warning,
    what: "Finds podSelectors of peers whose labels only pods of other namespaces have.",
    why: "A peer with only a podSelector means pods of the policy's own namespace. Pods of other namespaces need a namespaceSelector in the same peer. As it is, the peer matches nothing, and these pods are denied.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Pod
metadata: {name: prom, namespace: mon, labels: {app: prometheus}}
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
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: prometheus
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Pod
metadata: {name: prom, namespace: mon, labels: {app: prometheus}}
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
  policyTypes: [Ingress]
  ingress:
  - from:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: mon
      podSelector:
        matchLabels:
          app: prometheus
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (selecting, miss) in misses(cx) {
        let (Selecting::Peer(policy, choice, _), Miss::Elsewhere(namespaces)) = (selecting, miss) else {
            continue;
        };
        let others = namespaces.iter().take(3).map(|n| &**n).collect::<Vec<_>>().join(", ");
        let message = format!(
            "a podSelector without namespaceSelector matches pods of namespace {} only, where none is {}; pods with these labels are in {others}, and are not allowed",
            policy.key.namespace,
            describe_peer(&Peer::Pods(choice.clone())),
        );
        out.push(selecting.found(cx, None, message));
    }
    out
}

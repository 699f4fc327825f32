//! `volatile-label`: finds selectors on labels that controllers change.

use crate::matching::Selecting;
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::Test;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL035",
    name: "volatile-label",
    level: Level::Warning,
    what: "Finds selectors on labels that controllers change.",
    why: "Controllers set these labels to a new value at each rollout, or for each pod. After the next rollout the selector matches no pod.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web, pod-template-hash: "6c5"}}
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
          pod-template-hash: "6c5"
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
    - podSelector:
        matchLabels:
          app: web
"#
);

/// Labels that controllers of Kubernetes write.
const VOLATILE: [&str; 5] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "controller-uid",
    "batch.kubernetes.io/controller-uid",
];

fn check(cx: &Context<'_>) -> Vec<Found> {
    let subjects = cx.policies().map(Selecting::Subject);
    let peers = cx.peers().map(|(policy, choice, origin)| Selecting::Peer(policy, choice, origin));
    let mut out = Vec::new();
    for selecting in subjects.chain(peers) {
        let requirements = selecting.choice().pods.requirements();
        // That the label exists, or doesn't, stays as it is.
        let on_value = |test: &Test| matches!(test, Test::In(_) | Test::NotIn(_));
        for requirement in requirements.iter().filter(|r| VOLATILE.contains(&&*r.key) && on_value(&r.test)) {
            let message = format!(
                "a controller changes the label `{}`: after the next rollout, the selector {}",
                requirement.key,
                if matches!(requirement.test, Test::In(_)) { "matches nothing" } else { "excludes nothing" }
            );
            out.push(selecting.found(cx, Some(requirement), message));
        }
    }
    out
}

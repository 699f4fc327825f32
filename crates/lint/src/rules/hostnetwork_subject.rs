//! `hostnetwork-subject`: finds policies that select only pods in the host network.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use crate::{
    matching::{Selecting, misses},
    miss::Miss,
};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL034",
    name: "hostnetwork-subject",
    level: Level::Warning,
    what: "Finds policies that select only pods in the host network.",
    why: "A pod in the host network has its node's address, and policies are not enforced on nodes. So nothing is isolated.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: shop, labels: {app: agent}}
spec:
  hostNetwork: true
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
      app: agent
  policyTypes: [Ingress]
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: shop, labels: {app: agent}}
spec:
  hostNetwork: true
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
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let all = misses(cx).filter(|(s, m)| matches!((s, m), (Selecting::Subject(_), Miss::HostNetwork)));
    let message = "the policy selects only pods in the host network, on which no policy is enforced";
    let mut out: Vec<Found> =
        all.map(|(selecting, _)| selecting.found(cx, None, message.to_owned())).collect();
    // A policy for all pods means the others.
    for policy in cx.policies().filter(|policy| !policy.subject.pods.is_everything()) {
        let on_nodes = cx.matching(&policy.subject).find(|class| class.host_network);
        if let Some(class) = on_nodes.filter(|_| cx.selected(policy).next().is_some()) {
            let message = format!(
                "the policy also selects pods in the host network, such as {}, on which no policy is enforced",
                class.pods[0].key
            );
            let found = Selecting::Subject(policy).found(cx, None, message);
            out.push(found.at_level(Level::Note));
        }
    }
    out
}

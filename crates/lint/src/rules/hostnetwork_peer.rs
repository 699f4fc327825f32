//! `hostnetwork-peer`: finds peers that match only pods in the host network.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use crate::{
    matching::{Selecting, misses},
    miss::Miss,
};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL060",
    name: "hostnetwork-peer",
    level: Level::Warning,
    what: "Finds peers that match only pods in the host network.",
    why: "A pod in the host network sends from its node's address, and selectors match pod addresses. So the peer matches nothing, and what comes from these pods is denied unless an ipBlock allows their nodes.",
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
      app: db
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: agent
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
  ingress:
  - from:
    - ipBlock: {cidr: 192.0.2.0/24}
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let all = misses(cx).filter(|(s, m)| matches!((s, m), (Selecting::Peer(..), Miss::HostNetwork)));
    let message = "the peer matches only pods in the host network, which have their nodes' addresses: selectors never match them";
    all.map(|(selecting, _)| selecting.found(cx, None, message.to_owned())).collect()
}

//! `and-or-peer`: finds a namespaceSelector and a podSelector in two peers where one peer with both was meant.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use crate::{fix::joined, matching::miss};
use palisade_names::describe_peer;
use palisade_policy::{NamespaceMatch, Peer, PeerEntry, PodMatch, Policy};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL016",
    name: "and-or-peer",
    level: Level::Warning,
    what: "Finds a namespaceSelector and a podSelector in two peers where one peer with both was meant.",
    why: "Two list items are alternatives: every pod of the selected namespaces is a peer, and so is every pod of the policy's own namespace with the labels. Here the own namespace has no such pod, and the selected namespaces have, so one peer was probably meant.",
    fix: Some("Makes the two items one peer."),
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Namespace
metadata: {name: mon, labels: {team: mon}}
---
apiVersion: v1
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
          team: mon
    - podSelector:
        matchLabels:
          app: prometheus
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Namespace
metadata: {name: mon, labels: {team: mon}}
---
apiVersion: v1
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
          team: mon
      podSelector:
        matchLabels:
          app: prometheus
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let peers = cx.rules().filter_map(|(policy, _, rule)| Some((policy, rule.peers.as_ref()?)));
    let pairs = peers.flat_map(|(policy, peers)| peers.windows(2).map(move |pair| (policy, pair)));
    pairs.filter_map(|(policy, pair)| found(cx, policy, &pair[0], &pair[1])).collect()
}

/// Looks at two peers of a rule that follow each other.
fn found(cx: &Context<'_>, policy: &Policy, first: &PeerEntry, second: &PeerEntry) -> Option<Found> {
    let (Peer::Pods(namespaces), Peer::Pods(pods)) = (&first.peer, &second.peer) else { return None };
    if !is_namespaces_only(namespaces) || !is_pods_only(pods) {
        return None;
    }
    let both = PodMatch { namespaces: namespaces.namespaces.clone(), pods: pods.pods.clone() };
    if miss(cx, pods).is_none() || miss(cx, &both).is_some() {
        return None;
    }
    let (one, other) = (describe_peer(&first.peer), describe_peer(&second.peer));
    let message = format!(
        "the two list items are alternatives: the first allows {one}, and the second {other}, which don't exist"
    );
    let origin = second.origin.as_ref();
    let fix = origin.and_then(|origin| joined(cx, origin, "make the two items one peer"));
    Some(Found::of(&policy.key, origin, message).with_fix(fix))
}

fn is_namespaces_only(choice: &PodMatch) -> bool {
    let selected = matches!(&choice.namespaces, NamespaceMatch::Selected(s) if !s.is_everything());
    selected && choice.pods.is_everything()
}

fn is_pods_only(choice: &PodMatch) -> bool {
    matches!(choice.namespaces, NamespaceMatch::Named(_)) && !choice.pods.is_everything()
}

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
    let mut out = Vec::new();
    for (policy, _, rule) in cx.rules() {
        let Some(peers) = &rule.peers else { continue };
        let is = |fits: fn(&PodMatch) -> bool| move |(_, entry): &(usize, &PeerEntry)| matches!(&entry.peer, Peer::Pods(choice) if fits(choice));
        let namespaces: Vec<(usize, &PeerEntry)> =
            peers.iter().enumerate().filter(is(is_namespaces_only)).take(MOST_NAMESPACES).collect();
        for (at, pods) in peers.iter().enumerate().filter(is(is_pods_only)) {
            // The item before it, then the one behind it, then the others.
            let mut by_distance = namespaces.clone();
            by_distance.sort_by_key(|(other, _)| (at.abs_diff(*other), *other > at));
            out.extend(
                by_distance
                    .into_iter()
                    .find_map(|(other, namespaces)| found(cx, policy, (other, namespaces), (at, pods))),
            );
        }
    }
    out
}

/// With how many peers that are namespaces a peer that is pods is compared.
const MOST_NAMESPACES: usize = 20;

/// Looks at two peers of a rule, with their places.
fn found(
    cx: &Context<'_>,
    policy: &Policy,
    (first_at, first): (usize, &PeerEntry),
    (second_at, second): (usize, &PeerEntry),
) -> Option<Found> {
    let (Peer::Pods(namespaces), Peer::Pods(pods)) = (&first.peer, &second.peer) else { return None };
    let both = PodMatch { namespaces: namespaces.namespaces.clone(), pods: pods.pods.clone() };
    if miss(cx, pods).is_none() || miss(cx, &both).is_some() {
        return None;
    }
    let (one, other) = (describe_peer(&first.peer), describe_peer(&second.peer));
    let message = format!(
        "the two list items are alternatives: one allows {one}, and the other {other}, which don't exist"
    );
    let origin = second.origin.as_ref();
    let later = if first_at < second_at { second } else { first };
    // Only items that follow each other become one by a change of one line.
    let fix = later.origin.as_ref().filter(|_| first_at.abs_diff(second_at) == 1);
    let fix = fix.and_then(|origin| joined(cx, origin, "make the two items one peer"));
    Some(Found::of(&policy.key, origin, message).with_fix(fix))
}

fn is_namespaces_only(choice: &PodMatch) -> bool {
    let selected = matches!(&choice.namespaces, NamespaceMatch::Selected(_));
    selected && choice.pods.is_everything()
}

fn is_pods_only(choice: &PodMatch) -> bool {
    matches!(choice.namespaces, NamespaceMatch::Named(_)) && !choice.pods.is_everything()
}

//! `peer-selects-nothing`: finds peers that no pod matches.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use crate::{
    matching::{Selecting, misses},
    miss::Miss,
};
use palisade_names::describe_peer;
use palisade_policy::Peer;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL023",
    name: "peer-selects-nothing",
    level: Level::Note,
    what: "Finds peers that no pod matches.",
    why: "No pod among the manifests matches the peer, so it allows nothing. Pods that operators create, and pods of other repositories, are not in the manifests, so this is a note. A misspelled label is a warning of another rule.",
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
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector:
        matchLabels:
          component: cache
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

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (selecting, miss) in misses(cx) {
        let (Selecting::Peer(_, choice, _), Miss::Nothing) = (selecting, miss) else { continue };
        let pods = describe_peer(&Peer::Pods(choice.clone()));
        out.push(selecting.found(
            cx,
            None,
            format!("the peer allows nothing: it means {pods}, and the manifests have none"),
        ));
    }
    out
}

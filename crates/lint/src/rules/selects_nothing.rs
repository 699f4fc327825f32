//! `selects-nothing`: finds policies that apply to no pod.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use crate::{
    matching::{Selecting, misses},
    miss::Miss,
};
use palisade_names::describe_peer;
use palisade_policy::Peer;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL022",
    name: "selects-nothing",
    level: Level::Note,
    what: "Finds policies that apply to no pod.",
    why: "No pod among the manifests has the labels. Pods that operators create, and pods of other repositories, are not in the manifests, so this is a note. A misspelled label is a warning of another rule.",
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
      component: cache
  policyTypes: [Ingress]
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
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (selecting, miss) in misses(cx) {
        let (Selecting::Subject(policy), Miss::Nothing) = (selecting, miss) else { continue };
        // A policy for all pods waits for them.
        if !policy.subject.pods.is_everything() {
            let pods = describe_peer(&Peer::Pods(policy.subject.clone()));
            out.push(selecting.found(
                cx,
                None,
                format!("the policy applies to no pod: it is for {pods}, and the manifests have none"),
            ));
        }
    }
    out
}

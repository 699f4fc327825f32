//! `explicit-allow-all`: finds rules that allow everything beside policies that restrict the same pods.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, Policy, Tier};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL020",
    name: "explicit-allow-all",
    level: Level::Warning,
    what: "Finds rules that allow everything beside policies that restrict the same pods.",
    why: "Policies add up. A rule without peers and ports allows every connection in its direction, so what other policies allow these pods makes no difference.",
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
          app: web
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Ingress]
  ingress:
  - {}
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
    let all = cx.rules().filter(|(policy, _, rule)| {
        policy.tier == Tier::Developer && rule.peers.is_none() && rule.ports.is_none()
    });
    let found = all.filter_map(|(policy, direction, rule)| {
        let other = cx.policies().find(|other| is_voided(cx, policy, other, direction))?;
        let message = format!(
            "the rule allows every {direction} connection of its pods, so the rules of {} change nothing for them",
            other.key
        );
        Some(Found::of(&policy.key, rule.origin.as_ref(), message))
    });
    found.collect()
}

/// Whether a policy has rules that restrict pods that `open` selects, too. A policy that denies everything is the usual
/// companion of one that allows everything to some pods.
fn is_voided(cx: &Context<'_>, open: &Policy, other: &Policy, direction: Direction) -> bool {
    let rules = other.rules(direction).unwrap_or_default();
    let restricts =
        !rules.is_empty() && rules.iter().all(|rule| rule.peers.is_some() || rule.ports.is_some());
    other.key != open.key
        && other.tier == Tier::Developer
        && restricts
        && cx.selected(other).any(|class| open.subject.pods.matches(class.labels))
        && open.subject.namespaces == other.subject.namespaces
}

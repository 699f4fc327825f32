//! `one-direction-only`: finds pods that policies isolate in one direction only.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, PolicyKey, Tier};
use std::collections::{HashMap, HashSet};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL049",
    name: "one-direction-only",
    level: Level::Note,
    what: "Finds pods that policies isolate in one direction only.",
    why: "In the other direction, everything is allowed. That may be meant: many clusters restrict ingress only.",
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
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db-out, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Egress]
  egress:
  - to:
    - podSelector:
        matchLabels:
          app: web
    ports:
    - port: 8080
      protocol: TCP
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let isolated = isolated(cx);
    let found = cx.policies().filter(|policy| policy.tier == Tier::Developer).filter_map(|policy| {
        let isolates = |direction| policy.rules(direction).is_some();
        let other = if isolates(Direction::Ingress) { Direction::Egress } else { Direction::Ingress };
        let some = isolated.get(&policy.key)?.contains(&other);
        (!isolates(other) && !some).then(|| {
            let message = format!("no policy isolates its pods for {other}, where everything is allowed");
            Found::of(&policy.key, policy.origin.as_ref(), message)
        })
    });
    found.collect()
}

/// Returns the policies that select pods, each with the directions in which a policy isolates some of these.
fn isolated<'a>(cx: &Context<'a>) -> HashMap<&'a PolicyKey, HashSet<Direction>> {
    let mut out: HashMap<_, HashSet<Direction>> = HashMap::new();
    for profile in cx.profiles() {
        let of_namespaces = || cx.in_profile(&profile).filter(|policy| policy.tier == Tier::Developer);
        let is_isolated = |direction: &Direction| of_namespaces().any(|p| p.rules(*direction).is_some());
        let directions: Vec<Direction> = Direction::BOTH.into_iter().filter(is_isolated).collect();
        for policy in of_namespaces() {
            out.entry(&policy.key).or_default().extend(&directions);
        }
    }
    out
}

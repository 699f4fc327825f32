//! `explicit-allow-all`: finds rules that allow everything beside policies that restrict the same pods.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, Policy, PolicyKey, Rule, Tier};
use std::collections::HashMap;

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
    let mut out = Vec::new();
    for direction in Direction::BOTH {
        let voided = voided(cx, direction);
        let rules = cx.policies().flat_map(|p| open_rules(p, direction).map(move |rule| (p, rule)));
        for (policy, rule) in rules {
            let Some(other) = voided.get(&policy.key) else { continue };
            let message = format!(
                "the rule allows every {direction} connection of its pods, so the rules of {} change nothing for them",
                other.key
            );
            out.push(Found::of(&policy.key, rule.origin.as_ref(), message));
        }
    }
    out
}

fn open_rules(policy: &Policy, direction: Direction) -> impl Iterator<Item = &Rule> {
    let of_namespaces = policy.tier == Tier::Developer;
    let rules = policy.rules(direction).unwrap_or_default().iter();
    rules.filter(move |rule| of_namespaces && rule.peers.is_none() && rule.ports.is_none())
}

/// Returns the policies that allow everything to pods that another one restricts, each with the first such policy.
fn voided<'a>(cx: &Context<'a>, direction: Direction) -> HashMap<&'a PolicyKey, &'a Policy> {
    let mut out = HashMap::new();
    for profile in cx.profiles() {
        let Some(other) = cx.in_profile(&profile).find(|policy| restricts(policy, direction)) else {
            continue;
        };
        for policy in cx.in_profile(&profile).filter(|p| open_rules(p, direction).next().is_some()) {
            let known = out.entry(&policy.key).or_insert(other);
            if other.key < known.key {
                *known = other;
            }
        }
    }
    out
}

/// Whether a policy allows some connections and not all. A policy that denies everything is the usual companion of one that
/// allows everything to some pods.
fn restricts(policy: &Policy, direction: Direction) -> bool {
    let rules = policy.rules(direction).unwrap_or_default();
    policy.tier == Tier::Developer
        && !rules.is_empty()
        && rules.iter().all(|rule| rule.peers.is_some() || rule.ports.is_some())
}

//! `explicit-allow-all`: finds rules that allow everything beside policies that restrict the same pods.

use crate::cover::PodCover;
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, Name, Policy, PolicyKey, Rule, Tier};
use std::collections::{HashMap, hash_map::Entry};

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
                "the rule allows every {direction} connection of its pods, so {} changes nothing for them",
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

/// Returns the policies that allow everything to pods that another one restricts, or to all that another one denies everything,
/// each with the first such policy.
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
    let denying = denying(cx, direction);
    for policy in cx.policies().filter(|p| open_rules(p, direction).next().is_some()) {
        let Entry::Vacant(entry) = out.entry(&policy.key) else { continue };
        let open = PodCover::new(&policy.subject);
        let mut others = denying.get(&policy.key.namespace).into_iter().flatten();
        if let Some((other, _)) = others.find(|(_, denied)| denied.is_within(&open)) {
            entry.insert(*other);
        }
    }
    out
}

/// How many policies of a namespace that deny everything are looked at.
const MOST_DENYING: usize = 100;

/// Returns the policies that deny everything in a direction, by namespace, with the pods that they select.
fn denying<'a>(cx: &Context<'a>, direction: Direction) -> HashMap<&'a Name, Vec<(&'a Policy, PodCover)>> {
    let mut out: HashMap<&Name, Vec<(&Policy, PodCover)>> = HashMap::new();
    for policy in cx.policies().filter(|policy| policy.tier == Tier::Developer) {
        if policy.rules(direction).is_some_and(<[_]>::is_empty) {
            let of_namespace = out.entry(&policy.key.namespace).or_default();
            if of_namespace.len() < MOST_DENYING {
                of_namespace.push((policy, PodCover::new(&policy.subject)));
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

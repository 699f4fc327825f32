//! `redundant-rule`: finds rules and policies without which every connection would be decided as it is.

use std::collections::BTreeMap;

use crate::cover::{PodCover, RuleCover};
use crate::index::ByLabel;
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, Name, NamespaceMatch, Policy, Rule, Tier};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL051",
    name: "redundant-rule",
    level: Level::Note,
    what: "Finds rules that another rule of the same pods contains (redundant-rule, or shadowed-by within one policy), and policies that others contain as a whole (redundant-policy).",
    why: "Removing it changes no connection, now or for any pod that may exist: another rule of policies that select at least the same pods allows at least the same peers and ports, and other policies isolate the pods. What only several rules together contain is not found, and of very many policies in one namespace not every pair is compared.",
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
    ports:
    - port: 8080
      protocol: TCP
  - from:
    - podSelector: {}
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
    - podSelector: {}
"#
);

/// How many pairs of rules are compared.
const MOST_PAIRS: usize = 2_000_000;

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut namespaces: BTreeMap<&Name, Vec<&Policy>> = BTreeMap::new();
    for policy in cx.policies().filter(|policy| policy.tier == Tier::Developer) {
        if let NamespaceMatch::Named(name) = &policy.subject.namespaces {
            namespaces.entry(name).or_default().push(policy);
        }
    }
    let mut out = Vec::new();
    let mut pairs = MOST_PAIRS;
    for policies in namespaces.values() {
        Comparison::new(policies).run(&mut pairs, &mut out);
    }
    out
}

/// A policy, with what it selects and what its rules match.
struct Covered<'a> {
    policy: &'a Policy,
    subject: PodCover,
    /// For each direction, in the order of [`Direction::BOTH`].
    rules: [Vec<(&'a Rule, RuleCover)>; 2],
}

/// The policies of a namespace.
struct Comparison<'a> {
    policies: Vec<Covered<'a>>,
    by_subject: ByLabel<'a>,
}

/// The place of a rule: policy, direction, and number in the policy.
type Place = (usize, usize, usize);

impl<'a> Comparison<'a> {
    fn new(policies: &[&'a Policy]) -> Self {
        let mut by_subject = ByLabel::default();
        let covered = policies.iter().enumerate().map(|(at, policy)| {
            by_subject.add_selector(&policy.subject.pods, at);
            let rules = |direction| policy.rules(direction).unwrap_or_default();
            let covers =
                |direction| rules(direction).iter().map(|rule| (rule, RuleCover::new(rule))).collect();
            Covered { policy, subject: PodCover::new(&policy.subject), rules: Direction::BOTH.map(covers) }
        });
        Self { policies: covered.collect(), by_subject }
    }

    fn run(&self, pairs: &mut usize, out: &mut Vec<Found>) {
        for (at, own) in self.policies.iter().enumerate() {
            // Those that select at least the same pods.
            let candidates = self.by_subject.containing(&own.policy.subject.pods);
            let wider = |other: &usize| own.subject.is_within(&self.policies[*other].subject);
            let wider: Vec<usize> = candidates.into_iter().filter(wider).collect();
            let mut found: Vec<(Place, Option<Place>)> = Vec::new();
            for direction in 0..2 {
                for number in 0..own.rules[direction].len() {
                    let place = (at, direction, number);
                    let Some(container) = self.container(place, &wider, pairs) else { return };
                    found.push((place, container));
                }
            }
            self.report(at, &wider, &found, out);
        }
    }

    /// Returns a rule that contains another one; `None` if there were too many to compare.
    #[expect(clippy::option_option, reason = "not looked for, and not found")]
    fn container(&self, place: Place, wider: &[usize], pairs: &mut usize) -> Option<Option<Place>> {
        let (at, direction, number) = place;
        let own = &self.policies[at].rules[direction][number].1;
        for other in wider {
            for (n, (_, rule)) in self.policies[*other].rules[direction].iter().enumerate() {
                let there = (*other, direction, n);
                if there == place {
                    continue;
                }
                *pairs = pairs.checked_sub(1)?;
                // Of two that contain each other, the first stays.
                let is_first = || there < place || !self.contains_back(place, there);
                if own.is_within(rule) && is_first() {
                    return Some(Some(there));
                }
            }
        }
        Some(None)
    }

    fn contains_back(&self, own: Place, other: Place) -> bool {
        let of = |(at, direction, number): Place| {
            (&self.policies[at], &self.policies[at].rules[direction][number].1)
        };
        let ((policy, rule), (other_policy, other_rule)) = (of(own), of(other));
        other_policy.subject.is_within(&policy.subject) && other_rule.is_within(rule)
    }

    fn report(&self, at: usize, wider: &[usize], found: &[(Place, Option<Place>)], out: &mut Vec<Found>) {
        let own = &self.policies[at];
        if let Some(others) = self.replacing(at, wider, found) {
            let message = format!(
                "removing the policy changes no connection: {others} isolates the same pods and allows all that it allows"
            );
            out.push(Found::of(&own.policy.key, own.policy.origin.as_ref(), message));
            return;
        }
        for ((_, direction, number), container) in found {
            let Some((other, _, n)) = container else { continue };
            let (rule, _) = own.rules[*direction][*number];
            let (containing, _) = self.policies[*other].rules[*direction][*n];
            let line = containing.origin.as_ref().map_or_else(String::new, |o| format!(" ({o})"));
            let whose = if *other == at {
                format!("another rule of the policy{line}")
            } else {
                format!("a rule of {}{line}", self.policies[*other].policy.key)
            };
            let message =
                format!("removing the rule changes no connection: {whose} allows all that it allows");
            out.push(Found::of(&own.policy.key, rule.origin.as_ref(), message));
        }
    }

    /// Returns the policy that isolates the pods of another one, if rules of other policies contain all of its rules.
    fn replacing(&self, at: usize, wider: &[usize], found: &[(Place, Option<Place>)]) -> Option<String> {
        let own = &self.policies[at];
        let elsewhere =
            |(_, container): &(Place, Option<Place>)| container.is_some_and(|(other, ..)| other != at);
        if !found.iter().all(elsewhere) {
            return None;
        }
        let mut isolating = None;
        for direction in Direction::BOTH.into_iter().filter(|d| own.policy.rules(*d).is_some()) {
            let isolates = |other: &usize| {
                let that = &self.policies[*other];
                let is_first = *other < at || !that.subject.is_within(&own.subject);
                *other != at && is_first && that.policy.rules(direction).is_some()
            };
            let other = wider.iter().copied().find(isolates)?;
            isolating = isolating.or(Some(other));
        }
        isolating.map(|other| self.policies[other].policy.key.to_string())
    }
}

//! `redundant-rule`: finds rules and policies without which every connection would be decided as it is.

use std::collections::{BTreeMap, HashMap};

use crate::cover::{PodCover, RuleCover};
use crate::index::ByLabel;
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, LabelSet, Name, NamespaceMatch, Peer, Policy, Rule, Selector, Tier};

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
    /// For each policy the number of its subject: many policies select the same pods.
    subjects: Vec<usize>,
    /// For each subject the policies that select at least the same pods, in order.
    wider: Vec<Vec<usize>>,
    /// The rules of each direction, by the pods of their peers.
    rules: [RuleIndex<'a>; 2],
}

/// The place of a rule: policy, direction, and number in the policy.
type Place = (usize, usize, usize);

/// Rules of one direction by the pods of their peers, so that a rule is compared only with those that may contain it.
#[derive(Default)]
struct RuleIndex<'a> {
    /// Policy and number, in order.
    all: Vec<(usize, usize)>,
    by_peer: ByLabel<'a>,
    /// The places in `all` of the rules that match every peer.
    of_everything: Vec<usize>,
}

impl<'a> RuleIndex<'a> {
    fn add(&mut self, policy: usize, rules: &'a [Rule]) {
        for (number, rule) in rules.iter().enumerate() {
            let at = self.all.len();
            self.all.push((policy, number));
            match &rule.peers {
                None => self.of_everything.push(at),
                Some(peers) => {
                    for entry in peers {
                        if let Peer::Pods(choice) = &entry.peer {
                            self.by_peer.add_selector(&choice.pods, at);
                        }
                    }
                }
            }
        }
    }

    /// Returns the rules that may contain another one, in order; `None` if that may be any.
    fn containing(&self, rule: &Rule) -> Option<Vec<(usize, usize)>> {
        // A rule contains all peers of another one, so also the first.
        let Peer::Pods(first) = &rule.peers.as_ref()?.first()?.peer else { return None };
        // A selector that matches nothing is contained in all.
        LabelSet::of(&first.pods)?;
        if let NamespaceMatch::Selected(selector) = &first.namespaces {
            LabelSet::of(selector)?;
        }
        let mut found = self.by_peer.containing(&first.pods);
        found.extend(&self.of_everything);
        found.sort_unstable();
        found.dedup();
        Some(found.into_iter().filter_map(|at| self.all.get(at).copied()).collect())
    }
}

impl<'a> Comparison<'a> {
    fn new(policies: &[&'a Policy]) -> Self {
        let mut rules: [RuleIndex<'a>; 2] = Default::default();
        let covered = policies.iter().enumerate().map(|(at, policy)| {
            let of = |direction| policy.rules(direction).unwrap_or_default();
            for (index, direction) in rules.iter_mut().zip(Direction::BOTH) {
                index.add(at, of(direction));
            }
            let covers = |direction| of(direction).iter().map(|rule| (rule, RuleCover::new(rule))).collect();
            Covered { policy, subject: PodCover::new(&policy.subject), rules: Direction::BOTH.map(covers) }
        });
        let policies: Vec<Covered<'a>> = covered.collect();
        let (subjects, wider) = Self::wider(&policies);
        Self { policies, subjects, wider, rules }
    }

    /// Returns the number of each policy's subject, and for each subject the policies that select at least the same pods.
    fn wider(policies: &[Covered<'a>]) -> (Vec<usize>, Vec<Vec<usize>>) {
        let mut numbers: HashMap<&Selector, usize> = HashMap::new();
        let mut members: Vec<Vec<usize>> = Vec::new();
        let mut by_subject = ByLabel::default();
        let mut subjects = Vec::new();
        for (at, covered) in policies.iter().enumerate() {
            let pods = &covered.policy.subject.pods;
            let number = *numbers.entry(pods).or_insert_with(|| {
                by_subject.add_selector(pods, members.len());
                members.push(Vec::new());
                members.len() - 1
            });
            subjects.push(number);
            members[number].push(at);
        }
        let of = |number: usize| &policies[members[number][0]];
        let wider = (0..members.len()).map(|own| {
            let candidates = by_subject.containing(&of(own).policy.subject.pods).into_iter();
            let wider = candidates.filter(|other| of(own).subject.is_within(&of(*other).subject));
            let mut wider: Vec<usize> = wider.flat_map(|other| &members[other]).copied().collect();
            wider.sort_unstable();
            wider
        });
        let wider = wider.collect();
        (subjects, wider)
    }

    fn run(&self, pairs: &mut usize, out: &mut Vec<Found>) {
        for (at, own) in self.policies.iter().enumerate() {
            let wider = &self.wider[self.subjects[at]];
            let mut found: Vec<(Place, Option<Place>)> = Vec::new();
            for direction in 0..2 {
                for number in 0..own.rules[direction].len() {
                    let place = (at, direction, number);
                    let Some(container) = self.container(place, wider, pairs) else { return };
                    found.push((place, container));
                }
            }
            self.report(at, wider, &found, out);
        }
    }

    /// Returns a rule that contains another one; `None` if there were too many to compare.
    #[expect(clippy::option_option, reason = "not looked for, and not found")]
    fn container(&self, place: Place, wider: &[usize], pairs: &mut usize) -> Option<Option<Place>> {
        let (at, direction, number) = place;
        let (rule, own) = &self.policies[at].rules[direction][number];
        let candidates = self.rules[direction].containing(rule);
        let (few, all): (Vec<_>, _) = match candidates {
            Some(few) => (few, None),
            None => (Vec::new(), Some(wider)),
        };
        let few = few.into_iter().filter(|(other, _)| wider.binary_search(other).is_ok());
        let all = all
            .into_iter()
            .flatten()
            .flat_map(|other| (0..self.policies[*other].rules[direction].len()).map(move |n| (*other, n)));
        for (other, n) in few.chain(all) {
            let there = (other, direction, n);
            if there == place {
                continue;
            }
            *pairs = pairs.checked_sub(1)?;
            // Of two that contain each other, the first stays.
            let is_first = || there < place || !self.contains_back(place, there);
            if own.is_within(&self.policies[other].rules[direction][n].1) && is_first() {
                return Some(Some(there));
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

#[cfg(test)]
mod tests {
    use palisade_testkit::{Rng, Shape, cluster, seeds};

    use super::*;

    /// The indexes leave out nothing that a comparison of all pairs finds.
    #[test]
    fn no_container_is_left_out() {
        let (mut containers, mut skipped) = (0, 0);
        for seed in seeds(0..200) {
            let cluster = cluster(&mut Rng::with_seed(seed), &Shape::tiered());
            let mut namespaces: BTreeMap<&NamespaceMatch, Vec<&Policy>> = BTreeMap::new();
            for policy in cluster.policies.values().filter(|p| p.tier == Tier::Developer) {
                namespaces.entry(&policy.subject.namespaces).or_default().push(policy);
            }
            for policies in namespaces.values() {
                let all = Comparison::new(policies);
                for (at, own) in all.policies.iter().enumerate() {
                    // What selects no pod is within all; other rules find it.
                    if LabelSet::of(&own.policy.subject.pods).is_none() {
                        continue;
                    }
                    let wider: Vec<usize> = (0..policies.len())
                        .filter(|other| own.subject.is_within(&all.policies[*other].subject))
                        .collect();
                    assert_eq!(all.wider[all.subjects[at]], wider, "seed {seed}: {}", own.policy.key);
                    for (direction, rules) in own.rules.iter().enumerate() {
                        for (rule, cover) in rules {
                            let Some(found) = all.rules[direction].containing(rule) else { continue };
                            for (other, that) in all.policies.iter().enumerate() {
                                for (n, (_, containing)) in that.rules[direction].iter().enumerate() {
                                    let is_found = found.contains(&(other, n));
                                    skipped += usize::from(!is_found);
                                    if cover.is_within(containing) {
                                        containers += 1;
                                        assert!(is_found, "seed {seed}: {rule:?}");
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        assert!(containers > 100 && skipped > 100, "{containers} {skipped}");
    }
}

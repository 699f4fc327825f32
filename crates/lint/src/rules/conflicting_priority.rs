//! `conflicting-priority`: finds cluster-wide policies whose order is undefined, and rules that decide nothing.

use crate::cover::{PodCover, RuleCover};
use crate::diagnostics::about_policies;
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_manifest::{Code, Diagnostic};
use palisade_policy::{Action, Direction, Policy, Rule, Tier};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL052",
    name: "conflicting-priority",
    level: Level::Warning,
    what: "Finds cluster-wide policies with the same priority (conflicting-priority), rules behind others that match all of the same connections (unreachable-rule), and Pass rules after which nothing decides (pass-to-nothing).",
    why: "In a cluster-wide tier the first rule that matches decides. If two policies have the same priority, the API doesn't define which one is first; policies that can't select the same pod, or have rules for different directions, are left out. A rule decides nothing if earlier rules of the tier match all of its connections: a note. Pass leaves a connection to the next tier, and where no policy of it applies to the pods, the connection is allowed: a note, since files need not contain the policies.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: first}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {}}
  ingress:
  - action: Deny
    from: [{namespaces: {matchLabels: {team: blue}}}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: second}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {}}
  ingress:
  - action: Accept
    from: [{namespaces: {matchLabels: {team: blue}}}]
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: first}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {}}
  ingress:
  - action: Deny
    from: [{namespaces: {matchLabels: {team: blue}}}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: second}
spec:
  tier: Admin
  priority: 20
  subject: {namespaces: {}}
  ingress:
  - action: Accept
    from: [{namespaces: {matchLabels: {team: green}}}]
"#
);

/// How many pairs of rules are compared: those of some hundreds of policies. What lies behind is not looked at.
const MOST_PAIRS: usize = 1_000_000;

/// Returns whether this is what the loader found.
pub(crate) fn fits(d: &Diagnostic) -> bool {
    d.code == Code::EqualPriority
}

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = about_policies(cx, fits, |_| "give each its own priority");
    for tier in [Tier::Admin, Tier::Baseline] {
        let mut policies: Vec<&Policy> = cx.policies().filter(|p| p.tier == tier).collect();
        policies.sort_by(|a, b| Policy::precedence(a, b));
        for direction in Direction::BOTH {
            unreachable_rules(&policies, direction, &mut out);
            passing_to_nothing(cx, &policies, direction, &mut out);
        }
    }
    out
}

/// A rule of a tier, with what it matches.
struct Ranked<'a> {
    policy: &'a Policy,
    rule: &'a Rule,
    subject: PodCover,
    matches: RuleCover,
}

fn unreachable_rules(policies: &[&Policy], direction: Direction, out: &mut Vec<Found>) {
    let mut earlier: Vec<Ranked<'_>> = Vec::new();
    let mut pairs = 0;
    for policy in policies {
        let subject = PodCover::new(&policy.subject);
        for rule in policy.rules(direction).unwrap_or_default() {
            pairs += earlier.len();
            if pairs > MOST_PAIRS {
                return;
            }
            let matches = RuleCover::new(rule);
            let before =
                earlier.iter().find(|e| subject.is_within(&e.subject) && matches.is_within(&e.matches));
            if let Some(before) = before {
                let of = if before.policy.key == policy.key {
                    "an earlier rule of the policy".to_owned()
                } else {
                    format!("a rule of {}", before.policy.key)
                };
                let name = before.rule.name.as_ref().map_or_else(String::new, |name| format!(" (`{name}`)"));
                let message = format!(
                    "the rule decides nothing: {of}{name} comes first and matches every connection that it matches"
                );
                let found = Found::of(&policy.key, rule.origin.as_ref(), message);
                out.push(found.at_level(Level::Note));
            }
            earlier.push(Ranked { policy, rule, subject: subject.clone(), matches });
        }
    }
}

fn passing_to_nothing(cx: &Context<'_>, policies: &[&Policy], direction: Direction, out: &mut Vec<Found>) {
    for policy in policies {
        let rules = policy.rules(direction).unwrap_or_default();
        let mut passing = rules.iter().filter(|rule| rule.action == Action::Pass).peekable();
        if passing.peek().is_none() || is_decided_later(cx, policy, direction) {
            continue;
        }
        for rule in passing {
            let message = "the rule passes to the next tier, where no policy applies to its pods: it allows what it matches"
                .to_owned();
            out.push(Found::of(&policy.key, rule.origin.as_ref(), message).at_level(Level::Note));
        }
    }
}

/// Whether a policy of a later tier applies to some of the pods, or there are none.
fn is_decided_later(cx: &Context<'_>, policy: &Policy, direction: Direction) -> bool {
    let mut classes = cx.selected(policy).peekable();
    classes.peek().is_none()
        || classes.any(|class| {
            cx.in_profile(&cx.profile(class)).any(|p| p.tier > policy.tier && p.rules(direction).is_some())
        })
}

//! The reference: one flow decided the way the specification reads (SEMANTICS D).
//!
//! Short, obvious and slow on purpose: it walks every policy for every question and is never optimised. Everything
//! faster is held equal to it by tests.

use crate::{
    Action, Cluster, Decision, Direction, Flow, Tier, Verdict,
    flow::{Reason, RuleRef, Side},
    near,
    question::{Question, live_pod, reference_to, same_pod},
};

/// Decides one new connection. Both directions are asked, each with its own subject and policies (SEMANTICS D4).
///
/// `O(policies × rules)`.
#[must_use]
pub fn decide(cluster: &Cluster, flow: &Flow) -> Decision {
    let itself = allow(Reason::Itself);
    if same_pod(flow) && !flow.through_service {
        return Decision { egress: itself.clone(), ingress: itself };
    }
    Decision {
        egress: side(cluster, flow, Direction::Egress),
        ingress: side(cluster, flow, Direction::Ingress),
    }
}

fn allow(reason: Reason) -> Side {
    Side { verdict: Verdict::Allow, reason, passed: Vec::new() }
}

fn side(cluster: &Cluster, flow: &Flow, direction: Direction) -> Side {
    let (subject, peer) = match direction {
        Direction::Ingress => (&flow.destination, &flow.source),
        Direction::Egress => (&flow.source, &flow.destination),
    };
    let Some(subject) = live_pod(cluster, subject) else { return allow(Reason::NoSubject) };
    let question = Question { cluster, flow, direction, subject, peer };

    // Before the tiers: no ingress peer can name the own node, and a rule that denies everything because it can't be
    // read must not kill its probes (SEMANTICS D9).
    if direction == Direction::Ingress && question.peer_is_own_node() {
        return allow(Reason::OwnNode);
    }
    let mut passed = Vec::new();
    let decided = question
        .ordered_tier(Tier::Admin, &mut passed)
        .or_else(|| question.network_policies())
        .or_else(|| question.ordered_tier(Tier::Baseline, &mut passed));
    Side { passed, ..decided.unwrap_or_else(|| allow(Reason::NotIsolated)) }
}

impl Question<'_> {
    /// A cluster-wide tier: the first matching rule decides; `None` if none does or it passes (SEMANTICS D). A rule that
    /// passes is added to `passed`.
    fn ordered_tier(&self, tier: Tier, passed: &mut Vec<RuleRef>) -> Option<Side> {
        let policies = self.policies(tier);
        let (policy, index, rule) = policies
            .iter()
            .flat_map(|(policy, rules)| rules.iter().enumerate().map(move |(i, rule)| (policy, i, rule)))
            .find(|(_, _, rule)| self.rule_matches(rule))?;
        let verdict = match rule.action {
            Action::Accept => Verdict::Allow,
            Action::Deny => Verdict::Deny,
            Action::Pass => {
                passed.push(reference_to(policy, index, rule));
                return None;
            }
        };
        Some(Side { verdict, ..allow(Reason::Rule(reference_to(policy, index, rule))) })
    }

    /// The NetworkPolicies: if any isolates the subject, they decide finally (SEMANTICS A.9, D2).
    fn network_policies(&self) -> Option<Side> {
        let policies = self.policies(Tier::Developer);
        if policies.is_empty() {
            return None;
        }
        for (policy, rules) in &policies {
            if let Some((index, rule)) = rules.iter().enumerate().find(|(_, rule)| self.rule_matches(rule)) {
                return Some(allow(Reason::Rule(reference_to(policy, index, rule))));
            }
        }
        if same_pod(self.flow) {
            return Some(allow(Reason::Hairpin));
        }
        let near = near::misses(self, &policies);
        let policies = policies.iter().map(|(p, _)| (p.key.clone(), p.origin.clone())).collect();
        Some(Side { verdict: Verdict::Deny, ..allow(Reason::Isolated { policies, near }) })
    }
}

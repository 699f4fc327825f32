//! The reference: decides one flow the way the specification reads (SEMANTICS D).
//!
//! Short, obvious and slow on purpose: it evaluates every policy for every flow and is never optimized. Tests hold
//! everything faster equal to it.

use crate::{
    Action, Cluster, Deciding, Decision, Direction, Flow, Policy, Rule, Tier, Verdict,
    flow::{Reason, RuleRef, Side},
    near,
    question::{Question, reference_to, running_pod, same_pod},
    tiers::{self, Carrier},
};

/// Decides one new connection by the policies that are enforced. Each direction is decided by the policies of its own
/// subject (SEMANTICS D4).
///
/// `O(policies × rules)`.
#[must_use]
pub fn decide(cluster: &Cluster, flow: &Flow) -> Decision {
    decide_by(cluster, flow, Deciding::Enforced)
}

/// Decides one new connection by these policies. As [`decide`].
#[must_use]
pub fn decide_by(cluster: &Cluster, flow: &Flow, deciding: Deciding) -> Decision {
    let itself = allow(Reason::Itself);
    if same_pod(flow) && !flow.through_service {
        return Decision { egress: itself.clone(), ingress: itself };
    }
    Decision {
        egress: side(cluster, flow, Direction::Egress, deciding),
        ingress: side(cluster, flow, Direction::Ingress, deciding),
    }
}

fn allow(reason: Reason) -> Side {
    Side { verdict: Verdict::Allow, reason, passed: Vec::new() }
}

fn side(cluster: &Cluster, flow: &Flow, direction: Direction, deciding: Deciding) -> Side {
    let (subject, peer) = match direction {
        Direction::Ingress => (&flow.destination, &flow.source),
        Direction::Egress => (&flow.source, &flow.destination),
    };
    let Some(subject) = running_pod(cluster, subject) else { return allow(Reason::NoSubject) };
    let question = Question { cluster, flow, direction, subject, peer, deciding };

    // Before the tiers: no ingress peer can name the pod's own node, and a rule that denies everything because it is
    // malformed must not break the kubelet's probes (SEMANTICS D9).
    if direction == Direction::Ingress && question.peer_is_own_node() {
        return allow(Reason::OwnNode);
    }
    let mut one = OneFlow { question, decided: None, passing: false, passed: Vec::new() };
    tiers::fold(&mut one);
    let (verdict, reason) = one.decided.unwrap_or((Verdict::Allow, Reason::NotIsolated));
    Side { verdict, reason, passed: one.passed }
}

/// One flow on its way through the tiers.
struct OneFlow<'a> {
    question: Question<'a>,
    /// The verdict and its reason, once there is one.
    decided: Option<(Verdict, Reason)>,
    /// Whether a rule of the current tier left the flow to the next tier.
    passing: bool,
    /// The rules that left the flow to the next tier.
    passed: Vec<RuleRef>,
}

/// A policy with one of its rules and the rule's index.
type RuleOf<'a> = (&'a Policy, usize, &'a Rule);

impl<'a> OneFlow<'a> {
    fn rules(&self, tier: Tier) -> Vec<RuleOf<'a>> {
        let policies = self.question.policies(tier);
        let rules = |(policy, rules): (&'a Policy, &'a [Rule])| {
            rules.iter().enumerate().map(move |(index, rule)| (policy, index, rule))
        };
        policies.into_iter().flat_map(rules).collect()
    }
}

impl<'a> Carrier for OneFlow<'a> {
    type Rule = RuleOf<'a>;
    /// Whether the rule takes the flow.
    type Traffic = bool;

    fn ordered_rules(&mut self, tier: Tier) -> Vec<(Action, RuleOf<'a>)> {
        self.rules(tier).into_iter().map(|rule| (rule.2.action, rule)).collect()
    }

    fn isolating_rules(&mut self) -> Option<Vec<RuleOf<'a>>> {
        let isolated = !self.question.policies(Tier::Developer).is_empty();
        isolated.then(|| self.rules(Tier::Developer))
    }

    fn take(&mut self, (_, _, rule): &RuleOf<'a>) -> bool {
        self.decided.is_none() && !self.passing && self.question.rule_matches(rule)
    }

    fn decide(&mut self, taken: bool, verdict: Verdict, (policy, index, rule): &RuleOf<'a>) {
        if taken {
            self.decided = Some((verdict, Reason::Rule(reference_to(policy, *index, rule))));
        }
    }

    fn pass(&mut self, taken: bool, (policy, index, rule): &RuleOf<'a>) {
        if taken {
            self.passing = true;
            self.passed.push(reference_to(policy, *index, rule));
        }
    }

    fn end_tier(&mut self) {
        self.passing = false;
    }

    /// A pod that reaches itself through a service is allowed nevertheless (G-6).
    fn decide_isolated(&mut self) {
        if self.decided.is_some() {
            return;
        }
        self.decided = Some(if same_pod(self.question.flow) {
            (Verdict::Allow, Reason::Hairpin)
        } else {
            let policies = self.question.policies(Tier::Developer);
            let near = near::misses(&self.question, &policies);
            let policies = policies.iter().map(|(p, _)| (p.key.clone(), p.origin.clone())).collect();
            (Verdict::Deny, Reason::Isolated { policies, near })
        });
    }

    fn decide_rest(&mut self) {
        self.decided.get_or_insert((Verdict::Allow, Reason::NotIsolated));
    }
}

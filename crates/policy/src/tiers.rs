//! The order in which tiers and rules are evaluated: the one implementation that all evaluators share (SEMANTICS D1–D3).
//!
//! ```text
//!             rules in order            all rules, if any policy isolates        rules in order
//! traffic ──► Admin ───── not matched ──► NetworkPolicy ── none isolates ──► Baseline ── not matched ──► allowed
//!               │ Pass ──────────────────►  │   │                              │ Pass ────────────────► allowed
//!               ▼                           ▼   ▼                              ▼
//!        accepted, denied        accepted   denied: no rule matches     accepted, denied
//! ```
//!
//! The fold defines only the order. What traffic is, which rules there are and what they match is defined by the
//! carrier: the [reference](crate::reference) carries one flow, the [walk](crate::walk) sets of ports with the rule that
//! takes them, the compiler sets of ports alone, and other crates sets of pods with ports.

use crate::{Action, Tier, Verdict};

/// Carries the traffic that no rule has decided yet through the tiers.
pub trait Carrier {
    /// A rule, or several adjacent rules with one action.
    type Rule;
    /// Some of the traffic.
    type Traffic;

    /// Returns the rules of a cluster-wide tier in order of precedence, each with its action.
    fn ordered_rules(&mut self, tier: Tier) -> Vec<(Action, Self::Rule)>;

    /// Returns the rules of the NetworkPolicies; `None` if none isolates the subject. Their order doesn't matter.
    fn isolating_rules(&mut self) -> Option<Vec<Self::Rule>>;

    /// Takes the undecided traffic that a rule matches.
    fn take(&mut self, rule: &Self::Rule) -> Self::Traffic;

    /// Decides traffic that was taken.
    fn decide(&mut self, taken: Self::Traffic, verdict: Verdict, rule: &Self::Rule);

    /// Keeps traffic that was taken for the next tier.
    fn pass(&mut self, taken: Self::Traffic, rule: &Self::Rule);

    /// Ends a cluster-wide tier: what was passed is undecided again.
    fn end_tier(&mut self);

    /// Decides what no rule of the isolating NetworkPolicies matched.
    fn decide_isolated(&mut self);

    /// Decides what no tier decided: it is allowed.
    fn decide_rest(&mut self);
}

/// Takes all traffic of a carrier through the tiers.
pub fn fold(carrier: &mut impl Carrier) {
    ordered(carrier, Tier::Admin);
    if let Some(rules) = carrier.isolating_rules() {
        for rule in &rules {
            let taken = carrier.take(rule);
            carrier.decide(taken, Verdict::Allow, rule);
        }
        carrier.decide_isolated();
    }
    ordered(carrier, Tier::Baseline);
    carrier.decide_rest();
}

/// A cluster-wide tier: the first rule that matches decides or passes (SEMANTICS C18–C21).
fn ordered<C: Carrier>(carrier: &mut C, tier: Tier) {
    for (action, rule) in carrier.ordered_rules(tier) {
        let taken = carrier.take(&rule);
        match action {
            Action::Accept => carrier.decide(taken, Verdict::Allow, &rule),
            Action::Deny => carrier.decide(taken, Verdict::Deny, &rule),
            Action::Pass => carrier.pass(taken, &rule),
        }
    }
    carrier.end_tier();
}

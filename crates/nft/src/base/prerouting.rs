//! The rules in front of connection tracking, which every packet of every connection passes.
//!
//! Their order follows from what they cost. What packets of other hosts need not pass comes behind the comparison with the interfaces on which
//! these arrive, and the lookups that few packets need come last.

use std::collections::BTreeSet;

use crate::{
    EnforcerOptions,
    base_sets::BaseSets,
    from_pods,
    ruleset::{Chain, Expression, Hook, Outcome, Rule},
};

use super::misdirected;

/// Returns the base chain, after the chains that its rules use.
pub(super) fn chains(options: &EnforcerOptions, sets: &BaseSets, uplinks: &BTreeSet<u32>) -> Vec<Chain> {
    let sources = from_pods::early_rules(options, sets);
    let mut rules = sources.of_claims;
    rules.push(misdirected::with_source_route());
    if !sources.of_pods.is_empty() {
        rules.extend(uplinks.iter().map(|index| accepted_from(*index)));
    }
    rules.push(misdirected::to_reserved_group());
    rules.extend(sources.of_pods);
    let mut chains: Vec<Chain> = sources.chain.into_iter().collect();
    chains.push(Chain::base(Hook::Prerouting, rules));
    chains
}

fn accepted_from(interface: u32) -> Rule {
    vec![Expression::InterfaceIs(interface), Expression::Verdict(Outcome::Accept)]
}

//! The rules in front of connection tracking, which every packet of every connection passes.
//!
//! Their order follows from what they cost. Plain IPv4 of other hosts comes first, then that of pods, unless the check is strict. What packets of other hosts need not pass
//! comes behind the comparison with the interfaces on which these arrive, and the lookups that few packets need come last.

use std::collections::BTreeSet;

use crate::{
    EnforcerOptions,
    base_sets::BaseSets,
    from_pods,
    ruleset::{Chain, Expression, Hook, Outcome},
};

use super::misdirected;

/// Returns the base chain, after the chains that its rules use.
pub(super) fn chains(options: &EnforcerOptions, sets: &BaseSets, uplinks: &BTreeSet<u32>) -> Vec<Chain> {
    let sources = from_pods::early_rules(options, sets);
    let mut rules = sources.of_claims;
    let accepted_from = |index: &u32| vec![Expression::InterfaceIs(*index), accept()];
    if !sources.of_pods.is_empty() {
        let plain = |index: &u32| vec![Expression::PlainIpv4, Expression::InterfaceIs(*index), accept()];
        rules.extend(uplinks.iter().map(plain));
    }
    rules.extend(sources.genuine);
    rules.push(misdirected::with_source_route());
    if !sources.of_pods.is_empty() {
        rules.extend(uplinks.iter().map(accepted_from));
    }
    rules.push(misdirected::to_reserved_group());
    rules.extend(sources.of_pods);
    let mut chains: Vec<Chain> = sources.chain.into_iter().collect();
    chains.push(Chain::base(Hook::Prerouting, rules));
    chains
}

fn accept() -> Expression {
    Expression::Verdict(Outcome::Accept)
}

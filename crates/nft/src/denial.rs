//! The rules that end in a denial: log, count, refuse or drop. Where policies in audit mode would deny: log, count, accept.

use palisade_policy::Direction;

use crate::{
    log_shares::{self, Logged},
    refusal,
    ruleset::{Expression, Outcome, Rule},
};

/// Returns the rules of a denial: the packet is logged within the share of its sender, then counted and dropped.
///
/// The counter comes after no limit, so counts are exact.
pub(crate) fn denial(direction: Direction) -> Vec<Rule> {
    counted(Logged::Denied, direction, Outcome::Drop)
}

/// Returns the rules that end a row: as [`denial`], but pods that refuse what they deny answer the sender first. A missing or empty
/// chain for that changes nothing: the last rule drops.
pub(crate) fn refusable(direction: Direction) -> Vec<Rule> {
    let mut rules = denial(direction);
    rules.pop();
    let refuse = Outcome::Jump(refusal::chain_name(direction).into());
    rules.push(vec![Expression::Counter, Expression::Verdict(refuse)]);
    rules.push(vec![Expression::Verdict(Outcome::Drop)]);
    rules
}

/// Returns the rules that end a row of policies in audit mode: the packet is logged and counted likewise, and passes this
/// hook, so that it is counted once.
pub(crate) fn audit(direction: Direction) -> Vec<Rule> {
    counted(Logged::Audited, direction, Outcome::Accept)
}

fn counted(logged: Logged, direction: Direction, outcome: Outcome) -> Vec<Rule> {
    let log = Outcome::Jump(log_shares::chain_name(logged, direction).into());
    vec![vec![Expression::Verdict(log)], vec![Expression::Counter, Expression::Verdict(outcome)]]
}

//! The rules that end in a denial: log, count, refuse or drop. Where policies in audit mode would deny: log, count, accept.

use std::time::Duration;

use palisade_policy::Direction;

use crate::{
    log_shares::{self, Logged},
    refusal,
    ruleset::{Expression, Outcome, Rule},
};

/// The most denied packets per second of each sender that are logged to nflog.
///
/// Each is copied to a reader and costs some microseconds. A flood of denied packets must not cost the node more than
/// dropping them does.
pub const LOG_RATE: u64 = 100;
/// The most packets of a sender that are logged at once after an idle time. See [`LOG_RATE`].
pub const LOG_BURST: u32 = 250;
/// How long the share of a sender is remembered that has no more packets denied: longer than it takes for the burst to be available again.
pub(crate) const LOG_SHARE_TIMEOUT: Duration = Duration::from_secs(60);
/// The most senders of a family with a share of their own, all of which are local pods or send to one.
pub(crate) const LOG_SHARES: u32 = 4096;

/// The nflog prefix of packets that a pod's egress denies.
pub const LOG_EGRESS: &str = "palisade egress ";
/// The nflog prefix of packets that a pod's ingress denies.
pub const LOG_INGRESS: &str = "palisade ingress ";

/// The nflog prefix of packets that a pod's egress would deny if every policy were enforced.
pub const LOG_AUDIT_EGRESS: &str = "palisade audit egress ";
/// The nflog prefix of packets that a pod's ingress would deny if every policy were enforced.
pub const LOG_AUDIT_INGRESS: &str = "palisade audit ingress ";

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

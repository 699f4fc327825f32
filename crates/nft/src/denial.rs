//! The rules that end in a denial: log, count, refuse or drop. Where policies in audit mode would deny: log, count, accept.

use palisade_policy::Direction;

use crate::{
    EnforcerOptions, refusal,
    ruleset::{Expression, Outcome, Rule},
};

/// The most denied packets per second that each row logs to nflog.
///
/// Each is copied to a reader and costs some microseconds. A flood of denied packets must not cost the node more than
/// dropping them does.
pub const LOG_RATE: u64 = 200;
/// The most packets that a row logs at once after an idle time. See [`LOG_RATE`].
pub const LOG_BURST: u32 = 500;

/// The nflog prefix of packets that a pod's egress denies.
pub const LOG_EGRESS: &str = "palisade egress ";
/// The nflog prefix of packets that a pod's ingress denies.
pub const LOG_INGRESS: &str = "palisade ingress ";

/// The nflog prefix of packets that a pod's egress would deny if every policy were enforced.
pub const LOG_AUDIT_EGRESS: &str = "palisade audit egress ";
/// The nflog prefix of packets that a pod's ingress would deny if every policy were enforced.
pub const LOG_AUDIT_INGRESS: &str = "palisade audit ingress ";

/// Returns the rules of a denial: the packet is logged unless the rate limit is exceeded, then counted and dropped.
///
/// The counter comes after no limit, so counts are exact.
pub(crate) fn denial(options: &EnforcerOptions, direction: Direction) -> Vec<Rule> {
    let prefix = match direction {
        Direction::Egress => LOG_EGRESS,
        Direction::Ingress => LOG_INGRESS,
    };
    logged(options, prefix, Outcome::Drop)
}

/// Returns the rules that end a row: as [`denial`], but pods that refuse what they deny answer the sender first. A missing or empty
/// chain for that changes nothing: the last rule drops.
pub(crate) fn refusable(options: &EnforcerOptions, direction: Direction) -> Vec<Rule> {
    let mut rules = denial(options, direction);
    rules.pop();
    let refuse = Outcome::Jump(refusal::chain_name(direction).into());
    rules.push(vec![Expression::Counter, Expression::Verdict(refuse)]);
    rules.push(vec![Expression::Verdict(Outcome::Drop)]);
    rules
}

/// Returns the rules that end a row of policies in audit mode: the packet is logged and counted likewise, and passes this
/// hook, so that it is counted once.
pub(crate) fn audit(options: &EnforcerOptions, direction: Direction) -> Vec<Rule> {
    let prefix = match direction {
        Direction::Egress => LOG_AUDIT_EGRESS,
        Direction::Ingress => LOG_AUDIT_INGRESS,
    };
    logged(options, prefix, Outcome::Accept)
}

fn logged(options: &EnforcerOptions, prefix: &'static str, outcome: Outcome) -> Vec<Rule> {
    let log = options.log_group.map(|group| {
        vec![Expression::Limit { rate: LOG_RATE, burst: LOG_BURST }, Expression::Log(group, prefix)]
    });
    log.into_iter().chain([vec![Expression::Counter, Expression::Verdict(outcome)]]).collect()
}

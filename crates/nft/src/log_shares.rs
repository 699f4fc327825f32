//! The chains that log denied packets, with a share of the log for each sender and a bound of all of them together.
//!
//! Each direction and verdict has its own chains ([`crate::shares`]), because the prefix of the log says which it is. They use the same sets, so
//! that a share is one of all that a pod is denied. What is not logged is counted all the same: the counters are in the chains that
//! jump here.

use palisade_policy::Direction;

use crate::{
    EnforcerOptions,
    base_sets::BaseSets,
    ruleset::{Chain, Expression, Shared},
    shares::Shares,
};

/// The most denied packets per second of each sender that are logged to nflog.
///
/// Each is copied to a reader and costs some microseconds. A flood of denied packets must not cost the node more than
/// dropping them does.
pub const LOG_RATE: u64 = 100;
/// The most packets of a sender that are logged at once after an idle time. See [`LOG_RATE`].
pub const LOG_BURST: u32 = 250;
/// The most denied packets per second of all senders together that are logged, of each direction, and as many that audit mode lets pass.
///
/// Without it, the log of a node would cost as many times [`LOG_RATE`] as it has pods.
pub const LOG_TOTAL_RATE: u64 = 1000;
/// The most packets of all senders together that are logged at once after an idle time. See [`LOG_TOTAL_RATE`].
pub const LOG_TOTAL_BURST: u32 = 2500;
/// The nflog prefix of packets that a pod's egress denies.
pub const LOG_EGRESS: &str = "palisade egress ";
/// The nflog prefix of packets that a pod's ingress denies.
pub const LOG_INGRESS: &str = "palisade ingress ";

/// The nflog prefix of packets that a pod's egress would deny if every policy were enforced.
pub const LOG_AUDIT_EGRESS: &str = "palisade audit egress ";
/// The nflog prefix of packets that a pod's ingress would deny if every policy were enforced.
pub const LOG_AUDIT_INGRESS: &str = "palisade audit ingress ";

/// What policies would do with a packet that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logged {
    /// They deny it.
    Denied,
    /// They would deny it if none were in audit mode.
    Audited,
}

impl Logged {
    const ALL: [Self; 2] = [Self::Denied, Self::Audited];
}

/// Returns the name of the chain that logs packets of one direction.
pub(crate) fn chain_name(logged: Logged, direction: Direction) -> &'static str {
    match (logged, direction) {
        (Logged::Denied, Direction::Egress) => "log_egress",
        (Logged::Denied, Direction::Ingress) => "log_ingress",
        (Logged::Audited, Direction::Egress) => "log_audit_egress",
        (Logged::Audited, Direction::Ingress) => "log_audit_ingress",
    }
}

fn prefix(logged: Logged, direction: Direction) -> &'static str {
    match (logged, direction) {
        (Logged::Denied, Direction::Egress) => LOG_EGRESS,
        (Logged::Denied, Direction::Ingress) => LOG_INGRESS,
        (Logged::Audited, Direction::Egress) => LOG_AUDIT_EGRESS,
        (Logged::Audited, Direction::Ingress) => LOG_AUDIT_INGRESS,
    }
}

/// Returns the chains, each after the chains that its rules use. They are empty if nothing is logged, so that the chains that jump here
/// do not depend on that.
pub(crate) fn chains(options: &EnforcerOptions, sets: &BaseSets) -> Vec<Chain> {
    let kinds =
        Logged::ALL.into_iter().flat_map(|logged| Direction::BOTH.map(|direction| (logged, direction)));
    kinds.flat_map(|(logged, direction)| of_kind(options, sets, logged, direction)).collect()
}

fn of_kind(options: &EnforcerOptions, sets: &BaseSets, logged: Logged, direction: Direction) -> [Chain; 4] {
    let shares = Shares {
        of: Shared::Log,
        name: chain_name(logged, direction),
        what: "the log",
        rate: LOG_RATE,
        burst: LOG_BURST,
    };
    let total = || Expression::Limit { rate: LOG_TOTAL_RATE, burst: LOG_TOTAL_BURST };
    let log = |group| vec![total(), Expression::Log(group, prefix(logged, direction))];
    shares.chains(sets, options.log_group.map(log).into_iter().collect())
}

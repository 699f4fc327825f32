//! The chains that log denied packets, with a share of the log for each sender.
//!
//! ```text
//!   row, closed chain, … ─► log_DIRECTION ─► log_DIRECTION_senders     from a local pod: a share for each source
//!                                └─────────► log_DIRECTION_receivers   else to a local pod: a share for each destination
//!                                            and one for all the rest
//! ```
//!
//! A flood by one pod leaves the records of its neighbors alone. Addresses that are not those of local pods can be forged, so that each packet would
//! be a new sender: they have a share for each pod that receives. So the sets have an element for each local pod at most, and are never
//! full. What is not logged is counted all the same: the counters are in the chains that jump here.

use palisade_policy::{Direction, Family};

use crate::{
    EnforcerOptions,
    base_sets::BaseSets,
    ruleset::{Chain, Expression, NodeSet, Outcome, Rule},
};

/// The most denied packets per second of each sender that are logged to nflog.
///
/// Each is copied to a reader and costs some microseconds. A flood of denied packets must not cost the node more than
/// dropping them does.
pub const LOG_RATE: u64 = 100;
/// The most packets of a sender that are logged at once after an idle time. See [`LOG_RATE`].
pub const LOG_BURST: u32 = 250;
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

fn of_kind(options: &EnforcerOptions, sets: &BaseSets, logged: Logged, direction: Direction) -> [Chain; 3] {
    let (name, prefix) = (chain_name(logged, direction), prefix(logged, direction));
    let [senders, receivers] = ["senders", "receivers"].map(|of| format!("{name}_{of}"));
    let to_share = |family: Family, source: bool, chain: &str| {
        let end = if source { Direction::Ingress } else { Direction::Egress };
        let local = sets.node(NodeSet::Local(family)).name.clone();
        let goto = Expression::Verdict(Outcome::Goto(chain.into()));
        vec![Expression::Family(family), Expression::PeerIn(end, family, local), goto]
    };
    let share = |group: u16, family: Family, source: bool| -> Rule {
        let set = sets.log_shares(source, family).name.clone();
        let limit = Expression::LimitEach { family, source, set, rate: LOG_RATE, burst: LOG_BURST };
        vec![Expression::Family(family), limit, Expression::Log(group, prefix)]
    };
    let shares = |source: bool| -> Vec<Rule> {
        let groups = options.log_group.into_iter();
        groups.flat_map(|group| Family::BOTH.map(|family| share(group, family, source))).collect()
    };
    let rules = options.log_group.map_or_else(Vec::new, |group| {
        let by_sender = Family::BOTH.map(|family| to_share(family, true, &senders));
        let by_receiver = Family::BOTH.map(|family| to_share(family, false, &receivers));
        let rest =
            vec![Expression::Limit { rate: LOG_RATE, burst: LOG_BURST }, Expression::Log(group, prefix)];
        by_sender.into_iter().chain(by_receiver).chain([rest]).collect()
    });
    [
        Chain::regular(senders.as_str(), "a share of the log for each source", shares(true)),
        Chain::regular(receivers.as_str(), "a share of the log for each destination", shares(false)),
        Chain::regular(name, "logs, within the share of the sender", rules),
    ]
}

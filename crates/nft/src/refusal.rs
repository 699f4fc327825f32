//! The chains that answer the senders of packets that a pod's policies deny, for pods whose namespace refuses instead of dropping.
//!
//! The last rules of a row jump here with what they deny. Which pods refuse is a set of addresses, so that rows and their chains are the same
//! for all pods. While no local pod refuses, the chains that rows jump to are empty, and the row drops.
//!
//! An answer costs the node more than a drop, and goes to an address that may be forged. So each sender has a share of the answers, as of the
//! log ([`crate::shares`]), and there is a limit of all answers of the node; beyond either, packets are dropped.

use palisade_policy::{Direction, Family, Protocol};

use crate::{
    EnforcerOptions,
    base_sets::BaseSets,
    ruleset::{
        Answer, Chain, Expression, NodeSet, Outcome, REFUSE_EGRESS_CHAIN, REFUSE_INGRESS_CHAIN,
        REFUSED_CHAIN, Rule, Shared,
    },
    shares::Shares,
};

/// The most answers per second to each sender.
pub const REFUSE_RATE: u64 = 50;
/// The most answers at once to a sender after an idle time. See [`REFUSE_RATE`].
pub const REFUSE_BURST: u32 = 100;
/// The most answers per second of a node to TCP, and as many to other protocols.
pub const REFUSE_TOTAL_RATE: u64 = 500;
/// The most answers of a node at once after an idle time. See [`REFUSE_TOTAL_RATE`].
pub const REFUSE_TOTAL_BURST: u32 = 1000;

/// Returns the name of the chain for what one direction denies.
pub(crate) fn chain_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => REFUSE_EGRESS_CHAIN,
        Direction::Ingress => REFUSE_INGRESS_CHAIN,
    }
}

/// Returns the chains that rows jump to. Without a refusing pod they are empty.
pub(crate) fn of_pods(sets: &BaseSets, refusing: bool) -> [Chain; 2] {
    Direction::BOTH.map(|direction| {
        let rules = if refusing {
            Family::BOTH.map(|family| of_pod(sets, direction, family)).into()
        } else {
            Vec::new()
        };
        Chain::regular(chain_name(direction), format!("{direction}: denied, for pods that refuse"), rules)
    })
}

/// Returns the chains that answer, each after the chains that its rules use. They are there before a pod refuses, so that this changes little; they
/// are empty if nothing may be answered.
pub(crate) fn chains(options: &EnforcerOptions, sets: &BaseSets) -> [Chain; 4] {
    let shares = Shares {
        of: Shared::Refusals,
        name: REFUSED_CHAIN,
        what: "answers to senders",
        rate: REFUSE_RATE,
        burst: REFUSE_BURST,
    };
    shares.chains(sets, if options.refusals { answers() } else { Vec::new() })
}

/// The pod is the source of egress and the destination of ingress: the place of the peer of the other direction.
fn of_pod(sets: &BaseSets, direction: Direction, family: Family) -> Rule {
    let set = sets.node(NodeSet::Refusing(family)).name.clone();
    vec![
        Expression::Family(family),
        Expression::PeerIn(direction.opposite(), family, set),
        Expression::Verdict(Outcome::Jump(REFUSED_CHAIN.into())),
    ]
}

/// Returns the rules that answer, within the limit of the node.
pub(crate) fn answers() -> Vec<Rule> {
    let limit = || Expression::Limit { rate: REFUSE_TOTAL_RATE, burst: REFUSE_TOTAL_BURST };
    let tcp = Protocol::Tcp.number();
    vec![
        vec![Expression::Protocol(tcp), limit(), Expression::Reject(Answer::Reset)],
        vec![Expression::ProtocolNotIn(vec![tcp]), limit(), Expression::Reject(Answer::Prohibited)],
    ]
}

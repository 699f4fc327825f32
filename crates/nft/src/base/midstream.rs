//! The rules for mid-stream TCP packets: packets that don't open a connection, of connections without an entry.
//!
//! Connection tracking creates an entry for such a packet (`nf_conntrack_tcp_loose`) and treats its sender as the opener,
//! whichever end it is. After a flush, or if the connection is older than connection tracking, the first packet may be a
//! reply. It passes because its sender may send anywhere, and then packets of the denied opener pass as its replies.
//!
//! So a mid-stream packet must also be allowed in reverse, as a reply to the connection that it may belong to. The
//! exception is a packet whose ports show that its sender is the opener: an ephemeral source port and a destination port
//! that is not ephemeral. This check only ever denies more: a packet that passes it has already passed the tables as a
//! request.
//!
//! What can't be decided fails closed. If both ports are ephemeral or neither is, a connection survives the loss of its
//! entry only if policies allow it in both directions.

use palisade_policy::{Direction, Family, Protocol};

use crate::{
    base::to_audit,
    base_sets::BaseSets,
    conntrack::FIRST_EPHEMERAL_PORT,
    ruleset::{Chain, Expression, JumpTarget, Outcome, REPLIES_CHAIN, Rule},
};

/// Returns the rules for packets that may be replies: their source port is not ephemeral, or their destination port is.
pub(super) fn unless_from_opener() -> Vec<Rule> {
    reply_ports()
        .map(|port| {
            let to = Expression::Verdict(Outcome::Goto(REPLIES_CHAIN.into()));
            midstream().chain([port, to]).collect()
        })
        .into()
}

/// Returns the rules for packets that the node itself sends.
///
/// Only packets that must be replies are checked: no policy applies to connections that the node opens to its pods.
pub(super) fn from_answerer(sets: &BaseSets) -> Vec<Rule> {
    let rule = |family| {
        let to_table = dispatch(sets, Direction::Egress, family);
        midstream().chain(reply_ports()).chain(to_table).collect()
    };
    Family::BOTH.map(rule).into()
}

/// Returns the chain that applies the tables of both ends to the packet as a reply.
pub(super) fn chain(sets: &BaseSets) -> Chain {
    let both = Direction::BOTH.into_iter().flat_map(|d| Family::BOTH.map(|family| (d, family)));
    let mut rules: Vec<Rule> =
        both.map(|(direction, family)| dispatch(sets, direction, family).to_vec()).collect();
    rules.push(to_audit());
    Chain::regular(REPLIES_CHAIN, "TCP in the middle of a connection, as replies", rules)
}

fn reply_ports() -> [Expression; 2] {
    [Expression::SourcePort(0, FIRST_EPHEMERAL_PORT - 1), Expression::Port(FIRST_EPHEMERAL_PORT, u16::MAX)]
}

fn midstream() -> impl Iterator<Item = Expression> {
    [Expression::Protocol(Protocol::Tcp.number()), Expression::TcpNotSyn, Expression::InvalidOrNew]
        .into_iter()
}

/// The isolated pod of a direction is at the other end of a reply.
fn dispatch(sets: &BaseSets, direction: Direction, family: Family) -> [Expression; 2] {
    let map = sets.dispatch(JumpTarget::Reply(direction), family).name.clone();
    [Expression::Family(family), Expression::Dispatch(direction.opposite(), family, map)]
}

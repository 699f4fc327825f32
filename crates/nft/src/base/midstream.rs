//! The rules for TCP packets in the middle of a connection that connection tracking doesn't know.
//!
//! Such a packet begins an entry (`nf_conntrack_tcp_loose`), and its sender counts as the opener from then on, whoever it
//! was. After a flush, or where the connection is older than tracking, the packet that happens to come first may be a reply:
//! it passes because its sender may send anywhere, and the denied opener's packets pass as replies to it. So it has to be
//! allowed the other way round as well, as a reply to the connection that it may belong to, unless the ports say that its
//! sender is the opener: an ephemeral port on its side and none on the other. This only ever denies more: whatever
//! a packet passes as here, it has passed the tables as the request that it looks like.
//!
//! What can't be known thus fails closed. Where both ports are ephemeral or neither is, a connection survives the loss of
//! its entry only if the policies would allow it both ways round.

use palisade_policy::{Direction, Family, Protocol};

use super::BaseSets;
use crate::ruleset::{Chain, Expression, Lead, Outcome, REPLIES_CHAIN, Rule};

/// The first ephemeral port of Linux by default (`net.ipv4.ip_local_port_range`); that of other systems is 49152.
pub(crate) const EPHEMERAL: u16 = 32_768;

/// Packets that may be replies: whose source port is not ephemeral, or whose destination port is.
pub(super) fn unless_from_the_opener() -> Vec<Rule> {
    let ports = [Expression::SourcePort(0, EPHEMERAL - 1), Expression::Port(EPHEMERAL, u16::MAX)];
    ports
        .map(|port| {
            let to = Expression::Then(Outcome::Goto(REPLIES_CHAIN.into()));
            midstream().chain([port, to]).collect()
        })
        .into()
}

/// What the node itself sends: nothing but what can only be a reply is looked at, as its own connections to its pods
/// meet no policy.
pub(super) fn from_the_answerer(sets: &BaseSets) -> Vec<Rule> {
    let ports = [Expression::SourcePort(0, EPHEMERAL - 1), Expression::Port(EPHEMERAL, u16::MAX)];
    let rule = |family| {
        let to_table = dispatch(sets, Direction::Egress, family);
        midstream().chain(ports.clone()).chain(to_table).collect()
    };
    Family::BOTH.map(rule).into()
}

/// Asks the tables of both ends about the packet as a reply.
pub(super) fn chain(sets: &BaseSets) -> Chain {
    let both = Direction::BOTH.into_iter().flat_map(|d| Family::BOTH.map(|family| (d, family)));
    Chain {
        name: REPLIES_CHAIN.into(),
        hook: None,
        comment: Some("TCP in the middle of a connection, as replies".to_owned()),
        rules: both.map(|(direction, family)| dispatch(sets, direction, family).to_vec()).collect(),
        chains: Vec::new(),
        sets: Vec::new(),
    }
}

fn midstream() -> impl Iterator<Item = Expression> {
    [Expression::Protocol(Protocol::Tcp.number()), Expression::Midstream, Expression::Unestablished]
        .into_iter()
}

/// The pod that a direction is about stands at the other end of a reply.
fn dispatch(sets: &BaseSets, direction: Direction, family: Family) -> [Expression; 2] {
    let map = sets.dispatch(Lead::Reply(direction), family).name.clone();
    [Expression::Family(family), Expression::Dispatch(direction.opposite(), family, map)]
}

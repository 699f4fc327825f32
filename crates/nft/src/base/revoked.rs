//! The rules that keep revoked connections cut.
//!
//! A label on its conntrack entry cuts a live connection at its next packet. But an entry can go: it is deleted or flushed, a
//! forged RST closes it, it expires, or it never had room for a label. Connection tracking then takes the next packet of
//! either end for the first of a new connection (`nf_conntrack_tcp_loose`; UDP has no other beginning), and where that
//! packet goes in the allowed direction, the denied ones pass as its replies. So revoked connections are kept by their
//! tuples in sets of ours as well, in both orientations, and a packet that would begin an entry is looked up there.
//! The agent puts them there, and they expire long after both ends have given up; packets don't renew them, because a
//! packet that is under way would put back what the agent takes out.
//!
//! A packet of an established connection ends at the rule before this look-up, so it pays nothing for it.

use palisade_policy::{Family, Protocol};

use super::BaseSets;
use crate::conntrack::{ICMP, ICMPV6};
use crate::ruleset::{Chain, Expression, HasPorts, Outcome, REVOKED_CHAIN, Rule};

/// What carries our label is of a revoked connection.
pub(super) fn by_label() -> Rule {
    vec![Expression::Revoked, to_revoked()]
}

/// What has a tuple that was revoked would open that connection again. A TCP packet with SYN alone can't: it begins
/// a connection of its own, and is judged as such.
pub(super) fn by_tuple(sets: &BaseSets) -> Vec<Rule> {
    per_kind(|family, protocol, has_ports| {
        let mut rule = Vec::new();
        if protocol == Some(Protocol::Tcp) {
            rule.push(Expression::Midstream);
        }
        let set = sets.revoked(family, has_ports).name.clone();
        rule.extend([Expression::TupleIn(family, has_ports, set), to_revoked()]);
        rule
    })
}

/// Drops the packets of revoked connections.
pub(super) fn chain() -> Chain {
    Chain {
        name: REVOKED_CHAIN.into(),
        hook: None,
        comment: Some("packets of revoked connections".to_owned()),
        rules: vec![vec![Expression::Counter, Expression::Then(Outcome::Drop)]],
        chains: Vec::new(),
        sets: Vec::new(),
    }
}

fn to_revoked() -> Expression {
    Expression::Then(Outcome::Goto(REVOKED_CHAIN.into()))
}

/// One rule for each family and protocol with ports, and one for each family and all other protocols.
fn per_kind(then: impl Fn(Family, Option<Protocol>, HasPorts) -> Rule) -> Vec<Rule> {
    let mut rules = Vec::new();
    for family in Family::BOTH {
        for protocol in Protocol::WITH_PORTS {
            let mut rule = vec![Expression::Family(family), Expression::Protocol(protocol.number())];
            rule.extend(then(family, Some(protocol), HasPorts::Yes));
            rules.push(rule);
        }
        // An answer of ICMP begins no entry, and the identifier that makes it one is no part of the tuple.
        let others = Protocol::WITH_PORTS.map(Protocol::number).into_iter().chain([ICMP, ICMPV6]);
        let others = Expression::NoneOf(others.collect());
        let mut rule = vec![Expression::Family(family), others];
        rule.extend(then(family, None, HasPorts::No));
        rules.push(rule);
    }
    rules
}

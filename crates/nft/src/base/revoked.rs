//! The rules that keep revoked connections cut.
//!
//! A label on its conntrack entry cuts a live connection at its next packet. But an entry can go: it is deleted or flushed, a
//! forged RST closes it, it expires, or it never had room for a label. Connection tracking then takes the next packet of
//! either end for the first of a new connection (`nf_conntrack_tcp_loose`; UDP has no other beginning), and where that
//! packet goes in the allowed direction, the denied ones pass as its replies. So revoked connections are kept by their
//! tuples in sets of ours as well, in both orientations, and a packet that would begin an entry is looked up there.
//! Packets that are dropped renew the time-out.
//!
//! A packet of an established connection ends at the rule before this look-up, so it pays nothing for it.

use palisade_policy::{Family, Protocol};

use super::BaseSets;
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

/// Remembers the tuple of a packet of a revoked connection, or remembers it for longer, and drops the packet. A set that
/// is full remembers no more; the drop doesn't depend on it.
pub(super) fn chain(sets: &BaseSets) -> Chain {
    let mut rules = per_kind(|family, _, has_ports| {
        let set = sets.revoked(family, has_ports).name.clone();
        vec![Expression::RenewTuple(family, has_ports, set)]
    });
    rules.push(vec![Expression::Counter, Expression::Then(Outcome::Drop)]);
    Chain {
        name: REVOKED_CHAIN.into(),
        hook: None,
        comment: Some("packets of revoked connections".to_owned()),
        rules,
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
        let others = Expression::NoneOf(Protocol::WITH_PORTS.map(Protocol::number).to_vec());
        let mut rule = vec![Expression::Family(family), others];
        rule.extend(then(family, None, HasPorts::No));
        rules.push(rule);
    }
    rules
}

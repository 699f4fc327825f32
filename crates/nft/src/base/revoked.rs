//! The rules that keep connections revoked.
//!
//! A label on its conntrack entry stops an established connection at its next packet. But the entry can disappear: it is
//! deleted or flushed, a forged RST closes it, it expires, or it never had room for a label. Connection tracking then takes
//! the next packet of either end as the first of a new connection (`nf_conntrack_tcp_loose`; UDP always works like this).
//! If that packet goes in the allowed direction, packets in the denied direction pass as its replies.
//!
//! So the tuples of revoked connections are also kept in sets of this table, in both orientations, and a packet that
//! would create an entry is looked up there. The agent adds the tuples. They expire long after both ends have given up.
//! Packets don't refresh them, because a packet in flight would restore an element that the agent removes.
//!
//! Packets of established connections are accepted before this lookup, so it costs them nothing.

use palisade_policy::{Family, Protocol};

use crate::{
    base_sets::BaseSets,
    conntrack::{ICMP, ICMPV6},
    ruleset::{Chain, Expression, HasPorts, Outcome, REVOKED_CHAIN, Rule},
};

/// Returns the rule for packets whose entry carries the revocation label.
pub(super) fn by_label() -> Rule {
    vec![Expression::Revoked, to_revoked()]
}

/// Returns the rules for packets of a family that would open a revoked connection again.
///
/// A TCP packet with SYN alone opens a new connection, and the policy tables decide about it.
pub(super) fn by_tuple(family: Family, sets: &BaseSets) -> Vec<Rule> {
    per_kind(family, |protocol, has_ports| {
        let mut rule = Vec::new();
        if protocol == Some(Protocol::Tcp) {
            rule.push(Expression::TcpNotSyn);
        }
        let set = sets.revoked(family, has_ports).name.clone();
        rule.extend([Expression::TupleIn(family, has_ports, set), to_revoked()]);
        rule
    })
}

/// Returns the chain that drops packets of revoked connections.
pub(super) fn chain() -> Chain {
    let rules = vec![vec![Expression::Counter, Expression::Verdict(Outcome::Drop)]];
    Chain::regular(REVOKED_CHAIN, "packets of revoked connections", rules)
}

fn to_revoked() -> Expression {
    Expression::Verdict(Outcome::Goto(REVOKED_CHAIN.into()))
}

/// Returns one rule for each protocol with ports, and one for all other protocols.
fn per_kind(family: Family, then: impl Fn(Option<Protocol>, HasPorts) -> Rule) -> Vec<Rule> {
    let mut rules = Vec::new();
    for protocol in Protocol::WITH_PORTS {
        let mut rule = vec![Expression::Family(family), Expression::Protocol(protocol.number())];
        rule.extend(then(Some(protocol), HasPorts::Yes));
        rules.push(rule);
    }
    // An ICMP reply creates no entry, and the identifier that ties it to a request is not part of the tuple.
    let others = Protocol::WITH_PORTS.map(Protocol::number).into_iter().chain([ICMP, ICMPV6]);
    let mut rule = vec![Expression::Family(family), Expression::ProtocolNotIn(others.collect())];
    rule.extend(then(None, HasPorts::No));
    rules.push(rule);
    rules
}

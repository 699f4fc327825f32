//! The packets by which IPv6 neighbours and routers find each other, and listeners tell their groups. Without them there
//! is no IPv6, so no policy is asked (SEMANTICS G-7). The rules take no more than the standards call valid: anything else
//! with such a type is judged like any packet.

use std::net::{IpAddr, Ipv6Addr};

use palisade_policy::Family;

use crate::ruleset::{Chain, DISCOVERY_CHAIN, Expression, Outcome, Rule};

/// ICMPv6.
const ICMPV6: u8 = 58;

/// Router and neighbour discovery and redirects (RFC 4861): valid with this hop limit alone, which says that no router
/// has forwarded it.
const DISCOVERY: (u8, u8) = (133, 137);
/// See [`DISCOVERY`].
const DISCOVERY_HOP_LIMIT: u8 = 255;

/// Multicast listener discovery (RFC 2710, 3810): valid with this hop limit, from a link-local source, or from none while
/// an address is being tested.
const LISTENERS: [(u8, u8); 2] = [(130, 132), (143, 143)];
/// See [`LISTENERS`].
const LISTENERS_HOP_LIMIT: u8 = 1;

/// What leads to the chain.
pub(crate) fn entrance() -> Rule {
    vec![
        Expression::Family(Family::V6),
        Expression::Protocol(ICMPV6),
        Expression::Then(Outcome::Jump(DISCOVERY_CHAIN.into())),
    ]
}

/// The chain that accepts them, and gives back what is none.
pub(crate) fn chain() -> Chain {
    Chain {
        name: DISCOVERY_CHAIN.into(),
        hook: None,
        comment: Some("valid IPv6 neighbour, router and listener discovery".to_owned()),
        rules: rules().collect(),
        chains: Vec::new(),
        sets: Vec::new(),
    }
}

/// The rules of the chain, for tables that have no such chain.
pub(crate) fn rules() -> impl Iterator<Item = Rule> {
    let rule = |(first, last), hop_limit, source: Option<Expression>| {
        let matches = [
            Expression::Family(Family::V6),
            Expression::Protocol(ICMPV6),
            Expression::Icmpv6(first, last),
            Expression::HopLimit(hop_limit),
        ];
        matches.into_iter().chain(source).chain([Expression::Then(Outcome::Accept)]).collect()
    };
    let mut rules = vec![rule(DISCOVERY, DISCOVERY_HOP_LIMIT, None)];
    for types in LISTENERS {
        let sources =
            [Expression::LinkLocal { source: true }, Expression::From(IpAddr::V6(Ipv6Addr::UNSPECIFIED))];
        rules.extend(sources.map(|source| rule(types, LISTENERS_HOP_LIMIT, Some(source))));
    }
    rules.into_iter()
}

//! IPv6 neighbor discovery, router discovery and multicast listener discovery.
//!
//! IPv6 doesn't work without them, so no policy applies to them (SEMANTICS G-7). The rules accept only what the standards
//! call valid. Any other packet with such an ICMPv6 type is evaluated like all packets.

use std::net::{IpAddr, Ipv6Addr};

use palisade_policy::Family;

use crate::{
    conntrack::ICMPV6,
    ruleset::{Chain, DISCOVERY_CHAIN, Expression, Outcome, Rule},
};

/// Router discovery, neighbor discovery and redirect (RFC 4861). Valid only with hop limit 255, which proves that no
/// router forwarded the packet.
const DISCOVERY: (u8, u8) = (133, 137);
/// See [`DISCOVERY`].
const DISCOVERY_HOP_LIMIT: u8 = 255;

/// Multicast listener discovery (RFC 2710, RFC 3810). Valid only with hop limit 1, from a link-local source, or from the
/// unspecified address while an address is tentative.
const LISTENERS: [(u8, u8); 2] = [(130, 132), (143, 143)];
/// See [`LISTENERS`].
const LISTENERS_HOP_LIMIT: u8 = 1;

/// Returns the rule that jumps to the chain.
pub(crate) fn jump_rule() -> Rule {
    vec![
        Expression::Family(Family::V6),
        Expression::Protocol(ICMPV6),
        Expression::Verdict(Outcome::Jump(DISCOVERY_CHAIN.into())),
    ]
}

/// Returns the chain that accepts valid discovery and returns for everything else.
pub(crate) fn chain() -> Chain {
    let comment = "valid IPv6 neighbor, router and listener discovery";
    Chain::regular(DISCOVERY_CHAIN, comment, rules().collect())
}

/// Returns the rules of the chain, for tables without such a chain.
pub(crate) fn rules() -> impl Iterator<Item = Rule> {
    let rule = |(first, last), hop_limit, source: Option<Expression>| {
        let matches = [
            Expression::Family(Family::V6),
            Expression::Protocol(ICMPV6),
            Expression::Icmpv6(first, last),
            Expression::HopLimit(hop_limit),
        ];
        matches.into_iter().chain(source).chain([Expression::Verdict(Outcome::Accept)]).collect()
    };
    let mut rules = vec![rule(DISCOVERY, DISCOVERY_HOP_LIMIT, None)];
    for types in LISTENERS {
        let sources =
            [Expression::LinkLocal { source: true }, Expression::SourceIs(IpAddr::V6(Ipv6Addr::UNSPECIFIED))];
        rules.extend(sources.map(|source| rule(types, LISTENERS_HOP_LIMIT, Some(source))));
    }
    rules.into_iter()
}

//! The check of senders: whether a frame of a pod says that it comes from that pod (SEMANTICS G-19).
//!
//! ```text
//!  prerouting ┬ plain IP from the pod's own addresses ─► accept
//!             └ by a checked port ─► sources ─ hardware address of another pod ───────► drop
//!                                       ├ VLAN tag ───────────────────────────────────► drop
//!                                       ├ message of a router from a known pod ─────────► drop
//!                                       ├ discovery about an address ─► targets ──────► drop, unless it is the pod's or unassigned
//!                                       ├ one of the pod's own addresses (IPv4, IPv6, ARP) ─► return
//!                                       ├ an address of another pod, of a node or of a group ─► drop
//!                                       └ any other: return; strict: only what has no own address yet, else drop
//! ```
//!
//! It sees each frame, also of established connections, before the bridge learns its hardware address. A frame with the pod's own
//! addresses costs one lookup, whatever the number of pods.
//!
//! A port is *bound* when its pod is known. Only the address of a bound port or of a node is taken: a pod that isn't known yet keeps what it
//! sends, and strict rules don't apply to its port.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use palisade_policy::{Family, Protocol};

use super::Bridge;
use crate::{
    SourceCheck,
    groups::{BROADCAST_V4, MULTICAST_V4, MULTICAST_V6},
    ruleset::{Chain, Expression, NodeSet, Outcome, Rule, SOURCES_CHAIN, SenderField, TARGETS_CHAIN},
    uapi::if_ether::{ETH_P_8021AD, ETH_P_8021Q, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6},
};

/// ICMPv6, and its messages of neighbor discovery (RFC 4861, section 4).
const ICMPV6: u8 = 58;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// The port of DHCP servers.
const DHCP_SERVER: u16 = 67;

/// Returns the first rules of the base chain. They accept what the chains accept too: plain IP from the pod's own address and hardware address. Most
/// frames end here, after one lookup.
pub(super) fn genuine(bridge: &Bridge) -> [Rule; 2] {
    Family::BOTH.map(|family| {
        let kind = if family == Family::V4 { ETH_P_IP } else { ETH_P_IPV6 };
        let mut rule = vec![Expression::EtherType(kind)];
        if family == Family::V6 {
            // Discovery says more than its source.
            rule.push(Expression::ProtocolNotIn(vec![ICMPV6]));
        }
        rule.push(Expression::PortSenderIn(family, bridge.name_of(NodeSet::PortSenders(family))));
        rule.push(verdict(Outcome::Accept));
        rule
    })
}

/// Returns the rule of the base chain that jumps to the check.
pub(super) fn jump_rule(bridge: &Bridge) -> Rule {
    vec![
        Expression::InterfaceIn { set: bridge.name_of(NodeSet::CheckedPorts), inverted: false },
        jump(SOURCES_CHAIN),
    ]
}

/// Returns the chains, each after the chains that its rules use.
pub(super) fn chains(bridge: &Bridge) -> [Arc<Chain>; 2] {
    [targets(bridge), sources(bridge)].map(Arc::new)
}

fn sources(bridge: &Bridge) -> Chain {
    let is_strict = bridge.source_check == SourceCheck::Strict;
    let in_set = |field, by_port, set| sender(bridge, field, by_port, set, false);
    let mut rules = hardware(bridge, is_strict);
    // The receiver removes the tag of VLAN 0, and takes what it hides for plain IP or ARP: of any source.
    rules.extend([ETH_P_8021Q, ETH_P_8021AD].map(|tag| dropped([Expression::EtherType(tag)])));
    rules
        .push(own(ETH_P_IP, in_set(SenderField::Source(Family::V4), true, NodeSet::PortSources(Family::V4))));
    rules.push(about(NEIGHBOR_ADVERTISEMENT, Vec::new()));
    // Without a source address of its own, a host asks whether another has the address that it will take (RFC 4862, section 5.4).
    rules.push(about(NEIGHBOR_SOLICITATION, vec![Expression::SourceIs(IpAddr::V6(Ipv6Addr::UNSPECIFIED))]));
    rules.extend([ROUTER_ADVERTISEMENT, REDIRECT].map(|kind| of_router(bridge, kind)));
    rules.push(own(
        ETH_P_IPV6,
        in_set(SenderField::Source(Family::V6), true, NodeSet::PortSources(Family::V6)),
    ));
    rules.push(own(ETH_P_ARP, in_set(SenderField::ArpSource, true, NodeSet::PortSources(Family::V4))));
    for (kind, field, family) in [
        (ETH_P_IP, SenderField::Source(Family::V4), Family::V4),
        (ETH_P_IPV6, SenderField::Source(Family::V6), Family::V6),
        (ETH_P_ARP, SenderField::ArpSource, Family::V4),
    ] {
        let taken = in_set(field, false, NodeSet::Taken(family));
        rules.push(dropped([Expression::EtherType(kind), taken]));
    }
    rules.extend(of_groups());
    if is_strict {
        rules.push(unless_bound(bridge));
        rules.extend(bridge.allowed_sources.iter().flat_map(|network| allowed(*network)));
        for (kind, field, family) in [
            (ETH_P_IP, SenderField::Source(Family::V4), Family::V4),
            (ETH_P_IPV6, SenderField::Source(Family::V6), Family::V6),
            (ETH_P_ARP, SenderField::ArpSource, Family::V4),
        ] {
            rules.push(own(kind, in_set(field, true, NodeSet::PortAllowed(family))));
        }
        rules.extend(without_address());
        rules.push(dropped([]));
    }
    Chain::regular(SOURCES_CHAIN, "frames of pods: only with the pods' own addresses", rules)
}

/// Discovery about an address that is the pod's own, or unassigned.
fn targets(bridge: &Bridge) -> Chain {
    let in_set = |by_port, set| sender(bridge, SenderField::Target, by_port, set, false);
    let mut rules = vec![
        vec![in_set(true, NodeSet::PortTargets), verdict(Outcome::Return)],
        dropped([in_set(false, NodeSet::TakenTargets)]),
    ];
    if bridge.source_check == SourceCheck::Strict {
        rules.push(unless_bound(bridge));
        rules.push(vec![Expression::LinkLocalTarget, verdict(Outcome::Return)]);
        let of_v6 = bridge.allowed_sources.iter().filter(|network| Family::of(network.addr()) == Family::V6);
        rules.extend(of_v6.map(|network| {
            vec![Expression::SenderInNetwork(SenderField::Target, *network), verdict(Outcome::Return)]
        }));
        rules.push(vec![in_set(true, NodeSet::PortAllowedTargets), verdict(Outcome::Return)]);
        rules.push(dropped([]));
    }
    Chain::regular(TARGETS_CHAIN, "what pods advertise: only their own addresses", rules)
}

/// Frames with the hardware address of another pod, by which the bridge would send that pod's frames to this one.
fn hardware(bridge: &Bridge, is_strict: bool) -> Vec<Rule> {
    let other = || sender(bridge, SenderField::Hardware, true, NodeSet::PortHardware, true);
    let known = sender(bridge, SenderField::Hardware, false, NodeSet::Hardware, false);
    let mut rules = vec![dropped([other(), known])];
    if is_strict {
        let ports = bridge.name_of(NodeSet::HardwarePorts);
        rules.push(dropped([other(), Expression::InterfaceIn { set: ports, inverted: false }]));
    }
    rules
}

fn about(kind: u8, matches: Rule) -> Rule {
    let message =
        [Expression::EtherType(ETH_P_IPV6), Expression::Protocol(ICMPV6), Expression::Icmpv6(kind, kind)];
    message.into_iter().chain(matches).chain([jump(TARGETS_CHAIN)]).collect()
}

/// Messages that make other hosts of the link send their packets elsewhere.
fn of_router(bridge: &Bridge, kind: u8) -> Rule {
    let bound = Expression::InterfaceIn { set: bridge.name_of(NodeSet::BoundPorts), inverted: false };
    let message =
        [Expression::EtherType(ETH_P_IPV6), Expression::Protocol(ICMPV6), Expression::Icmpv6(kind, kind)];
    dropped(message.into_iter().chain([bound]))
}

fn unless_bound(bridge: &Bridge) -> Rule {
    let set = bridge.name_of(NodeSet::BoundPorts);
    vec![Expression::InterfaceIn { set, inverted: true }, verdict(Outcome::Return)]
}

/// Drops packets from the address of a group, which no host sends (RFC 1122, section 3.2.1.3, and RFC 4291, section 2.7). There may be a route back to it
/// through the bridge, so the rules behind this table would take it for a host that no policy selects.
fn of_groups() -> [Rule; 2] {
    [(ETH_P_IP, MULTICAST_V4), (ETH_P_IPV6, MULTICAST_V6)].map(|(kind, network)| {
        let source = SenderField::Source(Family::of(network.addr()));
        dropped([Expression::EtherType(kind), Expression::SenderInNetwork(source, network)])
    })
}

/// Sources that every pod may use. Those of other pods and of nodes are dropped before.
fn allowed(network: IpNet) -> Vec<Rule> {
    let fields: &[(u16, SenderField)] = match Family::of(network.addr()) {
        Family::V4 => &[(ETH_P_IP, SenderField::Source(Family::V4)), (ETH_P_ARP, SenderField::ArpSource)],
        Family::V6 => &[(ETH_P_IPV6, SenderField::Source(Family::V6))],
    };
    let rule = |(kind, field): &(u16, SenderField)| own(*kind, Expression::SenderInNetwork(*field, network));
    fields.iter().map(rule).collect()
}

/// What a host sends before it has an address, and with a link-local address, which only its link knows.
fn without_address() -> [Rule; 4] {
    let passes = || verdict(Outcome::Return);
    let unspecified_v4 = Ipv4Addr::UNSPECIFIED;
    [
        vec![
            Expression::EtherType(ETH_P_IP),
            Expression::SourceIs(unspecified_v4.into()),
            Expression::Protocol(Protocol::Udp.number()),
            Expression::Port(DHCP_SERVER, DHCP_SERVER),
            Expression::ReceiverInNetwork(BROADCAST_V4),
            passes(),
        ],
        vec![
            Expression::EtherType(ETH_P_IPV6),
            Expression::SourceIs(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
            Expression::Protocol(ICMPV6),
            Expression::ReceiverInNetwork(MULTICAST_V6),
            passes(),
        ],
        vec![Expression::EtherType(ETH_P_IPV6), Expression::LinkLocal { source: true }, passes()],
        // A probe (RFC 5227, section 2.1.1).
        vec![Expression::EtherType(ETH_P_ARP), Expression::ArpSourceIs(unspecified_v4), passes()],
    ]
}

fn own(kind: u16, matches: Expression) -> Rule {
    vec![Expression::EtherType(kind), matches, verdict(Outcome::Return)]
}

fn sender(bridge: &Bridge, field: SenderField, by_port: bool, set: NodeSet, inverted: bool) -> Expression {
    Expression::SenderIn { field, by_port, ranges: set.has_ranges(), set: bridge.name_of(set), inverted }
}

fn dropped(matches: impl IntoIterator<Item = Expression>) -> Rule {
    matches.into_iter().chain([Expression::Counter, verdict(Outcome::Drop)]).collect()
}

fn jump(chain: &str) -> Expression {
    verdict(Outcome::Jump(chain.into()))
}

fn verdict(outcome: Outcome) -> Expression {
    Expression::Verdict(outcome)
}

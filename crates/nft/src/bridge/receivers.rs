//! The check of receivers: whether a frame that leaves by a pod's port is to that pod.
//!
//! A bridge forwards by hardware address, and policies decide by IP address. A pod could write any pod of its bridge into the frames of a connection
//! that its policies allow to another, and a group reaches all of them. The bridge itself does so with frames to a hardware address that it
//! hasn't learned. So while a local pod is isolated, a frame to a pod's port is dropped if
//!
//! * its destination is another pod of the node or a node,
//! * it is sent to a group of hardware addresses and to a single IP address,
//! * strict: it comes from another pod, and its destination isn't an address that the pod may use.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use palisade_policy::{Direction, Family};

use super::Bridge;
use crate::{
    SourceCheck,
    ruleset::{Expression, NodeSet, Outcome, PacketType, Rule},
    uapi::if_ether::{ETH_P_IP, ETH_P_IPV6},
};

/// Returns rules that return for frames to the pod's own addresses, which nearly all are, after one lookup.
pub(super) fn rules(bridge: &Bridge) -> Vec<Rule> {
    let own = |family, set: NodeSet| Expression::ReceiverIn {
        family,
        ranges: set.has_ranges(),
        set: bridge.name_of(set),
    };
    let mut rules: Vec<Rule> =
        Family::BOTH.map(|family| returned(family, own(family, NodeSet::PortSources(family)))).into();
    rules.extend(Family::BOTH.map(|family| {
        let taken = bridge.name_of(NodeSet::Taken(family));
        dropped(family, [Expression::PeerIn(Direction::Egress, family, taken)])
    }));
    rules.extend(
        groups().map(|group| returned(Family::of(group.addr()), Expression::ReceiverInNetwork(group))),
    );
    for kind in [PacketType::Broadcast, PacketType::Multicast] {
        rules.extend(Family::BOTH.map(|family| dropped(family, [Expression::PacketType(kind)])));
    }
    if bridge.source_check == SourceCheck::Strict {
        rules.push(returned(Family::V6, Expression::LinkLocal { source: false }));
        rules.extend(Family::BOTH.map(|family| returned(family, own(family, NodeSet::PortAllowed(family)))));
        let allowed = bridge.allowed_sources.iter();
        rules
            .extend(allowed.map(|network| {
                returned(Family::of(network.addr()), Expression::ReceiverInNetwork(*network))
            }));
        rules.extend(Family::BOTH.map(|family| dropped(family, between_pods(bridge))));
    }
    rules
}

/// Destinations that are no single host: multicast and, of IPv4, the reserved rest with the broadcast address.
fn groups() -> [IpNet; 2] {
    [
        IpNet::new_assert(Ipv4Addr::new(224, 0, 0, 0).into(), 3),
        IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
    ]
}

fn between_pods(bridge: &Bridge) -> [Expression; 2] {
    [
        Expression::InterfaceIn { set: bridge.name_of(NodeSet::BridgePorts), inverted: false },
        Expression::OutInterfaceIn(bridge.name_of(NodeSet::BoundPorts)),
    ]
}

fn returned(family: Family, matches: Expression) -> Rule {
    vec![ether_type(family), matches, Expression::Verdict(Outcome::Return)]
}

fn dropped(family: Family, matches: impl IntoIterator<Item = Expression>) -> Rule {
    let end = [Expression::Counter, Expression::Verdict(Outcome::Drop)];
    [ether_type(family)].into_iter().chain(matches).chain(end).collect()
}

fn ether_type(family: Family) -> Expression {
    Expression::EtherType(if family == Family::V4 { ETH_P_IP } else { ETH_P_IPV6 })
}

//! The check of receivers: whether a frame that leaves by a pod's port is to that pod.
//!
//! A bridge forwards by hardware address, and policies decide by IP address. A pod could write the hardware address of any pod of its bridge into
//! the frames of a connection that its policies allow to another pod, and that of a group reaches all of them. The bridge itself does so with frames to a hardware address that it
//! hasn't learned. So while a local pod is isolated, a frame to a pod's port is dropped if
//!
//! * its destination is another pod of the node, of which the port is known, or a node,
//! * one of its hardware and IP address is a group's and the other is not: the rules for groups look at the hardware address,
//! * strict: it comes from another pod, and its destination isn't an address that the pod may use. Not if the pod isn't checked, as routers.
//!
//! The node finds a pod's hardware address by what the pod says of itself. A pod that says the address of another pod, or of all, would have them
//! get what is sent to it. So the first of these applies to the frames of the node too.

use ipnet::IpNet;
use palisade_policy::{Direction, Family};

use super::Bridge;
use crate::{
    SourceCheck,
    groups::{BROADCAST_V4, MULTICAST_V4, MULTICAST_V6},
    ruleset::{Expression, NodeSet, Outcome, PacketType, Rule},
    uapi::if_ether::{ETH_P_IP, ETH_P_IPV6},
};

const GROUPS: [IpNet; 3] = [MULTICAST_V4, BROADCAST_V4, MULTICAST_V6];

/// Returns rules that return for frames to the pod's own addresses, which nearly all are, after one lookup.
pub(super) fn rules(bridge: &Bridge) -> Vec<Rule> {
    let address_in = |family, set| address_in(bridge, family, set);
    let in_network = |network: IpNet| (Family::of(network.addr()), Expression::ReceiverInNetwork(network));
    let mut rules = of_node(bridge);
    for kind in [PacketType::Broadcast, PacketType::Multicast] {
        rules.extend(
            GROUPS
                .map(in_network)
                .into_iter()
                .map(|(family, to_group)| returned(family, [Expression::PacketType(kind), to_group])),
        );
        rules.extend(Family::BOTH.map(|family| dropped(family, [Expression::PacketType(kind)])));
    }
    rules.extend(GROUPS.map(in_network).map(|(family, to_group)| dropped(family, [to_group])));
    if bridge.source_check == SourceCheck::Strict {
        rules.push(returned(Family::V6, [Expression::LinkLocal { source: false }]));
        rules.extend(
            Family::BOTH.map(|family| returned(family, [address_in(family, NodeSet::PortAllowed(family))])),
        );
        let allowed = bridge.allowed_sources.iter().copied().map(in_network);
        rules.extend(allowed.map(|(family, is_allowed)| returned(family, [is_allowed])));
        rules.extend(Family::BOTH.map(|family| dropped(family, between_pods(bridge))));
    }
    rules
}

/// Returns the first rule for frames between ports: it accepts IPv4 from a pod whose senders are checked to the own address of another port's pod,
/// after two lookups. The chain accepts it too: what it drops before its own look at the destination, a packet from the address of the
/// receiving pod, has not passed the check of senders.
pub(super) fn between_genuine(bridge: &Bridge) -> Rule {
    vec![
        ether_type(Family::V4),
        address_in(bridge, Family::V4, NodeSet::PortSources(Family::V4)),
        Expression::InterfaceIn { set: bridge.name_of(NodeSet::CheckedPorts), inverted: false },
        Expression::Verdict(Outcome::Accept),
    ]
}

/// Returns the first rule for frames that the node sends: it accepts IPv4 to the pod's own addresses, as the chain does, after one lookup.
pub(super) fn genuine(bridge: &Bridge) -> Rule {
    vec![
        ether_type(Family::V4),
        address_in(bridge, Family::V4, NodeSet::PortSources(Family::V4)),
        Expression::Verdict(Outcome::Accept),
    ]
}

/// Returns the rules for frames that the node sends: to the pod's own addresses they return, to those of another pod they drop.
pub(super) fn of_node(bridge: &Bridge) -> Vec<Rule> {
    let own = |family| returned(family, [address_in(bridge, family, NodeSet::PortSources(family))]);
    let taken = |family| {
        let taken = bridge.name_of(NodeSet::Taken(family));
        dropped(family, [Expression::PeerIn(Direction::Egress, family, taken)])
    };
    Family::BOTH.map(own).into_iter().chain(Family::BOTH.map(taken)).collect()
}

fn address_in(bridge: &Bridge, family: Family, set: NodeSet) -> Expression {
    Expression::ReceiverIn { family, ranges: set.has_ranges(), set: bridge.name_of(set) }
}

fn between_pods(bridge: &Bridge) -> [Expression; 3] {
    [
        Expression::InterfaceIn { set: bridge.name_of(NodeSet::BridgePorts), inverted: false },
        Expression::OutInterfaceIn(bridge.name_of(NodeSet::BoundPorts)),
        Expression::OutInterfaceIn(bridge.name_of(NodeSet::CheckedPorts)),
    ]
}

fn returned(family: Family, matches: impl IntoIterator<Item = Expression>) -> Rule {
    [ether_type(family)].into_iter().chain(matches).chain([Expression::Verdict(Outcome::Return)]).collect()
}

fn dropped(family: Family, matches: impl IntoIterator<Item = Expression>) -> Rule {
    let end = [Expression::Counter, Expression::Verdict(Outcome::Drop)];
    [ether_type(family)].into_iter().chain(matches).chain(end).collect()
}

fn ether_type(family: Family) -> Expression {
    Expression::EtherType(if family == Family::V4 { ETH_P_IP } else { ETH_P_IPV6 })
}

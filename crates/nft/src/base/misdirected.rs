//! The rules for packets that go elsewhere than their headers say when rules see them. Rules by address and by interface would decide about
//! another packet.
//!
//! * **Groups that bridges reserve for themselves** (01:80:c2:00:00:*, IEEE 802.1Q). A bridge passes such a frame to the node itself as if the
//!   *port* had received it. It passes no hook of the bridge, so nothing checks its sender, and the port is no interface of pods. The IP stack
//!   accepts it all the same: a pod would reach its node with any source, and the node's tunnels too. IP never uses these groups. A frame from a
//!   pod's own address on the interface of the route to it is not concerned: that interface is one of pods.
//! * **Source routes** (IPv4 options). A node that accepts them (`accept_source_route`) forwards a packet that is addressed to the node itself, and
//!   changes the destination *behind* the forward hook. RFC 7126, section 4.3, recommends to drop them.
//! * **Routing headers** (IPv6). A node that is a segment of the route (`seg6_enabled`, `rpl_seg_enabled`) changes the destination after the
//!   input hook. The forward hook sees the new one, but the connection-tracking entry is that of the old one: such a packet of a connection to
//!   the node would pass as established. So each of these packets is evaluated as the first of a connection.
//! * **Messages of routers** (router advertisements and redirects of IPv6) that a pod sends to its node. They are valid discovery, and a node that
//!   accepts them (`accept_ra=2`) would send its own packets, and those of other pods, to the pod.

use palisade_policy::{Family, Name};

use crate::{
    base_sets::BaseSets,
    conntrack::ICMPV6,
    ruleset::{
        Chain, Expression, MISDIRECTED_CHAIN, NodeSet, Outcome, PacketType, Rule, SOURCE_ROUTES_CHAIN,
        SourceRoute,
    },
};

/// What only routers send (RFC 4861, sections 4.2 and 4.5).
const OF_ROUTERS: [u8; 2] = [134, 137];

/// Returns the chains for packets in front of connection tracking, each after the chains that its rules use.
pub(super) fn chains() -> [Chain; 2] {
    let route = |kind| {
        vec![
            Expression::Family(Family::V4),
            Expression::SourceRoute(kind),
            Expression::Verdict(Outcome::Goto(MISDIRECTED_CHAIN.into())),
        ]
    };
    [
        Chain::regular(
            MISDIRECTED_CHAIN,
            "reserved groups, source routes, and pods' messages as routers",
            vec![vec![Expression::Counter, Expression::Verdict(Outcome::Drop)]],
        ),
        Chain::regular(
            SOURCE_ROUTES_CHAIN,
            "IPv4 with options: dropped if the sender has chosen the route",
            [SourceRoute::Loose, SourceRoute::Strict].map(route).into(),
        ),
    ]
}

/// Returns the rule for frames to groups that bridges reserve for themselves.
pub(super) fn to_reserved_group() -> Rule {
    vec![
        Expression::PacketType(PacketType::Multicast),
        Expression::ToReservedGroup,
        Expression::Verdict(Outcome::Jump(MISDIRECTED_CHAIN.into())),
    ]
}

/// Returns the rule for packets whose sender may have chosen the route. Those without options cost one comparison.
pub(super) fn with_source_route() -> Rule {
    vec![
        Expression::Family(Family::V4),
        Expression::HasIpv4Options,
        Expression::Verdict(Outcome::Jump(SOURCE_ROUTES_CHAIN.into())),
    ]
}

/// Returns the rule that passes over the one for established connections.
pub(super) fn by_routing_header(opening: &Name) -> Rule {
    vec![
        Expression::Family(Family::V6),
        Expression::RoutingHeader,
        Expression::Verdict(Outcome::Goto(opening.clone())),
    ]
}

/// Returns the rules for what pods send to their node as only routers do. They come before the rule for valid discovery.
pub(super) fn by_pods_as_routers(sets: &BaseSets) -> [Rule; 2] {
    OF_ROUTERS.map(|kind| {
        vec![
            Expression::Family(Family::V6),
            Expression::Protocol(ICMPV6),
            Expression::Icmpv6(kind, kind),
            Expression::InterfaceIn { set: sets.node(NodeSet::Interfaces).name.clone(), inverted: false },
            Expression::Verdict(Outcome::Goto(MISDIRECTED_CHAIN.into())),
        ]
    })
}

//! Checks of what pods may send at all, before any policy applies: packets with a forged source address, and packets
//! that a pod encapsulates as only nodes do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use palisade_policy::{Direction, Family, Protocol};

use crate::{
    EnforcerOptions, SourceCheck,
    base_sets::BaseSets,
    conntrack::ICMPV6,
    groups::{BROADCAST_V4, MULTICAST_V4, MULTICAST_V6},
    ruleset::{
        Chain, EARLY_FORGED_CHAIN, ELSEWHERE_CHAIN, ENCAPSULATED_CHAIN, Expression, FORGED_CHAIN,
        FORWARDED_CHAIN, Hook, NodeSet, Outcome, RECEIVED_CHAIN, Rule, STRANGERS_CHAIN, SenderField,
        TUNNELED_CHAIN, UNSPECIFIED_CHAIN,
    },
};

const IGMP: u8 = 2;

/// The port of DHCP servers.
const DHCP_SERVER: u16 = 67;

/// The ICMPv6 messages that a host sends from ::, before it has an address: listener reports, router and neighbor solicitations (RFC 3810, RFC 4861).
const WITHOUT_ADDRESS: [(u8, u8); 4] = [(131, 132), (133, 133), (135, 135), (143, 143)];

/// Returns the rule for packets that arrive on an interface of pods.
pub(crate) fn by_interface(hook: Hook, sets: &BaseSets) -> Rule {
    let chain = if hook == Hook::Forward { FORWARDED_CHAIN } else { RECEIVED_CHAIN };
    vec![from_interface_of_pods(true, sets), jump(chain)]
}

/// Returns the rule for packets that claim a local pod's address on any other interface.
///
/// No other source is checked: routing to the node's other networks may be asymmetric on purpose.
pub(crate) fn by_address(hook: Hook, family: Family, sets: &BaseSets) -> Rule {
    let chain = if hook == Hook::Forward { ELSEWHERE_CHAIN } else { ENCAPSULATED_CHAIN };
    leading(claims_pod_from_elsewhere(family, sets), chain)
}

fn claims_pod_from_elsewhere(family: Family, sets: &BaseSets) -> Rule {
    let local = sets.node(NodeSet::Local(family)).name.clone();
    let claims = Expression::PeerIn(Direction::Ingress, family, local);
    vec![Expression::Family(family), claims, from_interface_of_pods(false, sets)]
}

fn from_interface_of_pods(is_one: bool, sets: &BaseSets) -> Expression {
    Expression::InterfaceIn { set: sets.node(NodeSet::Interfaces).name.clone(), inverted: !is_one }
}

/// Returns the chains, each after the chains that its rules use.
pub(crate) fn chains(options: &EnforcerOptions, sets: &BaseSets) -> Vec<Chain> {
    let mut forwarded = vec![between_ports(sets)];
    let mut received = vec![vec![jump(ENCAPSULATED_CHAIN)]];
    for chain in [&mut forwarded, &mut received] {
        chain.extend(forged_here(options, sets).into_iter().map(|matches| leading(matches, FORGED_CHAIN)));
        if options.source_check.is_on() {
            chain.extend(from_unspecified().map(|matches| leading(matches, UNSPECIFIED_CHAIN)));
        }
    }
    forwarded.extend(encapsulated(sets).map(|matches| leading(matches, TUNNELED_CHAIN)));
    let mut elsewhere: Vec<Rule> = no_route_back(options, options.reverse_route)
        .map(|matches| leading(matches, FORGED_CHAIN))
        .into_iter()
        .collect();
    elsewhere.extend(encapsulated(sets).map(|matches| leading(matches, TUNNELED_CHAIN)));
    vec![
        forged_chain(options, sets),
        unspecified_chain(),
        Chain::regular(
            TUNNELED_CHAIN,
            "tunnel packets: dropped where a tunnel of the cluster ends",
            Family::BOTH.map(|family| to_tunnel_end(family, sets)).into(),
        ),
        Chain::regular(ENCAPSULATED_CHAIN, "tunnel packets to this node from its pods", to_this_node(sets)),
        Chain::regular(
            ELSEWHERE_CHAIN,
            "from addresses of local pods on other interfaces: forged sources, tunnel packets to nodes",
            elsewhere,
        ),
        Chain::regular(
            RECEIVED_CHAIN,
            "from local pods to this node: forged sources, tunnel packets",
            received,
        ),
        Chain::regular(
            FORWARDED_CHAIN,
            "from local pods: forged sources, tunnel packets to nodes",
            forwarded,
        ),
    ]
}

/// The rules in front of connection tracking for the sources of packets.
pub(crate) struct EarlyRules {
    /// For packets from any interface.
    pub(crate) of_claims: Vec<Rule>,
    /// For plain IPv4 from the address of a pod, by the route to it: what most packets of pods are.
    pub(crate) genuine: Option<Rule>,
    /// For packets from interfaces on which packets of pods may arrive.
    pub(crate) of_pods: Vec<Rule>,
    /// The chain that they lead to, if there are any.
    pub(crate) chain: Option<Chain>,
}

/// Returns the rules that check the source of every packet of pods.
///
/// The rules of [`by_interface`] and [`by_address`] come after connection tracking and see no packet of an established connection. A pod could write into
/// connections of other pods, and end them: connection tracking believes a forged packet before any filter sees it.
///
/// Every packet of a pod passes here, so a genuine one costs one lookup: of its interface with its source, since the routes to local pods are
/// known. Packets from other interfaces cost the lookup of the interface too. The kernel looks up the route of any other.
pub(crate) fn early_rules(options: &EnforcerOptions, sets: &BaseSets) -> EarlyRules {
    let no_route_back = no_route_back(options, options.early_reverse_route);
    let mut of_claims = Vec::new();
    if let Some(matches) = no_route_back.clone().filter(|_| !options.reverse_route) {
        // The forward hook can't, so that every packet costs the lookups that there only the first of a connection does.
        let claims = Family::BOTH.map(|family| claims_pod_from_elsewhere(family, sets));
        of_claims = leading_to_early_forged(claims.map(|claims| [claims, matches.clone()].concat()));
    }
    let mut of_pods = leading_to_early_forged(not_of_pods(options, sets));
    // With the strict check, the pod has to be the one to which the interface leads.
    let genuine = (no_route_back.is_some() && options.source_check != SourceCheck::Strict)
        .then(|| [vec![Expression::PlainIpv4], has_known_route(Family::V4, sets)].concat());
    if let Some(matches) = no_route_back {
        let families = if genuine.is_some() { &[Family::V6][..] } else { &Family::BOTH };
        of_pods.extend(families.iter().map(|family| has_known_route(*family, sets)));
        of_pods.push(vec![from_interface_of_pods(false, sets), Expression::Verdict(Outcome::Accept)]);
        of_pods.extend(leading_to_early_forged([matches]));
    }
    let chain = (!of_pods.is_empty()).then(early_forged_chain);
    EarlyRules { of_claims, genuine, of_pods, chain }
}

/// Returns the chain for packets whose source seems forged in front of connection tracking.
fn early_forged_chain() -> Chain {
    // Only discovery passes the forward hook with them.
    let mut rules: Vec<Rule> = from_unspecified()
        .map(|matches| [matches, vec![Expression::Verdict(Outcome::Return)]].concat())
        .into();
    rules.push(vec![Expression::Verdict(Outcome::Goto(FORGED_CHAIN.into()))]);
    let comment = "from local pods, also in established connections: sources that seem forged";
    Chain::regular(EARLY_FORGED_CHAIN, comment, rules)
}

fn leading_to_early_forged(rules: impl IntoIterator<Item = Rule>) -> Vec<Rule> {
    rules.into_iter().map(|matches| leading(matches, EARLY_FORGED_CHAIN)).collect()
}

/// Matches the sources from which a host without an address sends (RFC 2131, RFC 4862).
fn from_unspecified() -> [Rule; 2] {
    let unspecified: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    unspecified.map(|address| vec![Expression::Family(Family::of(address)), Expression::SourceIs(address)])
}

/// Returns the chain for packets from 0.0.0.0 and ::, which no policy selects. It returns for what a host sends to get an address and to find
/// its neighbors, always to many, and leads to [`FORGED_CHAIN`] with the rest.
///
/// The lookup of a route back doesn't tell them apart: the kernel finds one for packets from 0.0.0.0 to broadcast and multicast addresses, and for ICMPv6
/// from :: to link-local and multicast ones. The node would take any datagram and any echo request for its own, and answer `::` by its default route.
fn unspecified_chain() -> Chain {
    let returns = || Expression::Verdict(Outcome::Return);
    let mut rules = vec![
        vec![
            Expression::Family(Family::V4),
            Expression::Protocol(Protocol::Udp.number()),
            Expression::Port(DHCP_SERVER, DHCP_SERVER),
            Expression::ReceiverInNetwork(BROADCAST_V4),
            returns(),
        ],
        // Reports of members, and the queries of bridges (RFC 3376, section 4.2.13, and RFC 4541).
        vec![
            Expression::Family(Family::V4),
            Expression::Protocol(IGMP),
            Expression::ReceiverInNetwork(MULTICAST_V4),
            returns(),
        ],
    ];
    rules.extend(WITHOUT_ADDRESS.map(|(first, last)| {
        vec![
            Expression::Family(Family::V6),
            Expression::Protocol(ICMPV6),
            Expression::Icmpv6(first, last),
            Expression::ReceiverInNetwork(MULTICAST_V6),
            returns(),
        ]
    }));
    rules.push(vec![Expression::Verdict(Outcome::Goto(FORGED_CHAIN.into()))]);
    Chain::regular(UNSPECIFIED_CHAIN, "from 0.0.0.0 and ::: only what a host without an address sends", rules)
}

/// Accepts a packet whose source is a local pod to which a route leads through the packet's interface, as far as this chain decides.
fn has_known_route(family: Family, sets: &BaseSets) -> Rule {
    vec![
        Expression::Family(family),
        Expression::SenderIn {
            field: SenderField::Source(family),
            by_port: true,
            ranges: false,
            set: sets.node(NodeSet::RoutedSources(family)).name.clone(),
            inverted: false,
        },
        Expression::Verdict(Outcome::Accept),
    ]
}

/// Matches packets from interfaces of pods whose source seems forged. Where every packet was checked in front of connection tracking, only
/// sources that are exempt there are left.
fn forged_here(options: &EnforcerOptions, sets: &BaseSets) -> Vec<Rule> {
    let Some(no_route_back) = no_route_back(options, options.reverse_route) else {
        // What `early_rules` has is all there is.
        return not_of_pods(options, sets);
    };
    if options.early_reverse_route {
        let check = (options.source_check == SourceCheck::Strict).then(|| of_known_pod(sets));
        let of = |check: Expression| from_unspecified().map(|from| [from, vec![check.clone()]].concat());
        return check.into_iter().flat_map(of).collect();
    }
    not_of_pods(options, sets).into_iter().chain([no_route_back]).collect()
}

/// Jumps to [`STRANGERS_CHAIN`] for packets between the ports of a bridge that has no ports but pods'.
fn between_ports(sets: &BaseSets) -> Rule {
    let bridges = || sets.node(NodeSet::Bridges).name.clone();
    vec![
        Expression::InterfaceIn { set: bridges(), inverted: false },
        Expression::OutInterfaceIn(bridges()),
        Expression::Verdict(Outcome::Jump(STRANGERS_CHAIN.into())),
    ]
}

/// Returns the chain for packets that [`not_of_pods`] or [`no_route_back`] match. It returns for the sources that pods may use all the same, and
/// drops all others.
///
/// Only the interface distinguishes link-local addresses of different links, and the kernel has no route for them on a
/// link without such an address, so they are exempt.
fn forged_chain(options: &EnforcerOptions, sets: &BaseSets) -> Chain {
    let link_local = [
        Expression::Family(Family::V6),
        Expression::LinkLocal { source: true },
        Expression::Verdict(Outcome::Return),
    ];
    let mut rules = vec![link_local.into()];
    rules.extend(options.allowed_sources.iter().map(|network| allowed(*network, sets)));
    rules.extend(Family::BOTH.map(|family| allowed_by_annotation(family, sets)));
    rules.push(dropped([]));
    Chain::regular(
        FORGED_CHAIN,
        "sources without a route back, or not the pod's: dropped unless allowed",
        rules,
    )
}

/// Matches packets if no route leads back to their source through the interface on which they arrived. `None` if that is not checked.
fn no_route_back(options: &EnforcerOptions, has_lookup: bool) -> Option<Rule> {
    (options.source_check.is_on() && has_lookup).then(|| vec![Expression::NoReverseRoute])
}

/// Matches packets, if the check is strict, whose source isn't an address of the pod that the interface leads to.
fn not_of_pods(options: &EnforcerOptions, sets: &BaseSets) -> Vec<Rule> {
    if options.source_check != SourceCheck::Strict {
        return Vec::new();
    }
    Family::BOTH.map(|family| not_the_pods(family, sets)).into()
}

/// Returns for a source in a network that every pod may use, unless it is the address of a pod of this node.
fn allowed(network: IpNet, sets: &BaseSets) -> Rule {
    let (family, source) = (Family::of(network.addr()), SenderField::Source(Family::of(network.addr())));
    let local = sets.node(NodeSet::Local(family)).name.clone();
    vec![
        Expression::Family(family),
        Expression::SenderInNetwork(source, network),
        Expression::SenderIn { field: source, by_port: false, ranges: false, set: local, inverted: true },
        Expression::Verdict(Outcome::Return),
    ]
}

/// Returns for a source that the pod of this interface may use, unless it is the address of a pod of this node.
fn allowed_by_annotation(family: Family, sets: &BaseSets) -> Rule {
    let source_in = |by_port, set: NodeSet, inverted| Expression::SenderIn {
        field: SenderField::Source(family),
        by_port,
        ranges: set.has_ranges(),
        set: sets.node(set).name.clone(),
        inverted,
    };
    vec![
        Expression::Family(family),
        source_in(true, NodeSet::AllowedSources(family), false),
        source_in(false, NodeSet::Local(family), true),
        Expression::Verdict(Outcome::Return),
    ]
}

/// Matches a packet from an interface whose pod is known, if its source isn't the pod's.
fn not_the_pods(family: Family, sets: &BaseSets) -> Rule {
    vec![
        Expression::Family(family),
        of_known_pod(sets),
        Expression::SenderIn {
            field: SenderField::Source(family),
            by_port: true,
            ranges: false,
            set: sets.node(NodeSet::InterfaceSources(family)).name.clone(),
            inverted: true,
        },
    ]
}

fn of_known_pod(sets: &BaseSets) -> Expression {
    Expression::InterfaceIn { set: sets.node(NodeSet::BoundInterfaces).name.clone(), inverted: false }
}

/// The set is empty on a node without tunnels.
fn to_tunnel_end(family: Family, sets: &BaseSets) -> Rule {
    let ends = sets.node(NodeSet::TunnelEndpoints(family)).name.clone();
    dropped([Expression::Family(family), Expression::PeerIn(Direction::Egress, family, ends)])
}

/// Every packet at the input hook is to this node, whichever of its addresses is the destination.
fn to_this_node(sets: &BaseSets) -> Vec<Rule> {
    encapsulated(sets).into_iter().map(dropped).collect()
}

/// No tunnel is TCP, which most connections are, so that these cost no lookup.
fn encapsulated(sets: &BaseSets) -> [Rule; 2] {
    let name = |set| sets.node(set).name.clone();
    let other_than_tcp = Expression::ProtocolNotIn(vec![Protocol::Tcp.number()]);
    [
        vec![Expression::Protocol(Protocol::Udp.number()), Expression::PortIn(name(NodeSet::TunnelPorts))],
        vec![other_than_tcp, Expression::ProtocolIn(name(NodeSet::TunnelProtocols))],
    ]
}

fn dropped(matches: impl IntoIterator<Item = Expression>) -> Rule {
    matches.into_iter().chain([Expression::Counter, Expression::Verdict(Outcome::Drop)]).collect()
}

/// Completes a rule with a jump.
fn leading(mut matches: Rule, chain: &str) -> Rule {
    matches.push(jump(chain));
    matches
}

fn jump(chain: &str) -> Expression {
    Expression::Verdict(Outcome::Jump(chain.into()))
}

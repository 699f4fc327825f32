//! Checks of what pods may send at all, before any policy applies: packets with a forged source address, and packets
//! that a pod encapsulates as only nodes do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use palisade_policy::{Direction, Family, Protocol};

use crate::{
    EnforcerOptions, SourceCheck,
    base_sets::BaseSets,
    ruleset::{
        Chain, ENCAPSULATED_CHAIN, Expression, FORGED_CHAIN, FORWARDED_CHAIN, Hook, NodeSet, Outcome,
        RECEIVED_CHAIN, Rule, STRANGERS_CHAIN, SenderField,
    },
};

/// Returns the rules that jump to the chains below.
///
/// They match packets that arrive on an interface of pods and, in the forward hook, packets that claim a local pod's
/// address on any interface. Nothing else is checked: routing to the node's other networks may be asymmetric on purpose.
pub(crate) fn jump_rules(hook: Hook, sets: &BaseSets) -> Vec<Rule> {
    let interfaces = sets.node(NodeSet::Interfaces).name.clone();
    let from = |is_pods: bool| Expression::InterfaceIn { set: interfaces.clone(), inverted: !is_pods };
    let (by_interface, by_address) = match hook {
        Hook::Forward => (FORWARDED_CHAIN, FORWARDED_CHAIN),
        _ => (RECEIVED_CHAIN, ENCAPSULATED_CHAIN),
    };
    let jump = |chain: &str| Expression::Verdict(Outcome::Jump(chain.into()));
    let mut rules = vec![vec![from(true), jump(by_interface)]];
    for family in Family::BOTH {
        let local = sets.node(NodeSet::Local(family)).name.clone();
        let claims = Expression::PeerIn(Direction::Ingress, family, local);
        rules.push(vec![Expression::Family(family), claims, from(false), jump(by_address)]);
    }
    rules
}

/// Returns the chains, each after the chains that its rules use.
pub(crate) fn chains(options: &EnforcerOptions, sets: &BaseSets) -> Vec<Chain> {
    let mut forwarded = vec![between_ports(sets)];
    forwarded.extend(Family::BOTH.into_iter().flat_map(|f| to_tunnel_endpoints(f, sets)));
    forwarded.extend(forged(options, options.reverse_route, sets));
    let mut received = vec![vec![Expression::Verdict(Outcome::Jump(ENCAPSULATED_CHAIN.into()))]];
    received.extend(forged(options, options.reverse_route, sets));
    vec![
        Chain::regular(ENCAPSULATED_CHAIN, "tunnel packets to this node from its pods", to_this_node(sets)),
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

/// Returns the base chain that checks the source of every packet of pods, and its chain. None if no source is checked.
///
/// The rules of [`jump_rules`] come after connection tracking and see no packet of an established connection. A pod could write into
/// connections of other pods, and end them: connection tracking believes a forged packet before any filter sees it.
pub(crate) fn prerouting_chains(options: &EnforcerOptions, sets: &BaseSets) -> Vec<Chain> {
    let forged = forged(options, options.early_reverse_route, sets);
    if forged.is_empty() {
        return Vec::new();
    }
    // A host without an address sends from these (RFC 2131, RFC 4862). Only discovery passes the forward hook with them.
    let unspecified: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let without_address = unspecified.map(|address| {
        let family = Expression::Family(Family::of(address));
        vec![family, Expression::SourceIs(address), Expression::Verdict(Outcome::Return)]
    });
    let interfaces = sets.node(NodeSet::Interfaces).name.clone();
    let from = |is_pods: bool| Expression::InterfaceIn { set: interfaces.clone(), inverted: !is_pods };
    let jump = || Expression::Verdict(Outcome::Jump(FORGED_CHAIN.into()));
    let mut rules = vec![vec![from(true), jump()]];
    if !options.reverse_route {
        // The forward hook can't, so that every packet costs the lookups that there only the first of a connection does.
        rules.extend(Family::BOTH.map(|family| {
            let local = sets.node(NodeSet::Local(family)).name.clone();
            let claims = Expression::PeerIn(Direction::Ingress, family, local);
            vec![Expression::Family(family), claims, from(false), jump()]
        }));
    }
    let comment = "from local pods: forged sources, also in established connections";
    vec![
        Chain::regular(FORGED_CHAIN, comment, without_address.into_iter().chain(forged).collect()),
        Chain::base(Hook::Prerouting, rules),
    ]
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

/// Drops a packet if no route leads back to its source through the interface on which it arrived, and, if the check is strict, if its source
/// isn't an address of the pod that the interface leads to.
///
/// Only the interface distinguishes link-local addresses of different links, and the kernel has no route for them on a
/// link without such an address, so they are exempt.
fn forged(options: &EnforcerOptions, has_lookup: bool, sets: &BaseSets) -> Vec<Rule> {
    let is_strict = options.source_check == SourceCheck::Strict;
    let looks_up = options.source_check.is_on() && has_lookup;
    if !is_strict && !looks_up {
        return Vec::new();
    }
    let mut rules = vec![vec![
        Expression::Family(Family::V6),
        Expression::LinkLocal { source: true },
        Expression::Verdict(Outcome::Return),
    ]];
    rules.extend(options.allowed_sources.iter().map(|network| allowed(*network, sets)));
    rules.extend(Family::BOTH.map(|family| allowed_by_annotation(family, sets)));
    if is_strict {
        rules.extend(Family::BOTH.map(|family| not_the_pods(family, sets)));
    }
    if looks_up {
        rules.push(dropped([Expression::NoReverseRoute]));
    }
    rules
}

/// Accepts a source in a network that every pod may use, unless it is the address of a pod of this node.
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

/// Accepts a source that the pod of this interface may use, unless it is the address of a pod of this node.
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

/// Drops a packet from an interface whose pod is known, if its source isn't the pod's.
fn not_the_pods(family: Family, sets: &BaseSets) -> Rule {
    let name = |set| sets.node(set).name.clone();
    dropped([
        Expression::Family(family),
        Expression::InterfaceIn { set: name(NodeSet::BoundInterfaces), inverted: false },
        Expression::SenderIn {
            field: SenderField::Source(family),
            by_port: true,
            ranges: false,
            set: name(NodeSet::InterfaceSources(family)),
            inverted: true,
        },
    ])
}

/// The sets are empty on a node without tunnels.
fn to_tunnel_endpoints(family: Family, sets: &BaseSets) -> impl Iterator<Item = Rule> {
    let endpoints = sets.node(NodeSet::TunnelEndpoints(family)).name.clone();
    let to_endpoints = move || {
        [Expression::Family(family), Expression::PeerIn(Direction::Egress, family, endpoints.clone())]
            .into_iter()
    };
    encapsulated(sets).into_iter().map(move |matches| dropped(to_endpoints().chain(matches)))
}

/// Every packet at the input hook is to this node, whichever of its addresses is the destination.
fn to_this_node(sets: &BaseSets) -> Vec<Rule> {
    encapsulated(sets).into_iter().map(dropped).collect()
}

fn encapsulated(sets: &BaseSets) -> [Rule; 2] {
    let name = |set| sets.node(set).name.clone();
    [
        vec![Expression::Protocol(Protocol::Udp.number()), Expression::PortIn(name(NodeSet::TunnelPorts))],
        vec![Expression::ProtocolIn(name(NodeSet::TunnelProtocols))],
    ]
}

fn dropped(matches: impl IntoIterator<Item = Expression>) -> Rule {
    matches.into_iter().chain([Expression::Counter, Expression::Verdict(Outcome::Drop)]).collect()
}

//! Rules about who may send what at all, before any policy is asked: packets with somebody else's source address, and
//! packets that a pod has wrapped as only nodes do.

use palisade_policy::{Direction, Family};

use crate::{
    Options,
    base::{self, BaseSets},
    ruleset::{
        Around, Chain, ENCAPSULATED_CHAIN, Expression, FORWARDED_CHAIN, Hook, Outcome, RECEIVED_CHAIN, Rule,
    },
};

/// UDP.
const UDP: u8 = 17;

/// What leads to the chains below: packets that come in by an interface of pods, and in the forward hook those that
/// claim a local pod's address, wherever they come in. The node's other networks may be asymmetric on purpose, so nothing
/// else is looked at.
pub(crate) fn entrances(hook: Hook, sets: &BaseSets) -> Vec<Rule> {
    let interfaces = sets.around(Around::Interfaces).name.clone();
    let from = |is_pods: bool| Expression::InterfaceIn { set: interfaces.clone(), inverted: !is_pods };
    let (by_interface, by_address) = match hook {
        Hook::Forward => (FORWARDED_CHAIN, FORWARDED_CHAIN),
        _ => (RECEIVED_CHAIN, ENCAPSULATED_CHAIN),
    };
    let jump = |chain: &str| Expression::Then(Outcome::Jump(chain.into()));
    let mut rules = vec![vec![from(true), jump(by_interface)]];
    for family in Family::BOTH {
        let local = sets.around(Around::Local(family)).name.clone();
        let claims = Expression::PeerIn(Direction::Ingress, family, local);
        rules.push(vec![Expression::Family(family), claims, from(false), jump(by_address)]);
    }
    rules
}

/// The chains, each after those that it leads to.
pub(crate) fn chains(options: &Options, sets: &BaseSets) -> Vec<Chain> {
    let chain = |name: &str, comment: &str, rules| Chain {
        name: name.into(),
        hook: None,
        comment: Some(comment.to_owned()),
        rules,
        chains: Vec::new(),
        sets: Vec::new(),
    };
    let mut forwarded = vec![base::between_ports(sets)];
    forwarded.extend(Family::BOTH.into_iter().flat_map(|f| to_tunnel_ends(f, sets)));
    forwarded.extend(forged(options));
    let mut received = vec![vec![Expression::Then(Outcome::Jump(ENCAPSULATED_CHAIN.into()))]];
    received.extend(forged(options));
    vec![
        chain(ENCAPSULATED_CHAIN, "tunnel packets to this node from its pods", to_this_node(sets)),
        chain(RECEIVED_CHAIN, "from local pods to this node: forged sources, tunnel packets", received),
        chain(FORWARDED_CHAIN, "from local pods: forged sources, tunnel packets to nodes", forwarded),
    ]
}

/// A packet to whose source no route leads back by the interface on which it came. Link-local addresses are told apart
/// from those of other links by the interface alone; the kernel has no route for them where it gives a link none.
fn forged(options: &Options) -> Vec<Rule> {
    if !options.source_check {
        return Vec::new();
    }
    vec![
        vec![
            Expression::Family(Family::V6),
            Expression::LinkLocal { source: true },
            Expression::Then(Outcome::Return),
        ],
        dropped([Expression::NoWayBack]),
    ]
}

/// The sets are empty on a node without tunnels.
fn to_tunnel_ends(family: Family, sets: &BaseSets) -> impl Iterator<Item = Rule> {
    let ends = sets.around(Around::Ends(family)).name.clone();
    let to_ends = move || {
        [Expression::Family(family), Expression::PeerIn(Direction::Egress, family, ends.clone())].into_iter()
    };
    encapsulated(sets).into_iter().map(move |matches| dropped(to_ends().chain(matches)))
}

/// What the input hook sees is for this node, whatever of its addresses it goes to.
fn to_this_node(sets: &BaseSets) -> Vec<Rule> {
    encapsulated(sets).into_iter().map(dropped).collect()
}

fn encapsulated(sets: &BaseSets) -> [Rule; 2] {
    let name = |around| sets.around(around).name.clone();
    [
        vec![Expression::Protocol(UDP), Expression::PortIn(name(Around::TunnelPorts))],
        vec![Expression::ProtocolIn(name(Around::TunnelProtocols))],
    ]
}

fn dropped(matches: impl IntoIterator<Item = Expression>) -> Rule {
    matches.into_iter().chain([Expression::Counter, Expression::Then(Outcome::Drop)]).collect()
}

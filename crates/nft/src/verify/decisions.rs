//! Packets taken through the rules as read back.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::{
    Direction, Family, NodePlan, PeerSet, PolicyTable, PolicyTableId, Protocol, Traffic, Verdict,
};

use super::{Difference, Verification};
use crate::{
    Options, Surroundings,
    program::dispatch_of,
    reader::{Arrival, Packet, Ruleset, State},
    ruleset::Hook,
};

/// How many packets are tried at most, and how many wrong decisions are listed.
const MOST: usize = 20_000;
const LISTED: usize = 20;

/// How many local addresses of each table and family are tried; the dispatch of all was compared already.
const LOCALS: usize = 2;

pub(super) fn compare(
    found: &Ruleset,
    options: &Options,
    surroundings: &Surroundings,
    plan: &NodePlan,
    out: &mut Verification,
) {
    let tables = tables(plan);
    // Every table gets its share.
    let share = MOST / tables.len().max(1);
    let mut wrong = 0;
    for ((direction, id), locals) in tables {
        let Some(table) = plan.tables.get(&id) else { continue };
        let flows: Vec<_> = flows(plan, table, &locals).collect();
        let step = flows.len().div_ceil(share.max(1)).max(1);
        for (local, peer, protocol, port) in flows.into_iter().step_by(step) {
            let (source, destination) = match direction {
                Direction::Ingress => (peer, local),
                Direction::Egress => (local, peer),
            };
            let hook = if direction == Direction::Egress && options.egress_to_own_node && out.flows % 2 == 1 {
                Hook::Input
            } else {
                Hook::Forward
            };
            let (state, labels, arrival) = (State::New, [0; 16], Arrival::default());
            let packet = Packet { hook, source, destination, protocol, port, state, labels, arrival };
            out.flows += 1;
            let plan = decide(plan, surroundings, &packet);
            let kernel = found.evaluate(&packet).map(|judgement| judgement.verdict);
            if kernel.as_ref() != Ok(&plan) {
                wrong += 1;
                if wrong <= LISTED {
                    let flow = format!("{protocol} {source} to {destination} port {port} ({})", hook.chain());
                    out.differences.push(Difference::Decision { flow, plan, kernel });
                }
            }
        }
    }
}

/// The tables in use, with some of the addresses that lead to them.
fn tables(plan: &NodePlan) -> BTreeMap<(Direction, PolicyTableId), Vec<IpAddr>> {
    let mut out: BTreeMap<(Direction, PolicyTableId), Vec<IpAddr>> = BTreeMap::new();
    for direction in Direction::BOTH {
        for (address, id) in dispatch_of(plan, direction) {
            let locals = out.entry((direction, *id)).or_default();
            if locals.iter().filter(|a| Family::of(**a) == Family::of(*address)).count() < LOCALS {
                locals.push(*address);
            }
        }
    }
    out
}

/// Peers and ports that the table tells apart.
fn flows(
    plan: &NodePlan,
    table: &PolicyTable,
    locals: &[IpAddr],
) -> impl Iterator<Item = (IpAddr, IpAddr, Protocol, u16)> {
    let peers = peers(plan, table);
    let rows = || table.exact.values().chain(table.ranges.values()).chain([&table.rest]);
    let ports: BTreeSet<(Protocol, u16)> = rows().flat_map(edges).collect();
    let of = |family| peers.iter().copied().filter(|p| Family::of(*p) == family).collect::<Vec<_>>();
    let by_family = [of(Family::V4), of(Family::V6)];
    let locals = locals.to_vec();
    locals.into_iter().flat_map(move |local| {
        let peers = by_family[usize::from(Family::of(local) == Family::V6)].clone();
        let ports = ports.clone();
        peers
            .into_iter()
            .filter(move |peer| *peer != local)
            .flat_map(move |peer| ports.clone().into_iter().map(move |(p, port)| (local, peer, p, port)))
    })
}

/// A member of each group, the edges of its ranges, and strangers.
fn peers(plan: &NodePlan, table: &PolicyTable) -> BTreeSet<IpAddr> {
    /// Of documentation networks, which are nobody's.
    const STRANGERS: [IpAddr; 2] = [
        IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
        IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    ];
    let mut out = BTreeSet::from(STRANGERS);
    for id in table.exact.keys().chain(table.ranges.keys()) {
        match plan.peer_sets.get(id) {
            Some(PeerSet::Addresses(members)) => {
                for family in Family::BOTH {
                    out.extend(members.iter().find(|a| Family::of(*a) == family));
                }
            }
            Some(PeerSet::Ranges(ranges)) => {
                out.extend(ranges.first().into_iter().chain(ranges.last()).flat_map(|r| [r.first, r.last]));
            }
            None => {}
        }
    }
    out
}

/// Ports at which a row changes its mind, and one packet of another protocol.
fn edges(row: &Traffic) -> Vec<(Protocol, u16)> {
    /// Of each protocol; more edges of one port set would say little more.
    const RANGES: usize = 4;
    let mut out = vec![(Protocol::Other(47), 0)];
    for protocol in Protocol::WITH_PORTS {
        out.push((protocol, 1));
        for (first, last) in row.ports(protocol).ranges().iter().take(RANGES) {
            let around = [first.checked_sub(1), Some(*first), Some(*last), last.checked_add(1)];
            out.extend(around.into_iter().flatten().map(|port| (protocol, port)));
        }
    }
    out
}

/// What the plan says to a packet, in all directions that its hook asks. What a link shares is denied where pods are
/// isolated, as they are wherever a flow comes from.
fn decide(plan: &NodePlan, surroundings: &Surroundings, packet: &Packet) -> Verdict {
    if packet.is_of_link() || is_of_tunnel(plan, surroundings, packet) {
        return Verdict::Deny;
    }
    let asked = if packet.hook == Hook::Forward { &Direction::BOTH[..] } else { &[Direction::Egress] };
    let denies = |direction: &Direction| {
        let Packet { source, destination, protocol, port, .. } = *packet;
        plan.decide(*direction, source, destination, protocol, port) == Verdict::Deny
    };
    if asked.iter().any(denies) { Verdict::Deny } else { Verdict::Allow }
}

/// Whether a local pod sends what only nodes may: such packets are dropped whatever policies say.
fn is_of_tunnel(plan: &NodePlan, surroundings: &Surroundings, packet: &Packet) -> bool {
    let ends = packet.hook == Hook::Input
        || plan.nodes.contains(&packet.destination)
        || surroundings.tunnel_peers.contains(&packet.destination);
    ends && plan.local.contains(&packet.source) && surroundings.takes(packet.protocol.number(), packet.port)
}

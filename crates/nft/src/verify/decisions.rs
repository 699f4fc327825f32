//! Evaluates packets by the rules as read back, and compares the verdicts with the plan's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::{
    Deciding, Direction, Family, Mode, NodePlan, PeerSet, PolicyTable, PolicyTableId, Protocol, Traffic,
    Verdict,
};

use super::difference::{Difference, Verification};
use crate::{
    EnforcerOptions, NodeLinks,
    next_plan::dispatch_map,
    reader::{Packet, Ruleset},
    ruleset::Hook,
};

/// The most packets that are evaluated, and the most wrong decisions that are listed.
const MAX_PACKETS: usize = 20_000;
const LISTED: usize = 20;

/// How many local addresses of each table and family are tried. The dispatch of all addresses was compared already.
const LOCALS: usize = 2;

pub(super) fn compare(
    found: &Ruleset,
    options: &EnforcerOptions,
    node_links: &NodeLinks,
    plan: &NodePlan,
    out: &mut Verification,
) {
    let tables = tables(plan);
    // Every table gets an equal share.
    let share = MAX_PACKETS / tables.len().max(1);
    let mut wrong = 0;
    for ((_, direction, id), locals) in tables {
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
            let packet = Packet { hook, ..Packet::new(source, destination, protocol, port) };
            out.flows += 1;
            let expected = decide(plan, node_links, &packet);
            let audited = expected.is_allow() && would_deny(plan, &packet);
            let refused = options.refusals && !expected.is_allow() && refuses(plan, node_links, &packet);
            let evaluation = found.evaluate(&packet);
            let flow = || format!("{protocol} {source} to {destination} port {port} ({})", hook.chain());
            let difference = match evaluation {
                Ok(found)
                    if found.verdict == expected && found.audited == audited && found.refused == refused =>
                {
                    continue;
                }
                Ok(found) if found.verdict == expected && found.audited == audited => {
                    Difference::Refusal { flow: flow(), plan: refused }
                }
                Ok(found) if found.verdict == expected => Difference::Audit { flow: flow(), plan: audited },
                other => {
                    let kernel = other.map(|evaluation| evaluation.verdict);
                    Difference::Decision { flow: flow(), plan: expected, kernel }
                }
            };
            wrong += 1;
            if wrong <= LISTED {
                out.differences.push(difference);
            }
        }
    }
}

/// Returns the tables in use, with some of their local addresses.
fn tables(plan: &NodePlan) -> BTreeMap<(Mode, Direction, PolicyTableId), Vec<IpAddr>> {
    let mut out: BTreeMap<(Mode, Direction, PolicyTableId), Vec<IpAddr>> = BTreeMap::new();
    let both = [Mode::Enforce, Mode::Audit].into_iter();
    for (mode, direction) in both.flat_map(|mode| Direction::BOTH.map(|direction| (mode, direction))) {
        for (address, id) in dispatch_map(plan, mode, direction) {
            let locals = out.entry((mode, direction, *id)).or_default();
            if locals.iter().filter(|a| Family::of(**a) == Family::of(*address)).count() < LOCALS {
                locals.push(*address);
            }
        }
    }
    out
}

/// Returns flows with peers and ports that the table distinguishes.
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

/// Returns a member of each peer set, the edges of its ranges, and addresses in none.
fn peers(plan: &NodePlan, table: &PolicyTable) -> BTreeSet<IpAddr> {
    /// Addresses of documentation networks, which no peer has.
    const UNKNOWN: [IpAddr; 2] = [
        IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
        IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    ];
    let mut out = BTreeSet::from(UNKNOWN);
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

/// Returns the ports at which the verdict of a row changes, and one packet of another protocol.
fn edges(row: &Traffic) -> Vec<(Protocol, u16)> {
    /// Per protocol. More edges of the same port set would add little.
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

/// Returns the plan's verdict for a packet, in all directions that apply at its hook.
///
/// Link-scoped traffic is denied while a pod is isolated.
fn decide(plan: &NodePlan, node_links: &NodeLinks, packet: &Packet) -> Verdict {
    let isolating = !plan.ingress.is_empty() || !plan.egress.is_empty();
    if packet.is_link_scoped() && isolating || is_tunnel_from_pod(plan, node_links, packet) {
        return Verdict::Deny;
    }
    if denies(plan, Deciding::Enforced, packet) { Verdict::Deny } else { Verdict::Allow }
}

/// Returns whether the plan would deny a packet if every policy were enforced.
fn would_deny(plan: &NodePlan, packet: &Packet) -> bool {
    denies(plan, Deciding::All, packet)
}

/// Returns whether the pod whose policies deny a packet first, by its egress before the receiver's ingress, refuses it.
fn refuses(plan: &NodePlan, node_links: &NodeLinks, packet: &Packet) -> bool {
    let denies = |direction| {
        let Packet { source, destination, protocol, port, .. } = *packet;
        plan.decide(direction, source, destination, protocol, port) == Verdict::Deny
    };
    if packet.is_link_scoped() || is_tunnel_from_pod(plan, node_links, packet) {
        return false;
    }
    let decider = if denies(Direction::Egress) { packet.source } else { packet.destination };
    plan.refusing.contains(&decider)
}

fn denies(plan: &NodePlan, deciding: Deciding, packet: &Packet) -> bool {
    let directions = if packet.hook == Hook::Forward { &Direction::BOTH[..] } else { &[Direction::Egress] };
    let Packet { source, destination, protocol, port, .. } = *packet;
    directions.iter().any(|direction| {
        plan.decide_by(deciding, *direction, source, destination, protocol, port) == Verdict::Deny
    })
}

/// Returns whether a local pod sends a tunnel packet, which only nodes may send. It is dropped whatever policies allow.
fn is_tunnel_from_pod(plan: &NodePlan, node_links: &NodeLinks, packet: &Packet) -> bool {
    let ends = packet.hook == Hook::Input
        || plan.nodes.contains(&packet.destination)
        || node_links.tunnel_peers.contains(&packet.destination);
    ends && plan.local.contains(&packet.source) && node_links.is_tunnel(packet.protocol.number(), packet.port)
}

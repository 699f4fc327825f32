//! Evaluates frames of pods by the rules of the table `bridge palisade` as read back.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use palisade_policy::{Protocol, Verdict};

use super::difference::{Difference, Verification};
use crate::{
    EnforcerOptions, NodeLinks, PortOwner, SourceCheck,
    reader::{Arrival, Packet, Ruleset},
    ruleset::Hook,
};

/// The most ports whose frames are evaluated. The elements of all ports were compared already.
const PORTS: usize = 32;

/// The most wrong decisions that are listed.
const LISTED: usize = 20;

/// Addresses of documentation networks, which no pod has.
const NOBODYS: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// Compares what pods may send from their own, from other pods' and from unassigned addresses.
pub(super) fn compare(
    found: &Ruleset,
    EnforcerOptions { source_check, allowed_sources, .. }: &EnforcerOptions,
    node_links: &NodeLinks,
    out: &mut Verification,
) {
    if !source_check.is_on() {
        return;
    }
    let is_in = |networks: &BTreeSet<IpNet>, address: IpAddr| networks.iter().any(|n| n.contains(&address));
    let nobodys = |port: u32| {
        NOBODYS.map(|address| {
            let of_pod = node_links.allowed_sources.get(&port);
            let is_allowed = *source_check != SourceCheck::Strict
                || is_in(allowed_sources, address)
                || of_pod.is_some_and(|networks| is_in(networks, address));
            (address, if is_allowed { Verdict::Allow } else { Verdict::Deny })
        })
    };
    let is_checked =
        |port: &u32| node_links.pod_ports.contains(port) && !node_links.unchecked_ports.contains(port);
    let checked: Vec<(u32, &PortOwner)> = node_links
        .owners
        .iter()
        .map(|(port, owner)| (*port, owner))
        .filter(|(port, _)| is_checked(port))
        .take(PORTS)
        .collect();
    let mut wrong = 0;
    for (index, (port, owner)) in checked.iter().enumerate() {
        let next = checked[(index + 1) % checked.len()].1;
        let own = owner.addresses.iter().map(|address| (*address, Verdict::Allow));
        let others = next.addresses.difference(&owner.addresses).map(|address| (*address, Verdict::Deny));
        for (source, expected) in own.chain(others).chain(nobodys(*port)) {
            let kernel = found.evaluate(&frame(*port, owner, source)).map(|evaluation| evaluation.verdict);
            out.flows += 1;
            if kernel.as_ref() != Ok(&expected) {
                wrong += 1;
                if wrong <= LISTED {
                    let flow =
                        format!("a frame from {source} by port {port} ({})", Hook::BridgePrerouting.chain());
                    out.differences.push(Difference::Decision { flow, plan: expected, kernel });
                }
            }
        }
    }
}

fn frame(port: u32, owner: &PortOwner, source: IpAddr) -> Packet {
    let arrival =
        Arrival { in_interface: port, sender: owner.hardware.unwrap_or_default(), ..Arrival::default() };
    let packet = Packet::new(source, source, Protocol::Udp, 53);
    Packet { hook: Hook::BridgePrerouting, arrival, ..packet }
}

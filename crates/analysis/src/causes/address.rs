//! Addresses in `ipBlock` that never are the other end's.

use std::collections::BTreeSet;

use palisade_policy::{Direction, Endpoint, IpBlock, Peer, Service, walk::Entry};

use super::{Finding, case::Case, service_ports};
use crate::edit::peer_for;

/// The address of a Service stands for its pods, and is translated before policies are evaluated (SEMANTICS G-1).
pub(crate) fn of_service(case: &Case<'_>) -> Vec<Finding> {
    if case.direction != Direction::Egress {
        return Vec::new();
    }
    let mut out = Vec::new();
    for (miss, peer) in case.peers() {
        let Peer::Block(block) = peer else { continue };
        for service in case.services() {
            let Some(text) = stands_for(service, block) else { continue };
            let pods: BTreeSet<_> = case.destination_pod().iter().map(|pod| pod.key.clone()).collect();
            let new = peer_for(case.cluster(), case.facts.workloads, &pods, &miss.policy.namespace);
            let single = block.cidr.prefix_len() == block.cidr.max_prefix_len();
            let mend = new.map(|new| match single {
                true => case.replace_peer(&miss, new),
                false => case.add_peer(&miss, new),
            });
            out.push(Finding { code: "service-address", text, origin: miss.origin.cloned(), mend });
        }
    }
    out.extend(with_its_port(case));
    out
}

/// Returns what an address of a Service in a block is.
fn stands_for(service: &Service, block: &IpBlock) -> Option<String> {
    let mut addresses = service.addresses.iter().copied().chain(service.access.addresses());
    let address = addresses.find(|a| block.contains(*a))?;
    let kind = if service.addresses.contains(&address) { "cluster IP" } else { "address" };
    Some(format!(
        "{address} is the {kind} of Service {}; policies see the addresses of its pods",
        service.key
    ))
}

/// The address of a Service, and beside it the Service's own port: both are translated, so correcting one is not enough.
fn with_its_port(case: &Case<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    for (_, rule) in case.neither() {
        for service in case.services() {
            let address = rule.peers.iter().flatten().find_map(|entry| match &entry.entry {
                Entry::Peer(Peer::Block(block)) => Some((stands_for(service, block)?, &entry.origin)),
                _ => None,
            });
            let port = rule.ports.iter().flatten().find_map(|entry| match &entry.entry {
                Entry::Port(port) => Some((service_ports::meant(case, service, port)?.0, &entry.origin)),
                Entry::Peer(_) => None,
            });
            let (Some((address, at_address)), Some((port, at_port))) = (address, port) else { continue };
            let finding =
                |code, text, origin: &Option<_>| Finding { code, text, origin: origin.clone(), mend: None };
            out.push(finding("service-address", address, at_address));
            out.push(finding("service-port", port, at_port));
        }
    }
    out
}

/// The address is in the block, and in one of its exceptions.
pub(crate) fn in_exception(case: &Case<'_>) -> Vec<Finding> {
    let address = case.other().address();
    if !matches!(case.other(), Endpoint::External(_)) || !case.pair.ranges.is_empty() {
        return Vec::new();
    }
    let mut out = Vec::new();
    for (miss, peer) in case.peers() {
        let Peer::Block(block) = peer else { continue };
        if let Some(except) =
            block.except.iter().find(|e| block.cidr.contains(&address) && e.contains(&address))
        {
            out.push(Finding {
                code: "excepted-address",
                text: format!("{address} is in {}, but in its exception {except}", block.cidr),
                origin: miss.origin.cloned(),
                mend: None,
            });
        }
    }
    out
}

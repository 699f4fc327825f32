//! Near misses: the rules that came closest to a denied flow, and what kept each from matching.

use std::cmp::Reverse;

use crate::{
    Endpoint, Origin, Peer, Policy, Rule, Selector,
    flow::{Missing, NearMiss},
    question::{Question, reference_to},
    rules::PodMatch,
};

/// The maximum number of near misses.
const MOST: usize = 5;

/// Returns the rules of the isolating policies that came closest, best first.
pub(crate) fn misses(question: &Question<'_>, policies: &[(&Policy, &[Rule])]) -> Vec<NearMiss> {
    let mut found: Vec<(u32, NearMiss)> = policies
        .iter()
        .flat_map(|(policy, rules)| rules.iter().enumerate().map(|(i, rule)| miss(question, policy, i, rule)))
        .collect();
    found.sort_by_key(|(closeness, _)| Reverse(*closeness));
    found.into_iter().take(MOST).map(|(_, miss)| miss).collect()
}

/// Returns one rule as a near miss, and how close it came. Only comparisons of that number have a meaning.
fn miss(question: &Question<'_>, policy: &Policy, index: usize, rule: &Rule) -> (u32, NearMiss) {
    let peer_matches = question.peers_match(rule);
    let port_matches = question.ports_match(rule);
    let (mut closeness, missing, origin) = if peer_matches {
        // The right peer on the wrong port is the likeliest mistake, so it goes first.
        let ports = rule.ports.as_deref().unwrap_or_default();
        let missing = Missing::Ports(ports.iter().map(|entry| entry.port.clone()).collect());
        (200, missing, ports.first().and_then(|entry| entry.origin.clone()))
    } else {
        closest_peer(question, rule)
    };
    if port_matches {
        closeness += 100;
    }
    let origin = origin.or_else(|| rule.origin.clone());
    (
        closeness,
        NearMiss { rule: reference_to(policy, index, rule), peer_matches, port_matches, missing, origin },
    )
}

/// Returns the peer entry that came closest.
fn closest_peer(question: &Question<'_>, rule: &Rule) -> (u32, Missing, Option<Origin>) {
    let peers = rule.peers.as_deref().unwrap_or_default();
    let best = peers.iter().map(|entry| (closeness(question, &entry.peer), entry)).max_by_key(|(c, _)| *c);
    match best {
        Some((closeness, entry)) => {
            let missing = Missing::Peer { closest: Some(entry.peer.clone()), others: peers.len() - 1 };
            (closeness, missing, entry.origin.clone())
        }
        None => (0, Missing::Peer { closest: None, others: 0 }, None),
    }
}

/// Returns how much of a peer that doesn't match is met, 0 to 99.
fn closeness(question: &Question<'_>, peer: &Peer) -> u32 {
    match peer {
        Peer::Pods(choice) => match question.peer {
            Endpoint::Pod { key, .. } => {
                let Some(pod) = question.cluster.pods.get(key) else { return 0 };
                let namespace =
                    PodMatch { namespaces: choice.namespaces.clone(), pods: Selector::everything() };
                let in_namespace =
                    namespace.matches(&key.namespace, question.namespace_labels(pod), &pod.labels);
                let requirements = choice.pods.requirements();
                let held = requirements.iter().filter(|r| r.matches(&pod.labels)).count();
                // The cast can't truncate: the API stores no selector with so many requirements.
                let share = 40 * held as u32 / (requirements.len() as u32).max(1);
                share + if in_namespace { 50 } else { 0 }
            }
            Endpoint::Node { .. } | Endpoint::External(_) => 0,
        },
        // An excepted address is closer than one outside the CIDR.
        Peer::Block(block) => 60 * u32::from(block.cidr.contains(&question.peer.address())),
        // The likeliest rule for an address outside the cluster that no CIDR contains.
        Peer::DomainName(_) => 20 * u32::from(matches!(question.peer, Endpoint::External(_))),
        Peer::Nodes(_) => 50 * u32::from(matches!(question.peer, Endpoint::Node { .. })),
    }
}

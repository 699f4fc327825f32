//! Why nothing matched: the rules that came closest to a denied flow, and what kept each from matching.

use std::cmp::Reverse;

use crate::{
    Endpoint, Origin, Peer, Policy, PortMatch, Protocol, Rule, Selector,
    flow::NearMiss,
    reference::{Question, reference_to},
    rules::{NamespaceMatch, PodMatch},
};

/// How many near misses an answer carries: enough to find the mistake, few enough to read.
const MOST: usize = 5;

/// The rules of the isolating policies, those with one half matching first.
pub(crate) fn misses(question: &Question<'_>, policies: &[(&Policy, &[Rule])]) -> Vec<NearMiss> {
    let mut found: Vec<(u32, NearMiss)> = policies
        .iter()
        .flat_map(|(policy, rules)| rules.iter().enumerate().map(|(i, rule)| miss(question, policy, i, rule)))
        .collect();
    found.sort_by_key(|(closeness, _)| Reverse(*closeness));
    found.into_iter().take(MOST).map(|(_, miss)| miss).collect()
}

/// One rule with a measure of how close it came; only comparisons of that number mean something.
fn miss(question: &Question<'_>, policy: &Policy, index: usize, rule: &Rule) -> (u32, NearMiss) {
    let peer_matches = question.peers_match(rule);
    let port_matches = question.ports_match(rule);
    let (mut closeness, wanted, source) = if peer_matches {
        // The right peer on the wrong port is the likeliest mistake: it goes first.
        let (wanted, source) = wanted_ports(rule);
        (200, wanted, source)
    } else {
        wanted_peers(question, rule)
    };
    if port_matches {
        closeness += 100;
    }
    let source = source.or_else(|| rule.origin.clone());
    (
        closeness,
        NearMiss {
            rule: reference_to(policy, index, rule),
            peer_matches,
            port_matches,
            wanted,
            origin: source,
        },
    )
}

fn wanted_ports(rule: &Rule) -> (String, Option<Origin>) {
    let ports = rule.ports.as_deref().unwrap_or_default();
    let words: Vec<String> = ports.iter().take(8).map(|entry| describe_port(&entry.port)).collect();
    let more = ports.len().saturating_sub(words.len());
    let more = if more > 0 { format!(" or {more} more") } else { String::new() };
    (format!("{}{more}", words.join(" or ")), ports.first().and_then(|entry| entry.origin.clone()))
}

/// The peer entry that came closest.
fn wanted_peers(question: &Question<'_>, rule: &Rule) -> (u32, String, Option<Origin>) {
    let peers = rule.peers.as_deref().unwrap_or_default();
    let best = peers.iter().map(|entry| (closeness(question, &entry.peer), entry)).max_by_key(|(c, _)| *c);
    let Some((closeness, entry)) = best else { return (0, "any peer".to_owned(), None) };
    let others = match peers.len() - 1 {
        0 => String::new(),
        n => format!(" (or {n} other {})", if n == 1 { "peer" } else { "peers" }),
    };
    (closeness, format!("{}{others}", describe_peer(&entry.peer)), entry.origin.clone())
}

/// 0 to 99: how much of a failing peer holds.
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
                // Casts: a selector with more requirements than fit an u32 can't be stored by the API.
                let share = 40 * held as u32 / (requirements.len() as u32).max(1);
                share + if in_namespace { 50 } else { 0 }
            }
            Endpoint::Node { .. } | Endpoint::External(_) => 0,
        },
        // Inside the range but excepted is closer than outside.
        Peer::Block(block) => 60 * u32::from(block.cidr.contains(&question.peer.address())),
        Peer::Nodes(_) => 50 * u32::from(matches!(question.peer, Endpoint::Node { .. })),
    }
}

/// A peer in words: `pods app=frontend in namespace shop`, `10.0.0.0/8 except 10.1.0.0/16`.
#[must_use]
pub fn describe_peer(peer: &Peer) -> String {
    match peer {
        Peer::Pods(PodMatch { namespaces, pods }) => {
            let what = if pods.is_everything() { "every pod".to_owned() } else { format!("pods {pods}") };
            match namespaces {
                NamespaceMatch::Named(_) => format!("{what} in {namespaces}"),
                NamespaceMatch::Selected(_) => format!("{what} of {namespaces}"),
            }
        }
        Peer::Nodes(selector) if selector.is_everything() => "every node".to_owned(),
        Peer::Nodes(selector) => format!("nodes {selector}"),
        Peer::Block(block) if block.except.is_empty() => block.cidr.to_string(),
        Peer::Block(block) => {
            let shown: Vec<String> = block.except.iter().take(4).map(ToString::to_string).collect();
            let more = block.except.len() - shown.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{} except {}{more}", block.cidr, shown.join(", "))
        }
    }
}

/// A port match in words: `TCP 80`, `UDP 1-1024`, `every TCP port`, `TCP port named web`.
#[must_use]
pub fn describe_port(port: &PortMatch) -> String {
    match port {
        PortMatch::Numbers { protocol, first: 0, last: u16::MAX } => format!("every {protocol} port"),
        PortMatch::Numbers { protocol, first, last } if first == last => format!("{protocol} {first}"),
        PortMatch::Numbers { protocol, first, last } => format!("{protocol} {first}-{last}"),
        PortMatch::Named { protocol, name } => {
            format!("{}port named {name}", protocol.map(|p: Protocol| format!("{p} ")).unwrap_or_default())
        }
    }
}

//! What a policy does, in one sentence.

use palisade_analysis::exposure::PodSet;
use palisade_names::{describe_peer, describe_port};
use palisade_policy::{Action, Direction, Peer, PodMatch, Policy, Rule, Tier};

use crate::{escape, future_pods::pods_text};

/// The most rules, peers or ports that a sentence lists.
const LISTED: usize = 3;

/// Says what a policy does: `Lets pods app=web in namespace shop be reached on TCP 8080 by pods app=gateway of every
/// namespace; isolates them for ingress.`
pub(crate) fn sentence(policy: &Policy) -> String {
    let parts = match policy.tier {
        Tier::Developer => of_network_policy(policy),
        Tier::Admin | Tier::Baseline => of_cluster_policy(policy),
    };
    let text = parts.join("; ");
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    escape::plain(&format!("{first}{}.", letters.as_str())).into_owned()
}

fn of_network_policy(policy: &Policy) -> Vec<String> {
    let subject = choice_text(&policy.subject);
    let mut parts = Vec::new();
    if let Some(rules) = &policy.ingress {
        parts.push(match &rules[..] {
            [] => format!("lets nothing reach {subject}"),
            rules => {
                let clauses =
                    by_ports(rules).into_iter().map(|(ports, peers)| format!("on {ports} by {peers}"));
                format!("lets {subject} be reached {}", listed(clauses.collect(), ", and ", "rule"))
            }
        });
    }
    if let Some(rules) = &policy.egress {
        let subject = if policy.ingress.is_some() { "them" } else { &subject };
        parts.push(match &rules[..] {
            [] => format!("lets {subject} reach nothing"),
            rules => {
                let clauses = by_ports(rules).into_iter().map(|(ports, peers)| format!("{peers} on {ports}"));
                format!("lets {subject} reach {}", listed(clauses.collect(), ", and ", "rule"))
            }
        });
    }
    let directions: Vec<String> = directions(policy).iter().map(ToString::to_string).collect();
    parts.push(format!("isolates them for {}", directions.join(" and ")));
    parts
}

/// Returns the directions to which a policy applies, ingress first.
pub(super) fn directions(policy: &Policy) -> Vec<Direction> {
    let both = [Direction::Ingress, Direction::Egress];
    both.into_iter().filter(|d| policy.rules(*d).is_some()).collect()
}

fn of_cluster_policy(policy: &Policy) -> Vec<String> {
    let tier = if policy.tier == Tier::Admin { "before" } else { "after" };
    let mut parts =
        vec![format!("for {}, {tier} NetworkPolicies are evaluated", choice_text(&policy.subject))];
    let subject_none = directions(policy).iter().all(|d| policy.rules(*d).is_none_or(<[Rule]>::is_empty));
    if subject_none {
        parts.push("it has no rules".to_owned());
        return vec![parts.join(": ")];
    }
    let mut own = Vec::new();
    for direction in directions(policy) {
        let (word, nouns) = match direction {
            Direction::Ingress => ("from", "ingress"),
            Direction::Egress => ("to", "egress"),
        };
        let rules = policy.rules(direction).unwrap_or_default();
        if rules.is_empty() {
            continue;
        }
        let clauses = rules.iter().map(|rule| {
            let verb = match rule.action {
                Action::Accept => "allows",
                Action::Deny => "denies",
                Action::Pass => "leaves to the next tier",
            };
            format!("{verb} {} {word} {}", ports(rule), peers(rule))
        });
        own.push(format!("{nouns}: {}", listed(clauses.collect(), ", then ", "rule")));
    }
    vec![format!("{}: {}", parts.join(""), own.join("; "))]
}

/// Formats the pods that a selector selects.
pub(super) fn choice_text(choice: &PodMatch) -> String {
    PodSet::of(choice).map_or_else(|| describe_peer(&Peer::Pods(choice.clone())), |set| pods_text(&set))
}

/// Formats a peer.
pub(super) fn peer_text(peer: &Peer) -> String {
    match peer {
        Peer::Pods(choice) => choice_text(choice),
        Peer::Block(_) | Peer::Nodes(_) | Peer::DomainName(_) => describe_peer(peer),
    }
}

/// Returns the peers of rules with the same ports together: the order of the rules of a NetworkPolicy doesn't matter.
fn by_ports(rules: &[Rule]) -> Vec<(String, String)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for rule in rules {
        let own = ports(rule);
        let peers = match rule.peers.as_deref() {
            None => vec!["anything".to_owned()],
            Some(some) => some.iter().map(|e| peer_text(&e.peer)).collect(),
        };
        match found.iter_mut().find(|(ports, _)| *ports == own) {
            Some((_, all)) => all.extend(peers),
            None => found.push((own, peers)),
        }
    }
    found.into_iter().map(|(ports, peers)| (ports, listed(peers, " or ", "peer"))).collect()
}

fn peers(rule: &Rule) -> String {
    match rule.peers.as_deref() {
        None => "anything".to_owned(),
        Some([]) => "nothing".to_owned(),
        Some(some) => listed(some.iter().map(|e| peer_text(&e.peer)).collect(), " or ", "peer"),
    }
}

/// Formats the ports of a rule.
pub(super) fn ports(rule: &Rule) -> String {
    match rule.ports.as_deref() {
        None => "every port".to_owned(),
        Some([]) => "no port".to_owned(),
        Some(some) => listed(some.iter().map(|e| describe_port(&e.port)).collect(), ", ", "port"),
    }
}

fn listed(all: Vec<String>, between: &str, noun: &str) -> String {
    let mut shown = all;
    let more = shown.len().saturating_sub(LISTED);
    shown.truncate(LISTED);
    match more {
        0 => {}
        1 => shown.push(format!("1 more {noun}")),
        n => shown.push(format!("{n} more {noun}s")),
    }
    match (between, &shown[..]) {
        // `a, b or c`
        (" or ", [first @ .., _, last]) if shown.len() > 2 => {
            let before = &shown[first.len()];
            format!("{}, {before} or {last}", first.join(", "))
        }
        _ => shown.join(between),
    }
}

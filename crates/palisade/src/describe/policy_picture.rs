//! A policy as a picture: whom it selects, and on both sides a box for each rule, with what matches nothing.

use palisade_analysis::{
    WorkloadPods,
    describe::{IdlePart, PolicyDescription, workloads_of},
};
use palisade_policy::{Action, Cluster, Direction, Peer, Policy, Rule, Tier};

use super::{
    idle, picture,
    sentence::{choice_text, peer_text, ports, sentence},
};
use crate::{
    diagram::{Diagram, Look, MOST_ROWS, Neighbor, Side, Subject},
    inputs::{LoadedInputs, plural},
};

/// The most workloads that are listed in a box.
const LISTED: usize = 8;

/// Draws a policy.
pub(super) fn of_policy(description: &PolicyDescription, world: &LoadedInputs) -> (Diagram, Vec<String>) {
    let policy = &*description.policy;
    let cluster = &world.loaded.cluster;
    let mut details: Vec<String> = policy.origin.iter().map(ToString::to_string).collect();
    details.push(format!("selects {}", choice_text(&policy.subject)));
    details.extend(workload_lines(&description.selects));
    if description.selects.is_empty() {
        details.push("no running pod".to_owned());
    }
    let mut said = Vec::new();
    let sides = [Direction::Ingress, Direction::Egress].map(|direction| {
        let side =
            Side { heading: heading(policy, direction), neighbors: rules(description, direction, cluster) };
        if side.neighbors.len() > MOST_ROWS {
            let all = side.neighbors.len();
            said.push(format!("{MOST_ROWS} of {all} {direction} rules are drawn; -o json lists each"));
        }
        side
    });
    let mut notes = picture::incomplete(world);
    notes.push(sentence(policy));
    let of_policy = description.idle.iter().filter(|part| part.rule.is_none());
    notes.extend(of_policy.map(|part| format!("does nothing: {}", idle::why(policy, part, cluster))));
    notes.extend(description.pod_addresses.iter().map(|found| format!("note: {}", idle::pod_address(found))));
    notes.extend(super::policy::undecided(description).map(|text| format!("undecided: {text}")));
    let subject = Subject { name: policy.key.to_string(), details, sides };
    (Diagram { title: policy.key.to_string(), subjects: vec![subject], notes }, said)
}

fn heading(policy: &Policy, direction: Direction) -> String {
    match (policy.rules(direction), policy.tier) {
        (None, _) => format!("{direction}: not affected by this policy"),
        (Some(_), Tier::Developer) => format!("{direction}: isolated: only what policies allow"),
        (Some(_), Tier::Admin) => format!("{direction}: before NetworkPolicies, in this order"),
        (Some(_), Tier::Baseline) => format!("{direction}: after NetworkPolicies, in this order"),
    }
}

fn workload_lines(all: &[WorkloadPods]) -> Vec<String> {
    let mut lines: Vec<String> = all.iter().take(LISTED).map(ToString::to_string).collect();
    if all.len() > LISTED {
        let rest = all.len() - LISTED;
        lines.push(format!("and {rest} more {}", plural(rest, "workload")));
    }
    lines
}

/// Returns a box for each rule of a direction.
fn rules(description: &PolicyDescription, direction: Direction, cluster: &Cluster) -> Vec<Neighbor> {
    let Some(rules) = description.policy.rules(direction) else { return Vec::new() };
    if rules.is_empty() {
        return vec![Neighbor::nothing("no rules: nothing is allowed by this policy")];
    }
    let parts = |index: usize| -> Vec<&IdlePart> {
        description.idle.iter().filter(|part| part.rule == Some((direction, index))).collect()
    };
    rules.iter().enumerate().map(|(at, rule)| neighbor(description, at, rule, &parts(at), cluster)).collect()
}

fn neighbor(
    description: &PolicyDescription,
    at: usize,
    rule: &Rule,
    idle_parts: &[&IdlePart],
    cluster: &Cluster,
) -> Neighbor {
    let policy = &*description.policy;
    let name = rule.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let line = rule.origin.as_ref().and_then(palisade_policy::Origin::line);
    let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
    let mut lines = vec![format!("rule {}{name}{line}", at + 1)];
    match rule.peers.as_deref() {
        None => lines.push("anything".to_owned()),
        Some([]) => lines.push("nothing".to_owned()),
        Some(peers) => {
            for entry in peers.iter().take(LISTED) {
                lines.push(peer_text(&entry.peer));
                if let Peer::Pods(choice) = &entry.peer {
                    let found = workloads_of(cluster, choice);
                    lines.extend(workload_lines(&found).into_iter().map(|line| format!("• {line}")));
                }
            }
            if peers.len() > LISTED {
                let rest = peers.len() - LISTED;
                lines.push(format!("and {rest} more {}", plural(rest, "peer")));
            }
        }
    }
    for part in idle_parts {
        lines.push(format!("does nothing: {}", idle::why(policy, part, cluster)));
    }
    let peers = rule.peers.as_ref().map_or(1, |peers| peers.len().max(1));
    let without_effect = idle_parts.len() >= peers;
    let (verb, look) = match rule.action {
        Action::Deny => ("denies ", Look::Denied),
        Action::Pass => ("leaves to the next tier ", Look::Open),
        Action::Accept if rule.ports.is_none() => ("", Look::Everything),
        Action::Accept => ("", Look::Allowed),
    };
    Neighbor {
        group: None,
        lines,
        label: format!("{verb}{}", ports(rule)),
        look: if without_effect { Look::Idle } else { look },
    }
}

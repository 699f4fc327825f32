//! What a suggestion does and what it lacks, for standard error.

use std::collections::BTreeSet;

use palisade_analysis::suggest::{
    DeniedFlow, Excess, LimitHit, MAX_PEERS, MAX_PORTS, Purpose, Seen, SuggestLimit, SuggestedPolicy,
    Suggestion,
};
use palisade_policy::{Cluster, Name, Tier};

use super::{
    basis::{Basis, times},
    document::connection,
    needs::Needs,
    seen::SeenFlows,
};
use crate::{
    connection_ends, escape,
    inputs::plural,
    output::{self, Style, styled},
    reasons,
    replay::{recording::Recording, text::why_not},
};

/// The most lines of a kind.
const SHOWN: usize = 10;

/// Prints all notes about a suggestion from records. `none` are the namespaces that get no policies.
pub(super) fn print(
    suggestion: &Suggestion,
    seen: &SeenFlows,
    recording: &Recording,
    none: &BTreeSet<Name>,
    today: &Cluster,
) {
    let mut lines = common(suggestion, seen.connections, today, Basis::Records);
    lines.extend(left_out(suggestion, seen, recording));
    lines.extend(without_policies(none, "was recorded"));
    print_lines(&lines);
}

/// Prints all notes about a suggestion from manifests. `closed` is what is denied because nothing is known about it, `none` the
/// namespaces that get no policies.
pub(super) fn print_needs(
    suggestion: &Suggestion,
    needs: &Needs,
    closed: &[String],
    none: &BTreeSet<Name>,
    today: &Cluster,
) {
    let connections = needs.flows.iter().map(|one| one.seen.count).sum();
    let mut lines = common(suggestion, connections, today, Basis::Needs(&needs.evidence));
    lines.extend(system(suggestion));
    lines.extend(without_policies(none, "is known"));
    if needs.probed > 0 {
        let probed = number(needs.probed as u64, "workload");
        lines.push(format!("note: probes of the kubelet need no rule ({probed} with probes)"));
    }
    lines.extend(listed("note: not known, so not allowed:", closed.iter()));
    lines.extend(listed("undecided:", needs.undecided.iter()));
    print_lines(&lines);
}

/// Says which namespaces stay as open as they are.
fn without_policies(none: &BTreeSet<Name>, known: &str) -> Option<String> {
    let none: Vec<&Name> = none.iter().collect();
    let names = connection_ends::abbreviated(&none, |name| name.to_string());
    (!none.is_empty()).then(|| {
        format!("note: no policies for {}: no connection of their pods {known}", escape::plain(&names))
    })
}

fn listed<'l>(head: &str, all: impl ExactSizeIterator<Item = &'l String>) -> Vec<String> {
    let count = all.len();
    let mut out: Vec<String> =
        all.take(SHOWN).map(|line| format!("{head} {}", escape::plain(line))).collect();
    out.extend(more(count));
    out
}

fn print_lines(lines: &[String]) {
    for line in lines {
        output::note(&format!("{line}\n"));
    }
}

fn common(suggestion: &Suggestion, connections: u64, today: &Cluster, basis: Basis<'_>) -> Vec<String> {
    let mut lines = result(suggestion, connections, basis);
    lines.extend(denied(&suggestion.denied, basis));
    lines.extend(suggestion.limits.iter().take(SHOWN).map(limit));
    lines.extend(more(suggestion.limits.len()));
    lines.extend(excess(&suggestion.excess, basis));
    lines.extend(names(suggestion));
    lines.extend(others(suggestion, today));
    lines
}

fn number(count: u64, noun: &str) -> String {
    format!("{count} {}", plural(usize::try_from(count).unwrap_or(usize::MAX), noun))
}

fn result(suggestion: &Suggestion, connections: u64, basis: Basis<'_>) -> Vec<String> {
    if suggestion.policies.is_empty() {
        return Vec::new();
    }
    let [policies, namespaces] = [suggestion.policies.len(), suggestion.namespaces.len()];
    let denied = suggestion.denied.len();
    let head = styled(if denied == 0 { Style::Good } else { Style::Bad }, "checked:");
    let but = if denied == 0 { String::new() } else { format!(", but for {denied} that follow") };
    vec![format!(
        "{head} {policies} {} for {namespaces} {} allow the {} that {} {}{but}",
        if policies == 1 { "policy" } else { "policies" },
        plural(namespaces, "namespace"),
        number(connections, "connection"),
        if connections == 1 { "was" } else { "were" },
        basis.known(),
    )]
}

fn denied(all: &[DeniedFlow], basis: Basis<'_>) -> Vec<String> {
    let head = styled(Style::Bad, "denied:");
    let mut out = Vec::new();
    for DeniedFlow { connection: one, sides } in all.iter().take(SHOWN) {
        out.push(format!("{head} {}", connection(one, basis)));
        for (direction, side) in sides {
            let reason = reasons::lines(side, *direction).into_iter().next().unwrap_or_default();
            out.push(format!("  {direction}: {}", escape::plain(&reason)));
        }
    }
    out.extend(more(all.len()));
    out
}

fn more(number: usize) -> Option<String> {
    (number > SHOWN).then(|| format!("  … and {} more (-o json lists all)", number - SHOWN))
}

/// Formats a limit that was reached.
pub(super) fn limit(hit: &LimitHit) -> String {
    let LimitHit { subject, namespace, direction, limit, number } = hit;
    let name = subject.as_ref().map_or_else(|| format!("namespace {namespace}"), ToString::to_string);
    let text = match limit {
        SuggestLimit::Ports(peer) => format!(
            "left out: {name}, {direction}: {number} ranges of ports at {peer}, which is more than {MAX_PORTS} and looks like a scan"
        ),
        SuggestLimit::Peers => format!(
            "left out: {name}, {direction}: {number} peers; only the {MAX_PEERS} that were recorded most are allowed"
        ),
    };
    escape::plain(&text).into_owned()
}

fn excess(excess: &Excess, basis: Basis<'_>) -> Vec<String> {
    let Excess { pairs, today, seen, suggested, more: edges, more_total } = excess;
    if *pairs == 0 {
        return Vec::new();
    }
    let mut out = vec![format!(
        "note: of {pairs} pairs of workloads, {today} may connect today and {suggested} with the policies; {seen} {}. DNS and nodes don't count",
        match basis {
            Basis::Records => "did",
            Basis::Needs(_) => "need to",
        }
    )];
    for edge in edges.iter().take(SHOWN) {
        let text = format!("{} → {} on {}", edge.from, edge.to, edge.traffic);
        out.push(format!("note: allowed though not {}: {}", basis.known(), escape::plain(&text)));
    }
    if *more_total > SHOWN as u64 {
        out.push(format!("  … and {} more", more_total - SHOWN as u64));
    }
    out
}

/// Policies that stay in force beside the suggested ones.
fn others(suggestion: &Suggestion, today: &Cluster) -> Vec<String> {
    let suggested = |name: &Name, policy: &Name| {
        suggestion
            .policies
            .iter()
            .any(|one| one.policy.key.namespace == *name && one.policy.key.name == *policy)
    };
    let own = |name: &&Name| {
        let policies = today.policies.values().filter(|policy| policy.tier == Tier::Developer);
        policies.filter(|p| p.key.namespace == **name && !suggested(name, &p.key.name)).count()
    };
    let number: usize = suggestion.namespaces.iter().map(|name| own(&name)).sum();
    let note = format!(
        "note: {number} NetworkPolicies of these namespaces are not part of the suggestion; while they exist, what they allow is allowed too"
    );
    (number > 0).then_some(note).into_iter().collect()
}

fn system(suggestion: &Suggestion) -> Vec<String> {
    let note =
        |name| format!("note: no policies for {name}, a namespace of the system: use -n {name} to get them");
    suggestion.system.iter().map(note).collect()
}

/// What is needed for names, and what lacks them.
fn names(suggestion: &Suggestion) -> Option<String> {
    let is_by_name = |one: &&SuggestedPolicy| matches!(one.purpose, Purpose::Names { .. });
    let number = suggestion.policies.iter().filter(is_by_name).count();
    (number > 0).then(|| {
        format!(
            "note: {number} {} domain names, which only agents with --domain-names=on enforce; with others, what they allow is denied",
            if number == 1 { "policy has" } else { "policies have" }
        )
    })
}

fn left_out(suggestion: &Suggestion, seen: &SeenFlows, recording: &Recording) -> Vec<String> {
    let mut out = system(suggestion);
    let connections = |seen: &Seen| number(seen.connections, "connection");
    let mut note = |seen: &Seen, why: &str| {
        if seen.connections > 0 {
            out.push(format!("note: left out: {} {why}, first in line {}", connections(seen), seen.line));
        }
    };
    note(&suggestion.elsewhere, "without an end in these namespaces");
    note(&seen.dropped, "that were dropped (--include-dropped allows them)");
    note(&seen.replies, "to a client's port that look like replies, which need no rule");
    note(&seen.link, "to multicast, broadcast or link-local addresses, which no policy decides");
    for (why, count) in &recording.skipped {
        out.push(format!("note: left out: {count} {why}"));
    }
    if recording.lost > 0 {
        out.push(format!(
            "note: the recorder lost {}, which no rule allows",
            number(recording.lost, "event")
        ));
    }
    for (why, seen) in &seen.undecided {
        out.push(format!(
            "undecided: {}, {}, first in line {}: {}",
            connections(seen),
            times(seen.count),
            seen.line,
            escape::plain(&why_not(why))
        ));
    }
    out
}

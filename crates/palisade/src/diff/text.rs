//! A difference as text, and as Markdown for pull requests.

use std::fmt::Write as _;

use palisade_analysis::{
    ConnectionEnd,
    diff::{Cause, ConnectionChange, PolicyChange, Presence},
};
use palisade_policy::{Origin, PolicyKey, Traffic};

use super::comparison::Comparison;
use crate::{
    connection_ends, escape,
    inputs::plural,
    output::{Style, styled},
    traffic::{VisibleTraffic, family_names},
};

/// Renders the difference, with colors; the writer strips them where they don't belong.
pub(crate) fn text(comparison: &Comparison) -> String {
    let mut out = String::new();
    for change in &comparison.difference.changes {
        let head = format!("{} → {}", name(&change.from), name(&change.to));
        let (families, why) = (families(change), presence(change));
        for (style, sign, traffic) in signs(change) {
            let line = format!("{sign} {head}  {}{families}{why}", VisibleTraffic::of(traffic).text());
            _ = writeln!(out, "{}", styled(style, &line));
        }
        for cause in &change.causes {
            _ = writeln!(out, "    {}", escape::plain(&cause_text(cause)));
        }
        if change.causes.is_empty() && change.presence == Presence::Both {
            _ = writeln!(out, "    {NO_POLICY}");
        }
    }
    if let Some(idle) = idle(comparison) {
        _ = writeln!(out, "{}no connection is changed by: {idle}", if out.is_empty() { "" } else { "\n" });
    }
    out
}

const NO_POLICY: &str = "no policy changed: the objects that policies select did";

/// Renders the difference as a comment for a pull request.
pub(crate) fn markdown(comparison: &Comparison) -> String {
    let mut out = String::from("### Network connections\n\n");
    let changes = &comparison.difference.changes;
    if changes.is_empty() {
        out += "No connection is opened or closed.\n";
    } else {
        let count =
            |of: fn(&ConnectionChange) -> &Traffic| changes.iter().filter(|c| !of(c).is_none()).count();
        let (opened, closed) = (count(|c| &c.opened), count(|c| &c.closed));
        _ = writeln!(
            out,
            "{opened} {} opened, {closed} closed.\n\n| | From | To | Ports | Because of |\n| --- | --- | --- | --- | --- |",
            plural(opened, "connection")
        );
        for change in changes {
            let causes: Vec<String> =
                change.causes.iter().map(|c| escape::markdown(&cause_text(c)).into_owned()).collect();
            let because = match (causes.is_empty(), change.presence) {
                (false, _) => causes.join("<br>"),
                (true, Presence::Both) => NO_POLICY.to_owned(),
                (true, _) => presence(change).trim().to_owned(),
            };
            let cell = |text: &str| escape::markdown(text).into_owned();
            for (style, _, traffic) in signs(change) {
                let sign = if style == Style::Good { "➕ opened" } else { "➖ closed" };
                let ports = format!("{}{}", VisibleTraffic::of(traffic).text(), families(change));
                let (from, to) =
                    (cell(&connection_ends::name(&change.from)), cell(&connection_ends::name(&change.to)));
                _ = writeln!(out, "| {sign} | {from} | {to} | {} | {because} |", cell(&ports));
            }
        }
    }
    for missing in &comparison.missing {
        let meaning = missing.kind.if_missing();
        _ = writeln!(out, "\n**Incomplete**: {} could not be read: {meaning}.", missing.kind.plural());
    }
    if let Some(idle) = idle(comparison) {
        _ = writeln!(out, "\nNo connection is changed by {}.", escape::markdown(&idle));
    }
    out
}

/// Returns the opened and the closed traffic, each if there is any.
fn signs(change: &ConnectionChange) -> impl Iterator<Item = (Style, char, &Traffic)> {
    [(Style::Good, '+', &change.opened), (Style::Bad, '-', &change.closed)]
        .into_iter()
        .filter(|(.., traffic)| !VisibleTraffic::of(traffic).is_none())
}

fn name(end: &ConnectionEnd) -> String {
    escape::plain(&connection_ends::name(end)).into_owned()
}

/// Formats the family: ` (IPv4)`; empty if both are meant or an end shows it.
fn families(change: &ConnectionChange) -> String {
    let outside = |end: &ConnectionEnd| matches!(end, ConnectionEnd::External(_));
    if outside(&change.from) || outside(&change.to) || (change.families.v4 && change.families.v6) {
        return String::new();
    }
    format!(" ({})", family_names(change.families).join(" and "))
}

fn presence(change: &ConnectionChange) -> &'static str {
    match change.presence {
        Presence::Both => "",
        Presence::Before => "  (an end was removed)",
        Presence::After => "  (an end was added)",
    }
}

/// Formats a cause: `ingress: NetworkPolicy shop/web edited (a.yaml:3 → b.yaml:3)`.
fn cause_text(cause: &Cause) -> String {
    let Cause { direction, policy, change, before, after } = cause;
    let at = |s: &Option<Origin>| s.as_ref().map(ToString::to_string);
    let places: Vec<String> = match change {
        PolicyChange::Added => at(after).into_iter().collect(),
        PolicyChange::Removed => at(before).into_iter().collect(),
        _ => [at(before), at(after)].into_iter().flatten().collect(),
    };
    let places = if places.is_empty() { String::new() } else { format!(" ({})", places.join(" → ")) };
    format!("{direction}: {policy} {}{places}", word(*change))
}

/// Returns the word for what happened to a policy.
pub(crate) fn word(change: PolicyChange) -> &'static str {
    match change {
        PolicyChange::Added => "added",
        PolicyChange::Removed => "removed",
        PolicyChange::Edited => "edited",
        PolicyChange::Unchanged => "unchanged",
    }
}

/// Returns the policies that changed without changing a connection.
pub(crate) fn idle_policies(comparison: &Comparison) -> impl Iterator<Item = (&PolicyKey, PolicyChange)> {
    let difference = &comparison.difference;
    let causes =
        |key: &PolicyKey| difference.changes.iter().any(|c| c.causes.iter().any(|x| x.policy == *key));
    difference.policies.iter().filter(move |(key, _)| !causes(key)).map(|(key, change)| (key, *change))
}

fn idle(comparison: &Comparison) -> Option<String> {
    let all: Vec<String> =
        idle_policies(comparison).map(|(key, change)| format!("{key} {}", word(change))).collect();
    (!all.is_empty()).then(|| escape::plain(&all.join(", ")).into_owned())
}

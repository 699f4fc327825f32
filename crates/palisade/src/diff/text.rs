//! A difference as text.

use std::fmt::Write as _;

use palisade_policy::Direction;

use super::{
    comparison::Comparison,
    groups::{Group, groups},
    summary::Summary,
    wording,
};
use crate::{
    escape,
    output::{Style, styled},
};

/// The most changes of a group that are listed one by one; more are folded.
pub(crate) const MAX_LISTED: usize = 8;

/// Renders the difference, with colors; the writer strips them where they don't belong.
pub(crate) fn text(comparison: &Comparison) -> String {
    let groups = groups(comparison);
    let groups: String = groups.iter().map(|group| of_group(comparison, group, usize::MAX).0).collect();
    format!("{}\n{groups}{}", Summary::new(comparison).text(), rest(comparison))
}

/// Returns a group with at most so many rows, and the number of rows that are not in it.
pub(crate) fn of_group(comparison: &Comparison, group: &Group<'_>, most: usize) -> (String, usize) {
    let mut out = format!("\n{}\n", styled(Style::Strong, &because(comparison, group)));
    let rows = wording::rows(group, group.changes.len() > MAX_LISTED);
    for row in rows.iter().take(most) {
        let (style, sign) = if row.opened { (Style::Good, '+') } else { (Style::Bad, '-') };
        let line = format!("{sign} {} → {}  {}", row.from, row.to, row.traffic);
        _ = writeln!(out, "  {}", styled(style, &line));
    }
    let left_out = rows.len().saturating_sub(most);
    if left_out > 0 {
        _ = writeln!(out, "  and {left_out} more");
    }
    (out, left_out)
}

/// Returns what follows the groups: DNS, the ends that are new or gone, and policies without effect.
pub(crate) fn rest(comparison: &Comparison) -> String {
    let mut out = String::new();
    let dns: Vec<String> = [false, true].into_iter().filter_map(|o| wording::dns(comparison, o)).collect();
    if !dns.is_empty() {
        _ = writeln!(out, "\n{}", dns.join("\n"));
    }
    if !comparison.difference.ends.is_empty() {
        out.push('\n');
    }
    for end in &comparison.difference.ends {
        _ = writeln!(out, "{}", styled(Style::Strong, &wording::end_change(comparison, end)));
        for direction in Direction::BOTH {
            for line in wording::reach(end, direction) {
                _ = writeln!(out, "    {line}");
            }
        }
    }
    policies(comparison, &mut out);
    out
}

/// Returns what could not be read or decided, and what else to know.
pub(crate) fn remarks(comparison: &Comparison) -> Vec<String> {
    let incomplete = comparison.incomplete();
    let incomplete = incomplete.map(|missing| format!("incomplete: {}: {}", missing.why, missing.means));
    let undecided = comparison.undecided.iter().map(|why| format!("undecided: {}", why.text));
    let notes = comparison.all_notes().into_iter().map(|note| format!("note: {}", note.text));
    let blocked = wording::blocked(comparison).into_iter().map(|text| format!("note: {text}"));
    let all = incomplete.chain(undecided).chain(notes).chain(blocked);
    all.map(|text| escape::plain(&text).into_owned()).collect()
}

/// Adds the policies that changed without effect, or only in name.
fn policies(comparison: &Comparison, out: &mut String) {
    let idle: Vec<String> = comparison
        .difference
        .policies_without_effect()
        .map(|(key, _)| wording::idle(comparison, key))
        .collect();
    if !idle.is_empty() {
        _ = writeln!(out, "\nno connection of pods that exist is changed by:\n  {}", idle.join("\n  "));
    }
    let renamed: Vec<String> = comparison.renamed().map(|key| wording::renamed(comparison, key)).collect();
    if !renamed.is_empty() {
        _ = writeln!(out, "\nsame content, other name:\n  {}", renamed.join("\n  "));
    }
}

/// Formats the causes of a group: `because …`, and a line for each further one.
pub(crate) fn because(comparison: &Comparison, group: &Group<'_>) -> String {
    let causes: Vec<String> = group.edits.iter().map(|edit| wording::edit(comparison, edit)).collect();
    if causes.is_empty() {
        return format!("because of {}", wording::OTHER_CAUSE);
    }
    format!("because {}", causes.join("\n    and "))
}

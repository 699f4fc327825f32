//! A difference as a comment for a pull request.

use std::fmt::Write as _;

use palisade_policy::Direction;

use super::{
    comparison::Comparison,
    groups::{Group, groups},
    summary::Summary,
    text::MAX_LISTED,
    wording,
};
use crate::{escape, inputs};

/// The most characters of a comment on GitHub, minus some for what a workflow adds around it. GitLab takes a million.
const MAX_CHARS: usize = 65_536 - 2_048;

/// The rows of a group that are not folded away.
const MAX_OPEN_ROWS: usize = 20;

/// The most rows of a group.
pub(crate) const MAX_ROWS: usize = 200;

/// Renders the difference. What doesn't fit in a comment is counted.
pub(crate) fn markdown(comparison: &Comparison) -> String {
    let mut comment = Comment { text: String::from("### Network connections\n\n"), chars: 25, left_out: 0 };
    comment.add(&format!("**{}**\n", cell(Summary::new(comparison).text())));
    let groups = groups(comparison);
    let groups = groups.iter().map(|group| of_group(comparison, group, MAX_ROWS).0);
    for part in remarks(comparison).into_iter().chain(groups).chain(ends_and_policies(comparison)) {
        comment.add(&part);
    }
    if comment.left_out > 0 {
        let (n, parts) = (comment.left_out, inputs::plural(comment.left_out, "part"));
        _ = writeln!(comment.text, "\n{n} more {parts} did not fit: `palisade diff` prints all.");
    }
    comment.text
}

/// Returns what could not be read or decided, and what else to know. Each is an item of a list: on GitLab, a line that begins
/// with a slash is a command.
pub(crate) fn remarks(comparison: &Comparison) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for missing in &comparison.missing {
        let meaning = missing.kind.if_missing();
        out.push(format!("\n- **Incomplete**: {} could not be read: {meaning}.\n", missing.kind.plural()));
    }
    for refused in comparison.refused() {
        out.push(format!("\n- **Incomplete**: {}: {}.\n", cell(&refused.why), cell(refused.means)));
    }
    let dns = [false, true].into_iter().filter_map(|opened| wording::dns(comparison, opened));
    let undecided = comparison.undecided.iter().map(|why| format!("undecided: {}", why.text));
    let notes = comparison.all_notes().into_iter().map(|note| note.text.clone());
    let all = dns.chain(undecided).chain(notes).chain(wording::blocked(comparison));
    out.extend(all.map(|text| format!("\n- {}.\n", sentence(&text))));
    out
}

/// Returns the ends that are new or gone, and the policies that changed without effect or only in name.
pub(crate) fn ends_and_policies(comparison: &Comparison) -> Vec<String> {
    let end = |end| {
        let lines = Direction::BOTH.into_iter().flat_map(|direction| wording::reach(end, direction));
        let lines: Vec<String> = lines.map(|line| format!("  - {}\n", cell(&line))).collect();
        format!("\n- {}\n{}", cell(&wording::end_change(comparison, end)), lines.concat())
    };
    let idle = comparison.difference.policies_without_effect();
    let idle = idle.map(|(key, _)| format!("\n- no effect: {}\n", cell(&wording::idle(comparison, key))));
    let renamed = comparison.renamed();
    let renamed = renamed.map(|key| format!("\n- {}\n", cell(&wording::renamed(comparison, key))));
    comparison.difference.ends.iter().map(end).chain(idle).chain(renamed).collect()
}

/// A comment, which takes parts as long as they fit.
struct Comment {
    text: String,
    chars: usize,
    left_out: usize,
}

impl Comment {
    fn add(&mut self, part: &str) {
        let chars = part.chars().count();
        if self.chars + chars > MAX_CHARS {
            self.left_out += 1;
        } else {
            self.chars += chars;
            self.text.push_str(part);
        }
    }
}

/// Returns a group with at most so many rows, and the number of rows that are not in it.
pub(crate) fn of_group(comparison: &Comparison, group: &Group<'_>, most: usize) -> (String, usize) {
    let rows = wording::rows(group, group.changes.len() > MAX_LISTED);
    let causes: Vec<String> = group.edits.iter().map(|edit| cell(&wording::edit(comparison, edit))).collect();
    let mut out = match causes.is_empty() {
        true => format!("\nBecause of {}:\n\n", wording::OTHER_CAUSE),
        false => format!("\nBecause **{}**:\n\n", causes.join("** and **")),
    };
    let table = |from: usize, to: usize| {
        let mut table = String::from("| | From | To | Ports |\n| --- | --- | --- | --- |\n");
        for row in &rows[from..to] {
            let sign = if row.opened { "➕ opened" } else { "➖ closed" };
            let (from, to) = (cell(&row.from), cell(&row.to));
            _ = writeln!(table, "| {sign} | {from} | {to} | {} |", cell(&row.traffic));
        }
        table
    };
    let shown = rows.len().min(most);
    let open = shown.min(MAX_OPEN_ROWS);
    if open > 0 {
        out += &table(0, open);
    }
    if shown > open {
        let more = table(open, shown);
        _ = writeln!(out, "\n<details><summary>{} more</summary>\n\n{more}\n</details>", rows.len() - open);
    }
    let left_out = rows.len() - shown;
    if left_out > 0 {
        _ = writeln!(out, "\n{left_out} more are not listed: `palisade diff` prints all.");
    }
    (out, left_out)
}

fn cell(text: &str) -> String {
    escape::markdown(text).into_owned()
}

/// Returns an escaped text that begins with a capital letter.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    cell(&first.chain(chars).collect::<String>())
}

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
use crate::escape;

/// The most characters of a comment on GitHub, minus some for what a workflow adds around it. GitLab takes a million.
const MAX_CHARS: usize = 65_536 - 2_048;

/// The rows of a group that are not folded away.
const MAX_OPEN_ROWS: usize = 20;

/// The most rows of a group.
const MAX_ROWS: usize = 200;

/// Renders the difference. What doesn't fit in a comment is counted.
pub(crate) fn markdown(comparison: &Comparison) -> String {
    let mut comment = Comment { text: String::from("### Network connections\n\n"), chars: 25, left_out: 0 };
    comment.add(&format!("**{}**\n", cell(Summary::new(comparison).text())));
    for missing in &comparison.missing {
        let meaning = missing.kind.if_missing();
        comment.add(&format!("\n**Incomplete**: {} could not be read: {meaning}.\n", missing.kind.plural()));
    }
    for opened in [false, true] {
        if let Some(dns) = wording::dns(comparison, opened) {
            comment.add(&format!("\n{}.\n", sentence(&dns)));
        }
    }
    for refused in comparison.sides.iter().flat_map(|side| &side.refused) {
        comment.add(&format!("\n**Incomplete**: {}.\n", cell(&refused.to_string())));
    }
    let (notes, blocked) = (comparison.all_notes(), wording::blocked(comparison));
    let undecided = comparison.undecided.iter().map(|why| format!("undecided: {}", why.text));
    for why in undecided {
        comment.add(&format!("\n{}.\n", sentence(&why)));
    }
    for note in notes.into_iter().map(|note| &note.text).chain(&blocked) {
        comment.add(&format!("\n{}.\n", sentence(note)));
    }
    for group in groups(comparison) {
        comment.add(&of_group(comparison, &group));
    }
    for end in &comparison.difference.ends {
        let lines = Direction::BOTH.into_iter().flat_map(|direction| wording::reach(end, direction));
        let lines: Vec<String> = lines.map(|line| format!("  - {}\n", cell(&line))).collect();
        comment.add(&format!("\n- {}\n{}", cell(&wording::end_change(comparison, end)), lines.concat()));
    }
    for (key, _) in comparison.difference.policies_without_effect() {
        comment.add(&format!("\n- no effect: {}\n", cell(&wording::idle(comparison, key))));
    }
    for key in comparison.renamed() {
        comment.add(&format!("\n- {}\n", cell(&wording::renamed(comparison, key))));
    }
    if comment.left_out > 0 {
        let (n, parts) = (comment.left_out, crate::inputs::plural(comment.left_out, "part"));
        _ = writeln!(comment.text, "\n{n} more {parts} did not fit: `palisade diff` prints all.");
    }
    comment.text
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

fn of_group(comparison: &Comparison, group: &Group<'_>) -> String {
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
    let open = rows.len().min(MAX_OPEN_ROWS);
    out += &table(0, open);
    if rows.len() > open {
        let folded = rows.len().min(MAX_ROWS);
        _ = writeln!(
            out,
            "\n<details><summary>{} more</summary>\n\n{}\n</details>",
            rows.len() - open,
            table(open, folded)
        );
        if rows.len() > folded {
            _ = writeln!(out, "\n{} more are not listed: `palisade diff` prints all.", rows.len() - folded);
        }
    }
    out
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

//! Renders an edit as a unified diff of the policy's file.
//!
//! Lines are inserted or removed at the origin of the policy's parts; the rest of the file, with its comments and style,
//! stays as it is. The patch is verified: the patched text is read back, and the patch is shown only if the file's policies
//! are exactly the edited ones. Files in an unusual style (JSON, lists in brackets) get no patch.

use std::{fmt::Write as _, fs, path::Path};

use palisade_analysis::{
    diff::changed_policies,
    edit::{Edit, EditAction, applied},
};
use palisade_manifest::{Input, LoadOptions, load};
use palisade_policy::{Cluster, Direction, Origin, Policy};

use super::{manifest, suggestion::EditTarget};

/// Lines of context around a change.
const CONTEXT: usize = 3;

/// Lines to remove and lines to insert in their place.
struct Splice {
    at: usize,
    removed: usize,
    inserted: Vec<String>,
}

/// Returns the patch, if the file can be patched.
pub(crate) fn patch(place: EditTarget<'_>, edit: &Edit) -> Option<String> {
    let policy = place.cluster.policies.get(&edit.policy)?;
    let source = policy.origin.as_ref()?;
    source.line()?;
    let file = source.file.clone();
    // Reading a pipe again would block.
    if !fs::metadata(Path::new(&*file)).is_ok_and(|m| m.is_file()) {
        return None;
    }
    let text = fs::read_to_string(Path::new(&*file)).ok()?;
    // A last line without a line feed would need a special marker, and control characters must not reach a terminal.
    if text.contains(|c: char| c.is_control() && c != '\n') || !text.ends_with('\n') {
        return None;
    }
    let lines: Vec<&str> = text.lines().collect();
    let splice = splice(&lines, policy, edit)?;
    let mut patched: Vec<&str> = lines[..splice.at].to_vec();
    patched.extend(splice.inserted.iter().map(String::as_str));
    patched.extend(&lines[splice.at + splice.removed..]);
    let patched = patched.join("\n") + "\n";
    has_effect(&file, place, &text, &patched, edit).then(|| unified(&file, &lines, &splice))
}

/// Whether the patched file has exactly the edited policies and is otherwise unchanged.
fn has_effect(file: &str, place: EditTarget<'_>, before: &str, after: &str, edit: &Edit) -> bool {
    let default_namespace = place.namespace.to_owned();
    let options =
        place.reading.options(LoadOptions { default_namespace, addresses: None, ..LoadOptions::default() });
    let read = |text: &str| load(&[Input::Text { name: file.to_owned(), text: text.to_owned() }], &options);
    let (before, after) = (read(before), read(after));
    if after.has_errors() && !before.has_errors() {
        return false;
    }
    let (before, after) = (before.cluster, after.cluster);
    let others = |c: &Cluster| Cluster { policies: Default::default(), ..c.clone() };
    let policies = |c: Cluster| Cluster { policies: c.policies, ..Cluster::default() };
    others(&before) == others(&after)
        && changed_policies(&policies(applied(&before, edit)), &policies(after)).is_empty()
}

fn splice(lines: &[&str], policy: &Policy, edit: &Edit) -> Option<Splice> {
    let rules = policy.rules(edit.direction)?;
    let insert = |at, indent: usize| Splice { at, removed: 0, inserted: added(edit, indent) };
    match &edit.action {
        EditAction::AddPort { rule, .. } => {
            let last = rules.get(*rule)?.ports.as_ref()?.last()?;
            let item = item(lines, last.origin.as_ref()?)?;
            Some(insert(item.end, item.indent))
        }
        EditAction::AddPeer { rule, .. } => {
            let last = rules.get(*rule)?.peers.as_ref()?.last()?;
            let item = item(lines, last.origin.as_ref()?)?;
            Some(insert(item.end, item.indent))
        }
        EditAction::AddRule { at, .. } => match (rules.get(*at), rules.last()) {
            (Some(next), _) => {
                let item = item(lines, next.origin.as_ref()?)?;
                Some(insert(item.start, item.indent))
            }
            (None, Some(last)) => {
                let item = item(lines, last.origin.as_ref()?)?;
                Some(insert(item.end, item.indent))
            }
            (None, None) => first_rule(lines, policy.origin.as_ref()?, edit),
        },
        EditAction::RemoveRules(gone) => remove(lines, policy, gone, edit.direction),
        EditAction::NewPolicy(_) => None,
    }
}

/// Returns the lines that an edit adds, indented.
fn added(edit: &Edit, indent: usize) -> Vec<String> {
    manifest::text(edit).lines().map(|line| format!("{:indent$}{line}", "")).collect()
}

/// An item of a YAML list: its lines, and the indentation of its dash.
struct Item {
    start: usize,
    end: usize,
    indent: usize,
}

/// Returns the item at `source`, if it is in block style.
fn item(lines: &[&str], source: &Origin) -> Option<Item> {
    let start = (source.line as usize).checked_sub(1)?;
    let line = lines.get(start)?;
    let indent = indent_of(line);
    if !line[indent..].starts_with("- ") {
        return None;
    }
    let inside = |line: &&str| line.trim().is_empty() || indent_of(line) > indent;
    let mut end = start + 1 + lines[start + 1..].iter().take_while(|l| inside(l)).count();
    // Trailing blank lines and comments belong to what follows.
    while end > start + 1 && (lines[end - 1].trim().is_empty() || lines[end - 1].trim().starts_with('#')) {
        end -= 1;
    }
    Some(Item { start, end, indent })
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

fn name(direction: Direction) -> &'static str {
    if direction == Direction::Ingress { "ingress" } else { "egress" }
}

/// Adds a rule to a policy without rules: replaces `ingress: []`, or inserts a list at the beginning of `spec`.
fn first_rule(lines: &[&str], source: &Origin, edit: &Edit) -> Option<Splice> {
    let begin = (source.line as usize).checked_sub(1)?;
    let document = lines.get(begin..)?.iter().take_while(|l| !l.starts_with("---"));
    let document: Vec<(usize, &str)> = document.enumerate().map(|(n, line)| (begin + n, *line)).collect();
    let key = name(edit.direction);
    let with_key = |indent: usize| {
        let mut inserted = vec![format!("{:indent$}{key}:", "")];
        inserted.extend(added(edit, indent + 2));
        inserted
    };
    let empty = format!("{key}: []");
    if let Some((at, line)) = document.iter().find(|(_, line)| line.trim() == empty) {
        return Some(Splice { at: *at, removed: 1, inserted: with_key(indent_of(line)) });
    }
    let spec = document.iter().position(|(_, line)| line.trim() == "spec:")?;
    let (at, line) = document.get(spec + 1)?;
    Some(Splice { at: *at, removed: 0, inserted: with_key(indent_of(line)) })
}

/// Removes adjacent rules.
fn remove(lines: &[&str], policy: &Policy, gone: &[usize], direction: Direction) -> Option<Splice> {
    let rules = policy.rules(direction)?;
    let (first, last) = (*gone.first()?, *gone.last()?);
    if last - first + 1 != gone.len() {
        return None;
    }
    let place = |index: usize| rules.get(index)?.origin.as_ref().and_then(|s| item(lines, s));
    let (start, end) = (place(first)?.start, place(last)?.end);
    if gone.len() < rules.len() {
        return Some(Splice { at: start, removed: end - start, inserted: Vec::new() });
    }
    // An empty list is written: without it, the policy might not isolate pods.
    let key = name(direction);
    let head = (0..start).rev().find(|at| lines[*at].trim() == format!("{key}:"))?;
    let indent = indent_of(lines[head]);
    Some(Splice { at: head, removed: end - head, inserted: vec![format!("{:indent$}{key}: []", "")] })
}

/// Renders the change in the format of `diff -u`.
fn unified(file: &str, lines: &[&str], splice: &Splice) -> String {
    let Splice { at, removed, inserted } = splice;
    let from = at.saturating_sub(CONTEXT);
    let behind = at + removed;
    let to = (behind + CONTEXT).min(lines.len());
    let (old, new) = (to - from, to - from - removed + inserted.len());
    // `git apply` and `patch` reject absolute paths, and `git apply` rejects paths that begin with a dot.
    let here = std::env::current_dir().ok();
    let below = here.and_then(|dir| Path::new(file).strip_prefix(dir).ok().map(|p| p.display().to_string()));
    let file = below.as_deref().unwrap_or(file).trim_start_matches("./");
    let mut out = format!("--- {file}\n+++ {file}\n@@ -{},{old} +{},{new} @@\n", from + 1, from + 1);
    let mut put = |sign: char, line: &str| _ = writeln!(out, "{sign}{line}");
    lines[from..*at].iter().for_each(|line| put(' ', line));
    lines[*at..behind].iter().for_each(|line| put('-', line));
    inserted.iter().for_each(|line| put('+', line));
    lines[behind..to].iter().for_each(|line| put(' ', line));
    out
}

//! An edit as a unified diff of the file that has the policy.
//!
//! Lines are put in or taken out where the policy's parts stand; comments and style of everything else stay. Whether that
//! did what was meant is not guessed: the text is read back, and only a patch after which the file's policies are exactly
//! the edited ones is shown. Files in another style than the usual one (JSON, lists in brackets) get no patch.

use std::{fmt::Write as _, fs, path::Path};

use palisade_analysis::{
    diff::diff,
    edit::{Edit, EditAction, applied},
};
use palisade_manifest::{Input, LoadOptions, load};
use palisade_policy::{Cluster, Direction, Origin, Policy};

use super::{manifest, suggestion::EditTarget};

/// Lines round a change.
const CONTEXT: usize = 3;

/// Lines that go, and those that come in their place.
struct Splice {
    at: usize,
    removed: usize,
    inserted: Vec<String>,
}

/// The patch, if the file can be patched.
pub(crate) fn patch(place: EditTarget<'_>, edit: &Edit) -> Option<String> {
    let policy = place.cluster.policies.get(&edit.policy)?;
    let source = policy.origin.as_ref()?;
    source.line()?;
    let file = source.file.clone();
    // A pipe was read to its end, and would be waited for.
    if !fs::metadata(Path::new(&*file)).is_ok_and(|m| m.is_file()) {
        return None;
    }
    let text = fs::read_to_string(Path::new(&*file)).ok()?;
    // A last line without end would need a mark of its own. Control characters are for no terminal.
    if text.contains(|c: char| c.is_control() && c != '\n') || !text.ends_with('\n') {
        return None;
    }
    let lines: Vec<&str> = text.lines().collect();
    let splice = splice(&lines, policy, edit)?;
    let mut patched: Vec<&str> = lines[..splice.at].to_vec();
    patched.extend(splice.inserted.iter().map(String::as_str));
    patched.extend(&lines[splice.at + splice.removed..]);
    let patched = patched.join("\n") + "\n";
    does_it(&file, place, &text, &patched, edit).then(|| unified(&file, &lines, &splice))
}

/// Whether the file says after the patch what it should say, and nothing else than before besides.
fn does_it(file: &str, place: EditTarget<'_>, before: &str, after: &str, edit: &Edit) -> bool {
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
        && diff(&policies(applied(&before, edit)), &policies(after), false).policies.is_empty()
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

/// The lines that an edit adds, at this indentation.
fn added(edit: &Edit, indent: usize) -> Vec<String> {
    manifest::text(edit).lines().map(|line| format!("{:indent$}{line}", "")).collect()
}

/// An item of a list: its lines, and how far its dash is indented.
struct Item {
    start: usize,
    end: usize,
    indent: usize,
}

/// The item that stands at `source`, if it has lines of its own.
fn item(lines: &[&str], source: &Origin) -> Option<Item> {
    let start = (source.line as usize).checked_sub(1)?;
    let line = lines.get(start)?;
    let indent = indent_of(line);
    if !line[indent..].starts_with("- ") {
        return None;
    }
    let inside = |line: &&str| line.trim().is_empty() || indent_of(line) > indent;
    let mut end = start + 1 + lines[start + 1..].iter().take_while(|l| inside(l)).count();
    // What is blank or only a comment belongs to what follows.
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

/// A rule for a policy that has none: in place of `ingress: []`, or at the beginning of `spec`.
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

/// Rules that stand one after the other go.
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
    // A list without rules is written out: absent, it could mean that the policy doesn't isolate.
    let key = name(direction);
    let head = (0..start).rev().find(|at| lines[*at].trim() == format!("{key}:"))?;
    let indent = indent_of(lines[head]);
    Some(Splice { at: head, removed: end - head, inserted: vec![format!("{:indent$}{key}: []", "")] })
}

/// The change as `diff -u` shows it.
fn unified(file: &str, lines: &[&str], splice: &Splice) -> String {
    let Splice { at, removed, inserted } = splice;
    let from = at.saturating_sub(CONTEXT);
    let behind = at + removed;
    let to = (behind + CONTEXT).min(lines.len());
    let (old, new) = (to - from, to - from - removed + inserted.len());
    // `git apply` and `patch` refuse names that begin at the root, and `git apply` those that begin with a dot.
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

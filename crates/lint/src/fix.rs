//! Fixes as edits of text.

use crate::{
    context::Context,
    finding::{Fix, TextEdit},
    text::Lines,
    written::{Blank, WrittenFields},
};
use palisade_policy::{Name, Origin};

/// Makes the edits of fixes in a text, the first of those that overlap. Returns the text and how many fixes were made.
#[must_use]
pub fn fixed<'f>(text: &str, fixes: impl IntoIterator<Item = &'f Fix>) -> (String, usize) {
    let mut edits: Vec<&TextEdit> = Vec::new();
    let mut made = 0;
    for fix in fixes {
        let fits = |edit: &TextEdit| {
            let valid = text.get(edit.range.clone()).is_some();
            valid && edits.iter().all(|e| e.range.end < edit.range.start || edit.range.end < e.range.start)
        };
        if fix.edits.iter().all(fits) {
            edits.extend(&fix.edits);
            made += 1;
        }
    }
    edits.sort_by_key(|edit| std::cmp::Reverse(edit.range.start));
    let mut out = text.to_owned();
    for edit in edits {
        out.replace_range(edit.range.clone(), &edit.text);
    }
    (out, made)
}

/// Returns the edit that makes a list item a part of the item before it: its dash becomes a space.
pub(crate) fn joined(cx: &Context<'_>, item: &Origin, text: &str) -> Option<Fix> {
    let lines = cx.lines.get(&*item.file)?;
    let at = lines.offset(item)?;
    let before = lines.before(at);
    let dash = before.find('-')?;
    let only_dash = before[..dash].chars().all(|c| c == ' ') && before[dash + 1..].chars().all(|c| c == ' ');
    let start = at - before.len() + dash;
    only_dash.then(|| Fix {
        text: text.to_owned(),
        edits: vec![TextEdit { file: item.file.clone(), range: start..start + 1, text: " ".to_owned() }],
    })
}

/// Returns a fix that writes words in quotes where they replace words in quotes: JSON needs them.
pub(crate) fn in_quotes(cx: &Context<'_>, mut fix: Fix) -> Fix {
    for edit in &mut fix.edits {
        let old = cx.lines.get(&*edit.file).and_then(|lines| lines.text.get(edit.range.clone()));
        let was_quoted = old.is_some_and(|old| old.starts_with('"') && old.ends_with('"'));
        if was_quoted && !edit.text.starts_with(['"', '[', '{']) {
            edit.text = format!("{:?}", edit.text);
        }
    }
    fix
}

/// Returns the edit that writes a value for a field that has none, or one that doesn't count: in YAML, or in JSON if the key is
/// in quotes.
pub(crate) fn value_of(
    cx: &Context<'_>,
    file: &Name,
    blank: &Blank,
    [yaml, json]: [&str; 2],
    text: &str,
) -> Option<Fix> {
    let source = cx.lines.get(&**file)?.text;
    let value = if source.get(..blank.key_end)?.ends_with('"') { json } else { yaml };
    let old = source.get(blank.value.clone())?;
    let edit = if old.trim().is_empty() {
        let colon = blank.key_end + source.get(blank.key_end..)?.find(':')? + 1;
        TextEdit { file: file.clone(), range: colon..colon, text: format!(" {value}") }
    } else {
        TextEdit { file: file.clone(), range: blank.value.clone(), text: value.to_owned() }
    };
    Some(Fix { text: text.to_owned(), edits: vec![edit] })
}

/// Returns the edit that writes a field before the first one of a mapping, in the style of the mapping: on a line of its own, or in
/// braces as YAML or JSON. `None` for a mapping that is merged into another one, which would get the field, too.
pub(crate) fn field_before(
    cx: &Context<'_>,
    file: &Name,
    fields: &WrittenFields,
    [yaml, json]: [&str; 2],
    text: &str,
) -> Option<Fix> {
    let lines = *cx.lines.get(&**file)?;
    if is_merged(lines.text, fields.range.start) {
        return None;
    }
    let is_flow = lines.text.get(fields.range.clone())?.starts_with('{');
    let (at, written) = match fields.first {
        Some(at) if is_flow => (at, flow_before(lines, at, [yaml, json])),
        Some(at) => (at, block_before(lines, at, yaml)?),
        None if is_flow => {
            let is_json = lines.text.get(..fields.range.start)?.trim_end().ends_with("\":");
            (fields.range.start + 1, if is_json { json } else { yaml }.to_owned())
        }
        None => return None,
    };
    let edits = vec![TextEdit { file: file.clone(), range: at..at, text: written }];
    Some(Fix { text: text.to_owned(), edits })
}

/// Returns the text of an entry that is inserted before another one in braces or brackets: beside it, or on a line of its own if the
/// other one begins its line. It is JSON if the other one is.
pub(crate) fn flow_before(lines: Lines<'_>, at: usize, [yaml, json]: [&str; 2]) -> String {
    let next = lines.text.get(at..).unwrap_or_default().trim_start_matches(['{', ' ', '\t', '\r', '\n']);
    let entry = if next.starts_with('"') { json } else { yaml };
    let before = lines.before(at);
    let begins_line = !before.is_empty() && before.chars().all(|c| c == ' ' || c == '\t');
    if begins_line { format!("{entry},\n{before}") } else { format!("{entry}, ") }
}

/// Returns the text of a field that is inserted before another one of a block mapping; `None` if that one doesn't begin its line.
fn block_before(lines: Lines<'_>, at: usize, field: &str) -> Option<String> {
    let indentation = lines.before(at);
    indentation.chars().all(|c| c == ' ').then(|| format!("{field}\n{indentation}"))
}

/// Returns whether the mapping that begins at a byte has an anchor that merge keys use.
fn is_merged(text: &str, start: usize) -> bool {
    let before = text.get(..start).unwrap_or_default().trim_end();
    let word = before.rsplit(char::is_whitespace).next().unwrap_or_default();
    let Some(anchor) = word.strip_prefix('&') else { return false };
    let alias = format!("*{anchor}");
    let is_alias = |line: &str| line.split([' ', ',', '[', ']', '{', '}', ':']).any(|word| word == alias);
    text.lines().any(|line| line.contains("<<") && is_alias(line))
}

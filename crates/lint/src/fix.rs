//! Fixes as edits of text.

use crate::{
    context::Context,
    finding::{Fix, TextEdit},
    written::Blank,
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

/// Returns the edit that writes a field before the first one of a block mapping.
pub(crate) fn field_before(cx: &Context<'_>, first: &Origin, field: &str, text: &str) -> Option<Fix> {
    let lines = cx.lines.get(&*first.file)?;
    let at = lines.offset(first)?;
    let indentation = lines.before(at);
    indentation.chars().all(|c| c == ' ').then(|| Fix {
        text: text.to_owned(),
        edits: vec![TextEdit {
            file: first.file.clone(),
            range: at..at,
            text: format!("{field}\n{indentation}"),
        }],
    })
}

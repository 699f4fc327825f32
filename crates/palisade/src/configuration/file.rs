//! Parses the file.

use std::path::Path;

use anyhow::{Context as _, Result};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::inputs::texts::bounded;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// A key and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The tables that it is in: none, or the words of a verb.
    pub(super) verbs: Vec<String>,
    pub(super) key: String,
    pub(super) value: Value,
    /// `palisade.toml:3`
    pub(super) place: String,
}

/// A value, as words of a command line.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Bool(bool),
    One(String),
    Many(Vec<String>),
}

/// Reads the entries of a file, in its order.
///
/// # Errors
/// When it can't be read, is no TOML, or has a value that no option takes.
pub(super) fn read(file: &Path) -> Result<Vec<Entry>> {
    let text = bounded(file, LARGEST)?;
    let place = |at: usize| {
        let line = 1 + text.get(..at).unwrap_or(&text).bytes().filter(|b| *b == b'\n').count();
        format!("{}:{line}", file.display())
    };
    let table = DeTable::parse(&text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        anyhow::anyhow!("{}: {}", place(at), error.message())
    })?;
    let mut entries = Vec::new();
    collect(table.get_ref(), &[], &place, &mut entries)?;
    Ok(entries)
}

fn collect(
    table: &DeTable<'_>,
    verbs: &[String],
    place: &dyn Fn(usize) -> String,
    out: &mut Vec<Entry>,
) -> Result<()> {
    for (key, value) in table {
        let at = place(key.span().start);
        let name = key.get_ref().to_string();
        if let DeValue::Table(inner) = value.get_ref() {
            let verbs = [verbs, &[name]].concat();
            // An empty table is checked too.
            if inner.is_empty() {
                out.push(Entry { verbs, key: String::new(), value: Value::Bool(false), place: at });
            } else {
                collect(inner, &verbs, place, out)?;
            }
            continue;
        }
        let value = match value.get_ref() {
            DeValue::Boolean(on) => Value::Bool(*on),
            DeValue::Array(all) => {
                let words = all.iter().map(word).collect::<Option<_>>();
                Value::Many(
                    words.with_context(|| format!("{at}: {name}: a list of texts or numbers is expected"))?,
                )
            }
            _ => Value::One(
                word(value)
                    .with_context(|| format!("{at}: {name}: a text, a number or a list is expected"))?,
            ),
        };
        out.push(Entry { verbs: verbs.to_vec(), key: name, value, place: at });
    }
    Ok(())
}

fn word(value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|n| n.to_string())
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}

//! What is worth knowing about an input, and is neither an error nor a warning.

use serde::Serialize;

/// Something that was noticed while reading, and its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The kind of note, such as `not-manifests`. The names are stable, so that scripts can match on them.
    pub code: &'static str,
    /// The text, without a full stop.
    pub text: String,
}

impl Note {
    /// Makes a note.
    pub fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// The most names that a note lists.
const LISTED: usize = 8;

/// Joins the first few names: `a, b, c and 3 more`.
pub(crate) fn abbreviated(names: &[impl AsRef<str>]) -> String {
    let mut shown = names.iter().take(LISTED).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    if names.len() > LISTED {
        shown += &format!(" and {} more", names.len() - LISTED);
    }
    shown
}

/// Joins all names: `a, b and c`.
pub(crate) fn joined(names: &[impl AsRef<str>]) -> String {
    match names {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        [most @ .., last] => {
            let most: Vec<&str> = most.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", most.join(", "), last.as_ref())
        }
    }
}

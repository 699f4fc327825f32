//! The texts of the files, by position.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use palisade_policy::{Name, Origin};

use crate::written::{self, Header, Written};

/// The text of a file. It is parsed when rules are checked for the first time, however often and beside whichever other texts they
/// are checked. A clone is cheap, and shares this.
#[derive(Clone, Debug)]
pub struct SourceText(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: Name,
    text: String,
    /// Where the lines begin.
    starts: OnceLock<Vec<usize>>,
    /// Whether columns are bytes. Minified JSON is one long line, in which counting characters for each finding takes long.
    is_ascii: OnceLock<bool>,
    /// The policies as they are written.
    written: OnceLock<Vec<Written>>,
    /// The headers of objects, by the beginning of their `apiVersion`.
    headers: OnceLock<BTreeMap<usize, Header>>,
}

impl SourceText {
    /// A text. `file` is the file's name in messages, as in the positions of objects; empty for what an API server sent.
    #[must_use]
    pub fn new(file: impl Into<Name>, text: impl Into<String>) -> Self {
        Self(Arc::new(Shared {
            file: file.into(),
            text: text.into(),
            starts: OnceLock::new(),
            is_ascii: OnceLock::new(),
            written: OnceLock::new(),
            headers: OnceLock::new(),
        }))
    }

    /// The name of the file.
    #[must_use]
    pub fn file(&self) -> &Name {
        &self.0.file
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Returns the policies as they are written.
    pub(crate) fn written(&self) -> &[Written] {
        self.0.written.get_or_init(|| written::policies(self.file(), self.text()))
    }

    /// Returns the header of the object whose `apiVersion` begins at a byte.
    pub(crate) fn header(&self, at: usize) -> Option<&Header> {
        self.0.headers.get_or_init(|| written::headers(self.text())).get(&at)
    }

    /// Returns the text by lines.
    pub(crate) fn lines(&self) -> Lines<'_> {
        let starts = self.0.starts.get_or_init(|| {
            let breaks = self.text().bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
            std::iter::once(0).chain(breaks).collect()
        });
        Lines { text: self.text(), starts, is_ascii: *self.0.is_ascii.get_or_init(|| self.text().is_ascii()) }
    }
}

/// The text of a file and where its lines begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines<'a> {
    pub(crate) text: &'a str,
    starts: &'a [usize],
    is_ascii: bool,
}

/// The most characters of a line that are shown.
const MOST_SHOWN: usize = 200;
/// How many bytes before a position are shown of a longer line.
const SHOWN_BEFORE: usize = 40;

impl<'a> Lines<'a> {
    /// Returns the line, counted from one, without its break.
    pub(crate) fn line(self, number: u32) -> Option<&'a str> {
        let start = *self.starts.get((number as usize).checked_sub(1)?)?;
        let end = self.starts.get(number as usize).map_or(self.text.len(), |next| *next);
        Some(self.text.get(start..end)?.trim_end_matches(['\n', '\r']))
    }

    /// Returns the line of a position, or the part of a long line around it.
    pub(crate) fn around(self, origin: &Origin) -> Option<String> {
        let line = self.line(origin.line)?;
        if line.chars().nth(MOST_SHOWN).is_none() {
            return Some(line.trim_end().to_owned());
        }
        let start = *self.starts.get((origin.line as usize).checked_sub(1)?)?;
        let at = self.offset(origin).map_or(0, |at| at - start);
        let first = line.floor_char_boundary(at.saturating_sub(SHOWN_BEFORE));
        let rest = line.get(first..)?;
        let shown: String = rest.chars().take(MOST_SHOWN).collect();
        let mark = |is_cut: bool| if is_cut { "…" } else { "" };
        Some(format!("{}{}{}", mark(first > 0), shown.trim_end(), mark(shown.len() < rest.len())))
    }

    /// Returns the bytes before a position.
    pub(crate) fn offset(self, origin: &Origin) -> Option<usize> {
        let start = *self.starts.get((origin.line as usize).checked_sub(1)?)?;
        let line = self.line(origin.line)?;
        let column = (origin.column as usize).checked_sub(1)?;
        if self.is_ascii {
            return (column <= line.len()).then_some(start + column);
        }
        let ends = std::iter::once(line.len());
        let within = line.char_indices().map(|(at, _)| at).chain(ends).nth(column)?;
        Some(start + within)
    }

    /// Returns line and column of a byte, counted from one, in characters.
    pub(crate) fn position(self, at: usize) -> (u32, u32) {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        let before = self.text.get(self.starts[line - 1]..at).unwrap_or_default();
        let column = if self.is_ascii { before.len() } else { before.chars().count() };
        (line as u32, column as u32 + 1)
    }

    /// Returns the text of the line up to a byte.
    pub(crate) fn before(self, at: usize) -> &'a str {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        self.text.get(self.starts[line - 1]..at).unwrap_or_default()
    }

    /// Returns how many lines there are.
    pub(crate) fn count(self) -> u32 {
        self.starts.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_parsed_once_whatever_holds_it() {
        let text = SourceText::new("p.yaml", "kind: NetworkPolicy\nmetadata: {name: p}\nspec: {}\n");
        let again = text.clone();
        assert_eq!(text.written().len(), 1);
        assert!(std::ptr::eq(text.written(), again.written()));
        assert!(std::ptr::eq(text.lines().starts, again.lines().starts));
        assert_eq!(text.lines().count(), 4);
    }

    #[test]
    fn columns_are_characters_and_long_lines_are_shown_around_them() {
        let long = "x".repeat(300);
        for letter in ["a", "ä"] {
            let text = SourceText::new("p.yaml", format!("one\n{long}{letter}KEY{long}\n"));
            let lines = text.lines();
            let at = 4 + 300 + letter.len();
            let (line, column) = lines.position(at);
            assert_eq!((line, column), (2, 302), "{letter}");
            let origin = Origin { file: "p.yaml".into(), line, column };
            assert_eq!(lines.offset(&origin), Some(at), "{letter}");
            let shown = lines.around(&origin).expect("the line");
            assert!(shown.contains(&format!("{letter}KEY")), "{shown}");
            assert!(shown.starts_with("…x") && shown.ends_with("x…"), "{shown}");
            assert_eq!(lines.offset(&Origin { column: 1000, ..origin }), None);
        }
        let short = SourceText::new("p.yaml", "kind: x  \n");
        let origin = Origin { file: "p.yaml".into(), line: 1, column: 1 };
        assert_eq!(short.lines().around(&origin).as_deref(), Some("kind: x"));
    }
}

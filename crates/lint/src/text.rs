//! The texts of the files, by position.

use palisade_policy::{Name, Origin};

/// The text of a file.
#[derive(Clone, Debug)]
pub struct SourceText {
    /// The file's name in messages, as in the positions of objects. Empty for what an API server sent.
    pub file: Name,
    /// The text.
    pub text: String,
}

/// The text of a file and where its lines begin.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    pub(crate) text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(breaks).collect() }
    }

    /// Returns the line, counted from one, without its break.
    pub(crate) fn line(&self, number: u32) -> Option<&'a str> {
        let start = *self.starts.get((number as usize).checked_sub(1)?)?;
        let end = self.starts.get(number as usize).map_or(self.text.len(), |next| *next);
        Some(self.text.get(start..end)?.trim_end_matches(['\n', '\r']))
    }

    /// Returns the bytes before a position.
    pub(crate) fn offset(&self, origin: &Origin) -> Option<usize> {
        let start = *self.starts.get((origin.line as usize).checked_sub(1)?)?;
        let line = self.line(origin.line)?;
        let column = (origin.column as usize).checked_sub(1)?;
        let ends = std::iter::once(line.len());
        let within = line.char_indices().map(|(at, _)| at).chain(ends).nth(column)?;
        Some(start + within)
    }

    /// Returns line and column of a byte, counted from one, in characters.
    pub(crate) fn position(&self, at: usize) -> (u32, u32) {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        let column = self.text.get(self.starts[line - 1]..at).map_or(0, |text| text.chars().count());
        (line as u32, column as u32 + 1)
    }

    /// Returns the text of the line up to a byte.
    pub(crate) fn before(&self, at: usize) -> &'a str {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        self.text.get(self.starts[line - 1]..at).unwrap_or_default()
    }

    /// Returns how many lines there are.
    pub(crate) fn count(&self) -> u32 {
        self.starts.len() as u32
    }
}

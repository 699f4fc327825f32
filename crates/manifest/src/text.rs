//! The text of a file with its lines, and the excerpts that diagnostics keep.

use std::ops::Range;

use palisade_policy::{Name, Origin};

/// How many bytes an excerpt keeps on either side of the span, since minified JSON is one long line.
const MARGIN: usize = 160;
/// A text and the offsets of its lines.
#[derive(Debug)]
pub(crate) struct Text {
    name: Name,
    text: String,
    lines: Vec<u32>,
    /// Whether an API server sent the text. Positions in it are meaningless to users.
    of_cluster: bool,
}

impl Text {
    /// Makes a text that an API server sent. It has no name, and every position in it is line 0. Columns are not
    /// counted: the text is one line, and counting thousands of columns in a megabyte takes minutes.
    pub(crate) fn of_cluster(text: String) -> Self {
        Self { name: "".into(), text, lines: vec![0], of_cluster: true }
    }

    /// Returns whether an API server sent the text.
    pub(crate) fn is_of_cluster(&self) -> bool {
        self.of_cluster
    }

    /// Makes a text with its name in messages. It must be smaller than 4 GiB, which the loader ensures.
    pub(crate) fn new(name: Name, text: String) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i as u32 + 1);
        let lines = std::iter::once(0).chain(newlines).collect();
        Self { name, text, lines, of_cluster: false }
    }

    /// Returns the name in messages.
    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    /// Returns the text.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns line and column of a byte. `O(log lines + length of the line)`.
    pub(crate) fn origin(&self, at: u32) -> Origin {
        if self.of_cluster {
            return Origin { file: self.name.clone(), line: 0, column: 0 };
        }
        let line = self.lines.partition_point(|&start| start <= at).max(1);
        let start = self.lines[line - 1] as usize;
        let column = self.text.get(start..at as usize).map_or(0, |s| s.chars().count());
        Origin { file: self.name.clone(), line: line as u32, column: column as u32 + 1 }
    }

    /// Returns the line on which `span` begins, shortened if it is long.
    pub(crate) fn excerpt(&self, span: Range<u32>) -> Excerpt {
        let line = self.lines.partition_point(|&start| start <= span.start).max(1) - 1;
        let from = self.lines[line] as usize;
        let to = self.lines.get(line + 1).map_or(self.text.len(), |&end| end as usize);
        let (start, end) = (span.start as usize, (span.end as usize).min(to));
        let cut_from = self.boundary(from.max(start.saturating_sub(MARGIN)));
        let cut_to = self.boundary(to.min(end.clamp(start, start + MARGIN) + MARGIN));
        Excerpt {
            text: self.text[cut_from..cut_to.max(cut_from)].trim_end().to_owned(),
            line: line as u32 + 1,
            start: cut_from as u32,
        }
    }

    fn boundary(&self, mut at: usize) -> usize {
        at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

/// The line of a file that a diagnostic shows, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The text, without trailing space.
    pub text: String,
    /// The line number.
    pub line: u32,
    /// The offset of the text in the file, in bytes.
    pub start: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_in_characters() {
        let text = Text::new("f".into(), "a: é\nbb: c\n".to_owned());
        let at = |byte| {
            let s = text.origin(byte);
            (s.line, s.column)
        };
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(5), (1, 5), "after the two bytes of é");
        assert_eq!(at(6), (2, 1));
        assert_eq!(at(10), (2, 5));
        assert_eq!(at(12), (3, 1));
    }

    #[test]
    fn excerpts_of_long_lines_are_bounded_and_contain_the_span() {
        let text = Text::new("f".into(), "ü".repeat(100_000));
        let excerpt = text.excerpt(100_000..100_002);
        assert!(excerpt.text.len() <= 3 * MARGIN, "{}", excerpt.text.len());
        assert!(excerpt.start <= 100_000 && excerpt.start as usize + excerpt.text.len() >= 100_002);
        assert_eq!(Text::new("f".into(), String::new()).excerpt(0..0).text, "");
    }
}

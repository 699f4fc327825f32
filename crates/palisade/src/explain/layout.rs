//! Finds and changes items of lists and fields of objects in the text of YAML or JSON.

use std::{borrow::Cow, ops::Range};

use palisade_policy::Origin;
use serde_json::Value;

use super::manifest;

/// A text and where its lines begin.
pub(crate) struct Layout<'t> {
    text: &'t str,
    lines: Vec<usize>,
}

/// An item of a list.
enum Item {
    /// In block style: whole lines, of which the first one has the dash in this column.
    Block { range: Range<usize>, indent: usize },
    /// In brackets: the bytes of the value.
    Flow(Range<usize>),
}

/// The most places at which one word is replaced for a try.
const MAX_TRIES: usize = 16;

impl<'t> Layout<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        let starts = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, lines: [0].into_iter().chain(starts).collect() }
    }

    /// Returns the first byte of a position. Columns are counted in characters.
    fn offset(&self, origin: &Origin) -> Option<usize> {
        let start = *self.lines.get((origin.line as usize).checked_sub(1)?)?;
        let mut characters = self.text[start..].char_indices();
        let (within, _) = characters.nth((origin.column as usize).checked_sub(1)?)?;
        Some(start + within)
    }

    fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |end| end + 1)
    }

    /// Returns the end of a line, with its line feed.
    fn line_end(&self, at: usize) -> usize {
        self.text[at..].find('\n').map_or(self.text.len(), |end| at + end + 1)
    }

    fn item(&self, origin: &Origin) -> Option<Item> {
        let at = self.offset(origin)?;
        let start = self.line_start(at);
        let before = &self.text[start..at];
        if before.trim() == "-" {
            let indent = before.len() - before.trim_start().len();
            return Some(Item::Block { range: start..self.block_end(start, indent), indent });
        }
        Some(Item::Flow(at..self.flow_end(at)?))
    }

    /// Returns the end of a block that begins in the line at `start`: its lines are indented further.
    fn block_end(&self, start: usize, indent: usize) -> usize {
        let mut end = self.line_end(start);
        let mut next = end;
        while next < self.text.len() {
            let line_end = self.line_end(next);
            let line = &self.text[next..line_end];
            let (trimmed, own) = (line.trim(), line.len() - line.trim_start_matches(' ').len());
            if !trimmed.is_empty() && own <= indent {
                break;
            }
            // Trailing blank lines and comments belong to what follows.
            if !trimmed.is_empty() && !trimmed.starts_with('#') {
                end = line_end;
            }
            next = line_end;
        }
        end
    }

    /// Returns the end of a mapping or list in brackets.
    fn flow_end(&self, start: usize) -> Option<usize> {
        let bytes = self.text.as_bytes();
        if !matches!(bytes.get(start), Some(b'{' | b'[')) {
            return None;
        }
        let (mut depth, mut quote) = (0_usize, None);
        let mut at = start;
        while at < bytes.len() {
            match (quote, bytes[at]) {
                (Some(b'"'), b'\\') => at += 1,
                (Some(open), byte) if byte == open => quote = None,
                (Some(_), _) => {}
                (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
                (None, b'{' | b'[') => depth += 1,
                (None, b'}' | b']') => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(at + 1);
                    }
                }
                (None, _) => {}
            }
            at += 1;
        }
        None
    }

    /// Returns the bytes of an item.
    pub(crate) fn item_range(&self, origin: &Origin) -> Option<Range<usize>> {
        match self.item(origin)? {
            Item::Block { range, .. } | Item::Flow(range) => Some(range),
        }
    }

    /// Returns the bytes of the document that begins at a position.
    pub(crate) fn document(&self, origin: &Origin) -> Range<usize> {
        let start = self.offset(origin).unwrap_or(0);
        let end = self.text[start..].find("\n---").map_or(self.text.len(), |end| start + end + 1);
        start..end
    }

    fn with(&self, range: Range<usize>, new: &str) -> String {
        format!("{}{new}{}", &self.text[..range.start], &self.text[range.end..])
    }

    pub(crate) fn inserted_before(&self, origin: &Origin, items: &[Value]) -> Option<String> {
        Some(match self.item(origin)? {
            Item::Block { range, indent } => self.with(range.start..range.start, &block(items, indent)),
            Item::Flow(range) => self.with(range.start..range.start, &format!("{}, ", flow(items))),
        })
    }

    pub(crate) fn inserted_after(&self, origin: &Origin, items: &[Value]) -> Option<String> {
        Some(match self.item(origin)? {
            Item::Block { range, indent } => {
                let text = block(items, indent);
                let text = if self.text[..range.end].ends_with('\n') {
                    text
                } else {
                    format!("\n{}", text.trim_end_matches('\n'))
                };
                self.with(range.end..range.end, &text)
            }
            Item::Flow(range) => self.with(range.end..range.end, &format!(", {}", flow(items))),
        })
    }

    pub(crate) fn replaced(&self, origin: &Origin, items: &[Value]) -> Option<String> {
        Some(match self.item(origin)? {
            Item::Block { range, indent } => {
                let text = block(items, indent);
                let ends = self.text[..range.end].ends_with('\n');
                let text = if ends { &*text } else { text.trim_end_matches('\n') };
                self.with(range, text)
            }
            Item::Flow(range) => self.with(range, &flow(items)),
        })
    }

    /// Removes items of one list, which are sorted.
    pub(crate) fn removed(&self, origins: &[&Origin]) -> Option<String> {
        let mut text = Cow::Borrowed(self.text);
        // From the last to the first, so that positions stay valid.
        for origin in origins.iter().rev() {
            let layout = Layout::new(&text);
            let range = match layout.item(origin)? {
                Item::Block { range, .. } => range,
                Item::Flow(range) => layout.with_comma(range),
            };
            text = Cow::Owned(layout.with(range, ""));
        }
        Some(text.into_owned())
    }

    /// Extends an item in brackets by the comma that separates it from a neighbor.
    fn with_comma(&self, range: Range<usize>) -> Range<usize> {
        let after = &self.text[range.end..];
        let space = after.len() - after.trim_start().len();
        if after[space..].starts_with(',') {
            let behind = &after[space + 1..];
            let next = behind.len() - behind.trim_start_matches(' ').len();
            return range.start..range.end + space + 1 + next;
        }
        let before = self.text[..range.start].trim_end();
        if before.ends_with(',') { before.len() - 1..range.end } else { range }
    }

    /// Replaces a list in block style, all of whose items are given, by `[]`. `head` is the line above the first item.
    pub(crate) fn emptied(&self, head: &str, origins: &[&Origin]) -> Option<String> {
        let (Item::Block { range: first, .. }, Item::Block { range: last, .. }) =
            (self.item(origins.first()?)?, self.item(origins.last()?)?)
        else {
            return None;
        };
        let mut line = first.start;
        while line > 0 {
            line = self.line_start(line - 1);
            let text = &self.text[line..self.line_end(line)];
            if text.trim() == head {
                let indent = text.len() - text.trim_start().len();
                return Some(self.with(line..last.end, &format!("{:indent$}{head} []\n", "")));
            }
        }
        None
    }

    /// Replaces a whole word within a range: one text for each place.
    pub(crate) fn substituted(&self, range: Range<usize>, old: &str, new: &str) -> Vec<String> {
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        let part = &self.text[range.clone()];
        let whole = |at: &usize| {
            let (before, after) = (&part[..*at], &part[at + old.len()..]);
            !before.ends_with(is_word) && !after.starts_with(is_word)
        };
        let places = part.match_indices(old).map(|(at, _)| at).filter(whole).take(MAX_TRIES);
        let at = |at: usize| range.start + at..range.start + at + old.len();
        places.map(|place| self.with(at(place), new)).collect()
    }

    /// Inserts a line with the same indentation behind each line with this text.
    pub(crate) fn lines_after(&self, range: Range<usize>, line: &str, new: &str) -> Vec<String> {
        let mut out = Vec::new();
        let mut start = range.start;
        while start < range.end && out.len() < MAX_TRIES {
            let end = self.line_end(start);
            let text = &self.text[start..end];
            if text.trim() == line {
                let indent = text.len() - text.trim_start().len();
                out.push(self.with(end..end, &format!("{:indent$}{new}\n", "")));
            }
            start = end;
        }
        out
    }

    /// Adds fields to the beginning of an object.
    pub(crate) fn with_field(&self, origin: &Origin, fields: &Value) -> Option<String> {
        let at = self.offset(origin)?;
        if self.text[at..].starts_with('{') {
            let inner = flow(std::slice::from_ref(fields));
            let inner = inner.strip_prefix('{')?.strip_suffix('}')?;
            let comma = if self.text[at + 1..].trim_start().starts_with('}') { "" } else { ", " };
            return Some(self.with(at + 1..at + 1, &format!("{inner}{comma}")));
        }
        let start = self.line_start(at);
        let indent = at - start;
        self.text[start..at].trim().is_empty().then(|| {
            let text: String =
                manifest::yaml(fields).lines().map(|line| format!("{:indent$}{line}\n", "")).collect();
            self.with(start..start, &text)
        })
    }
}

fn block(items: &[Value], indent: usize) -> String {
    manifest::yaml(&Value::from(items.to_vec()))
        .lines()
        .map(|line| format!("{:indent$}{line}\n", ""))
        .collect()
}

/// Renders items for brackets. JSON is YAML in flow style.
fn flow(items: &[Value]) -> String {
    items.iter().map(spaced).collect::<Vec<_>>().join(", ")
}

/// Renders a value as JSON with a space after commas and colons, as people write flow style.
fn spaced(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("[{}]", list.iter().map(spaced).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let field =
                |(key, value): (&String, &Value)| format!("{}: {}", Value::from(&**key), spaced(value));
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        scalar => scalar.to_string(),
    }
}

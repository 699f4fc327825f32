//! What kubectl and the API server read as JSON and what is not YAML: a stream of objects, as several `kubectl get -o json` write
//! them, and characters that JSON allows in strings and YAML nowhere.

use std::{fmt::Write as _, ops::Range};

use serde::de::IgnoredAny;

/// A JSON text in which escapes stand for what YAML doesn't allow.
pub(super) struct Escaped {
    pub(super) text: String,
    /// Where each escape begins in `text`, and by how many bytes more than in the original what follows it does.
    escapes: Vec<(usize, usize)>,
}

impl Escaped {
    /// Returns where a position of the text is in the original. `O(log escapes)`.
    pub(super) fn original(&self, at: usize) -> usize {
        let before = self.escapes.partition_point(|(start, _)| *start < at);
        let Some((start, moved)) = before.checked_sub(1).map(|last| self.escapes[last]) else { return at };
        if at >= start + ESCAPE {
            return at - moved;
        }
        // Within an escape.
        start - before.checked_sub(2).map_or(0, |last| self.escapes[last].1)
    }
}

/// The length of an escape, as `\u0082`.
const ESCAPE: usize = 6;

/// Escapes what YAML doesn't allow. `None` if there is none of it, or the text isn't JSON: kubectl refuses such a text too.
/// `O(bytes)`.
pub(super) fn escaped(text: &str) -> Option<Escaped> {
    if !text.contains(is_no_yaml)
        || !text.trim_start().starts_with(['{', '['])
        || serde_json::from_str::<IgnoredAny>(text).is_err()
    {
        return None;
    }
    let (mut out, mut escapes) = (String::with_capacity(text.len() + 64), Vec::new());
    for (at, c) in text.char_indices() {
        if is_no_yaml(c) {
            let start = out.len();
            _ = write!(out, "\\u{:04x}", u32::from(c));
            escapes.push((start, out.len() - at - c.len_utf8()));
        } else {
            out.push(c);
        }
    }
    Some(Escaped { text: out, escapes })
}

/// Whether YAML doesn't allow a character that JSON allows in strings (YAML 1.2.2, `c-printable`).
fn is_no_yaml(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{84}' | '\u{86}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}')
}

/// Returns the range of each object in a stream. `None` if the text is no stream of at least two objects, and so is
/// read as YAML, of which a single JSON object is a subset. `O(bytes)`.
pub(super) fn stream(text: &str) -> Option<Vec<Range<usize>>> {
    let bytes = text.as_bytes();
    let mut values = Vec::new();
    let mut at = 0;
    loop {
        at += bytes[at..].iter().take_while(|b| b.is_ascii_whitespace()).count();
        if at == bytes.len() {
            return (values.len() > 1).then_some(values);
        }
        let end = object_end(bytes, at)?;
        values.push(at..end);
        at = end;
    }
}

/// Returns where the object that begins at `start` ends. Only strings and brackets are checked.
fn object_end(bytes: &[u8], start: usize) -> Option<usize> {
    if bytes[start] != b'{' {
        return None;
    }
    let (mut depth, mut in_string, mut at) = (0usize, false, start);
    while let Some(byte) = bytes.get(at) {
        match (in_string, byte) {
            (true, b'\\') => at += 1,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_in_an_escaped_text_are_those_of_the_original() {
        let text = "{\"a\u{7f}b\": \"\u{82}\u{ffff}\", \"c\u{85}\": \"d\u{9f}\"}";
        let escaped = escaped(text).unwrap();
        assert_eq!(escaped.text, "{\"a\\u007fb\": \"\\u0082\\uffff\", \"c\u{85}\": \"d\\u009f\"}");
        for part in ["{", "b", ": ", ", ", "c\u{85}", "d", "}"] {
            assert_eq!(
                escaped.original(escaped.text.find(part).unwrap()),
                text.find(part).unwrap(),
                "{part}"
            );
        }
        assert_eq!(escaped.original(escaped.text.len()), text.len());
        let second = escaped.text.find("\\uffff").unwrap();
        for within in 0..ESCAPE {
            assert_eq!(escaped.original(second + within), text.find('\u{ffff}').unwrap(), "{within}");
        }
    }

    #[test]
    fn only_json_is_escaped() {
        for other in [
            "{\"a\": \"b\"}",
            "a: \u{82}",
            "{a: \"\u{82}\"}",
            "\"\u{82}\"",
            "{\"a\": 1}\u{82}",
            "{\"a\": \u{82}}",
        ] {
            assert!(escaped(other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn only_streams_of_several_objects_are_streams() {
        let text = "{\"a\": \"}\\\"{\"}\n{\"b\": [{}]}{}\n";
        let values: Vec<&str> = stream(text).unwrap().into_iter().map(|r| &text[r]).collect();
        assert_eq!(values, ["{\"a\": \"}\\\"{\"}", "{\"b\": [{}]}", "{}"]);
        for other in ["", " ", "{}", "{}{", "{}\n---\n{}", "a: b", "[]{}", "{\"", "{{ x }}", "{\"\\", "}{"] {
            assert_eq!(stream(other), None, "{other}");
        }
    }
}

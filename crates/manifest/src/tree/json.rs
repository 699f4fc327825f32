//! JSON values one after the other, as several `kubectl get -o json` write them. kubectl reads such a stream; YAML has no
//! word for it.

use std::ops::Range;

/// Where each value of a stream of JSON objects stands. `None` if the text isn't such a stream of at least two: then it is
/// read as YAML, of which a single JSON object is a part. `O(bytes)`.
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

/// Where the object that begins at `start` ends. Nothing is checked but strings and brackets.
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
    fn streams_are_told_from_everything_else() {
        let text = "{\"a\": \"}\\\"{\"}\n{\"b\": [{}]}{}\n";
        let values: Vec<&str> = stream(text).unwrap().into_iter().map(|r| &text[r]).collect();
        assert_eq!(values, ["{\"a\": \"}\\\"{\"}", "{\"b\": [{}]}", "{}"]);
        for other in ["", " ", "{}", "{}{", "{}\n---\n{}", "a: b", "[]{}", "{\"", "{{ x }}", "{\"\\", "}{"] {
            assert_eq!(stream(other), None, "{other}");
        }
    }
}

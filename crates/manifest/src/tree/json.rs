//! Finds the values of a JSON stream, as several `kubectl get -o json` write them. kubectl reads such a stream, but it
//! is not YAML.

use std::ops::Range;

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
    fn only_streams_of_several_objects_are_streams() {
        let text = "{\"a\": \"}\\\"{\"}\n{\"b\": [{}]}{}\n";
        let values: Vec<&str> = stream(text).unwrap().into_iter().map(|r| &text[r]).collect();
        assert_eq!(values, ["{\"a\": \"}\\\"{\"}", "{\"b\": [{}]}", "{}"]);
        for other in ["", " ", "{}", "{}{", "{}\n---\n{}", "a: b", "[]{}", "{\"", "{{ x }}", "{\"\\", "}{"] {
            assert_eq!(stream(other), None, "{other}");
        }
    }
}

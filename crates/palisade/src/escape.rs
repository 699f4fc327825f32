//! Text put into another language so that it stays text there. Names come from manifests and files, and may hold anything.

use std::borrow::Cow;

/// For terminals and plain text: control characters and marks that turn the direction of writing become visible escapes.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(odd) {
        return Cow::Borrowed(text);
    }
    let one = |c: char| if odd(c) { c.escape_unicode().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(one).collect())
}

fn mapped<'a>(text: &'a str, map: impl Fn(char) -> Option<&'static str>) -> Cow<'a, str> {
    let text = plain(text);
    if !text.contains(|c| map(c).is_some()) {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match map(c) {
            Some(escape) => out.push_str(escape),
            None => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// For text and attribute values of HTML and SVG.
pub(crate) fn markup(text: &str) -> Cow<'_, str> {
    mapped(text, |c| match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        '\'' => Some("&#39;"),
        _ => None,
    })
}

/// For a double-quoted string of DOT.
pub(crate) fn dot(text: &str) -> Cow<'_, str> {
    mapped(text, |c| match c {
        '"' => Some("\\\""),
        '\\' => Some("\\\\"),
        _ => None,
    })
}

/// For a double-quoted label of Mermaid, which knows no backslash and takes HTML: everything that means something in
/// either becomes Mermaid's own numbered entity.
pub(crate) fn mermaid(text: &str) -> Cow<'_, str> {
    mapped(text, |c| match c {
        '"' => Some("#34;"),
        '#' => Some("#35;"),
        '&' => Some("#38;"),
        '\'' => Some("#39;"),
        '*' => Some("#42;"),
        ';' => Some("#59;"),
        '<' => Some("#60;"),
        '>' => Some("#62;"),
        '[' => Some("#91;"),
        '\\' => Some("#92;"),
        ']' => Some("#93;"),
        '_' => Some("#95;"),
        '`' => Some("#96;"),
        '|' => Some("#124;"),
        _ => None,
    })
}

/// For a cell of a Markdown table.
pub(crate) fn markdown(text: &str) -> Cow<'_, str> {
    mapped(text, |c| match c {
        '\\' => Some("\\\\"),
        '|' => Some("\\|"),
        '`' => Some("\\`"),
        '*' => Some("\\*"),
        '_' => Some("\\_"),
        '[' => Some("\\["),
        ']' => Some("\\]"),
        '~' => Some("\\~"),
        '@' => Some("&#64;"),
        '#' => Some("&#35;"),
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    })
}

/// A field of CSV (RFC 4180). A spreadsheet would run a field that begins like a formula: those get an apostrophe.
pub(crate) fn csv(text: &str) -> Cow<'_, str> {
    let text = plain(text);
    let formula = text.starts_with(['=', '+', '-', '@']);
    let quoted = text.contains(['"', ',']) || text.starts_with(' ') || text.ends_with(' ');
    match (formula, quoted) {
        (false, false) => text,
        (true, false) => Cow::Owned(format!("'{text}")),
        (formula, true) => {
            Cow::Owned(format!("\"{}{}\"", if formula { "'" } else { "" }, text.replace('"', "\"\"")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_its_quotes() {
        let hostile = "</title><script>\"x'&|`[a](b)\\\u{1b}[31m\n#;\u{202e}";
        for (escaped, forbidden) in [
            (markup(hostile), "<>\"'"),
            (mermaid(hostile), "<>\"`|[]\\'&"),
            (plain(hostile), ""),
            (markdown(hostile), "<>"),
        ] {
            assert!(!escaped.contains(|c: char| forbidden.contains(c)), "{escaped}");
            assert!(!escaped.contains(|c: char| c.is_control() || c == '\u{202e}'), "{escaped}");
        }
        assert_eq!(dot("a\"b\\"), "a\\\"b\\\\");
        assert_eq!(markdown("a|b"), "a\\|b");
    }

    #[test]
    fn csv_fields_are_quoted_and_no_formulas() {
        assert_eq!(csv("web"), "web");
        assert_eq!(csv("a,b"), "\"a,b\"");
        assert_eq!(csv("say \"x\""), "\"say \"\"x\"\"\"");
        assert_eq!(csv("=1+1"), "'=1+1");
        assert_eq!(csv("=\"x\""), "\"'=\"\"x\"\"\"");
    }
}

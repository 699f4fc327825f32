//! Escapes text for terminals and for output formats. Names come from manifests and files and may have any character.

use std::borrow::Cow;

/// Escapes a text for terminals and plain text: control characters and bidirectional marks become visible escapes.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    palisade_manifest::printable(text)
}

/// Escapes a finished text for a terminal: only line breaks, tabs and colors pass unescaped, and what patches of files from
/// Windows need: `\r\n`, and the byte order mark in the first column of a changed file. This is the last line of defense: names
/// must be made [`plain`] where they are inserted, because a name may contain colors too.
pub(crate) fn terminal(text: &str) -> Cow<'_, str> {
    let is_odd = |c: char| palisade_manifest::needs_escape(c) && !matches!(c, '\n' | '\t');
    if !text.contains(is_odd) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = rest.find(is_odd) {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let in_patch = || {
            let first = out.strip_suffix([' ', '+', '-']).is_some_and(|before| before.ends_with('\n'));
            let passes = |prefix: &str| after.starts_with(prefix).then_some(prefix.len());
            passes("\r\n").or_else(|| passes("\u{feff}").filter(|_| first))
        };
        if let Some(length) = color(after).or_else(in_patch) {
            out.push_str(&after[..length]);
            rest = &after[length..];
            continue;
        }
        let mut characters = after.chars();
        out.extend(characters.next().into_iter().flat_map(char::escape_unicode));
        rest = characters.as_str();
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Returns the length of the color (ECMA-48 SGR) at the beginning of a text.
fn color(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    // 8 conceals text, so it is not accepted; an 8 after a 5 is one of 256 colors.
    let numbers: Vec<&str> = parameters[..end].split(';').collect();
    let conceals = numbers.iter().enumerate().any(|(at, n)| {
        n.trim_start_matches('0') == "8" && (at == 0 || numbers[at - 1].trim_start_matches('0') != "5")
    });
    (parameters[end..].starts_with('m') && !conceals).then_some(2 + end + 1)
}

/// Escapes JSON for a terminal with JSON's own escapes. Apart from line breaks, such characters occur only in strings.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    let is_odd = |c: char| palisade_manifest::needs_escape(c) && c != '\n';
    if !text.contains(is_odd) {
        return Cow::Borrowed(text);
    }
    // All of them are in the basic multilingual plane.
    let one = |c: char| if is_odd(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
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

/// Escapes text and attribute values of HTML and SVG.
pub(crate) fn markup(text: &str) -> Cow<'_, str> {
    mapped(text, |c| match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        '\'' => Some("&#39;"),
        // XML has no way to write them.
        '\u{fffe}' => Some("\\u{fffe}"),
        '\u{ffff}' => Some("\\u{ffff}"),
        _ => None,
    })
}

/// Escapes a double-quoted string of DOT.
pub(crate) fn dot(text: &str) -> Cow<'_, str> {
    mapped(text, |c| match c {
        '"' => Some("\\\""),
        '\\' => Some("\\\\"),
        _ => None,
    })
}

/// Escapes a double-quoted label of Mermaid, which has no backslash escapes and interprets HTML: characters with a meaning
/// in either become Mermaid's numbered entities. Mermaid also looks for settings (`%%{…}`) anywhere in the text, before it
/// reads labels.
pub(crate) fn mermaid(text: &str) -> Cow<'_, str> {
    mapped(text, |c| match c {
        '"' => Some("#34;"),
        '#' => Some("#35;"),
        '%' => Some("#37;"),
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
        // XML has no way to write them, and what is drawn is SVG.
        '\u{fffe}' => Some("\\u{fffe}"),
        '\u{ffff}' => Some("\\u{ffff}"),
        _ => None,
    })
}

/// Escapes text for a line of Markdown or a cell of a table.
///
/// GitHub and GitLab look for mentions, references and addresses in the finished HTML, where an escaped character is the
/// character again. So these are divided by a space without width.
pub(crate) fn markdown(text: &str) -> Cow<'_, str> {
    let text = plain(text);
    if !text.contains(|c: char| markdown_character(c).is_some() || ":.-%^".contains(c)) {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 16);
    for (at, c) in text.char_indices() {
        match markdown_character(c) {
            Some(escape) => out.push_str(escape),
            None => out.push(c),
        }
        let next = at + c.len_utf8();
        if is_reference(&text[..next], &text[next..]) {
            out.push_str("&#8203;");
        }
    }
    Cow::Owned(out)
}

/// The escape of a character that Markdown or HTML interprets.
fn markdown_character(c: char) -> Option<&'static str> {
    Some(match c {
        '\\' => "\\\\",
        '|' => "\\|",
        '`' => "\\`",
        '*' => "\\*",
        '_' => "\\_",
        '[' => "\\[",
        ']' => "\\]",
        '~' => "\\~",
        '!' => "\\!",
        '$' => "&#36;",
        '@' => "&#64;",
        '#' => "&#35;",
        '&' => "&amp;",
        '<' => "&lt;",
        '>' => "&gt;",
        _ => return None,
    })
}

/// Whether a mention (`@name`), a reference (`#1`, `!1`, `GH-1`) or an address (`https://`, `www.`) would go on here.
fn is_reference(before: &str, after: &str) -> bool {
    let ends_with = |word: &str| {
        let start = before.len().checked_sub(word.len()).and_then(|start| before.get(start..));
        start.is_some_and(|end| end.eq_ignore_ascii_case(word))
    };
    if before.ends_with('@') || ends_with("www.") {
        return true;
    }
    let begins = |c: char| c.is_alphanumeric() || matches!(c, '"' | '_');
    (before.ends_with(['#', '!', '$', '%', '~', '&', '^']) && after.starts_with(begins))
        || (before.ends_with(':') && after.starts_with("//"))
        || (ends_with("gh-") && after.starts_with(|c: char| c.is_ascii_digit()))
}

/// Escapes a field of CSV (RFC 4180). A field that a spreadsheet would evaluate as a formula gets an apostrophe in front.
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
            (mermaid("%%{init: {}}%%\nclick a call b()\nend"), "%\n"),
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
    fn nothing_in_a_comment_is_a_mention_a_reference_or_an_address() {
        for (text, divided) in [
            ("@everyone", "&#64;&#8203;everyone"),
            ("a@b.example", "&#64;&#8203;b.example"),
            ("owner/repo#1", "&#35;&#8203;1"),
            ("!1", "\\!&#8203;1"),
            ("&1", "&amp;&#8203;1"),
            ("%\"a\"", "%&#8203;\"a"),
            ("GH-1", "GH-&#8203;1"),
            ("https://evil.example", "https:&#8203;//evil"),
            ("WWW.evil.example", "WWW.&#8203;evil"),
        ] {
            let escaped = markdown(text);
            assert!(escaped.contains(divided), "{escaped}");
        }
        assert_eq!(markdown("deploy/web.yaml:12 TCP 1-79"), "deploy/web.yaml:12 TCP 1-79");
    }

    #[test]
    fn a_terminal_gets_lines_and_colors_and_nothing_else_to_obey() {
        let ours = "\u{1b}[1;32mgood\u{1b}[0m\n\ta line";
        assert_eq!(terminal(ours), ours);
        let hostile = "a\u{1b}[2J\u{1b}]0;title\u{7}b\r\u{9b}31m\u{202e}\u{1b}[8mhidden\u{1b}[0;08m\u{1b}[";
        let shown = terminal(hostile);
        assert!(!shown.contains(palisade_manifest::needs_escape), "{shown}");
        assert!(shown.starts_with("a\\u{1b}[2J"), "{shown}");
        let text = serde_json::to_string(&["x\u{9b}\u{202e}\n\u{1b}"]).unwrap();
        let shown = json(&text);
        assert!(!shown.contains(palisade_manifest::needs_escape), "{shown}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&shown).unwrap(), ["x\u{9b}\u{202e}\n\u{1b}"]);
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

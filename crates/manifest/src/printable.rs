//! Makes text from objects, files and the kernel safe to print, since names may hold any character.

use std::borrow::Cow;

/// Returns whether a character must be escaped: control characters, the marks of bidirectional text, and separators
/// that some programs treat as line ends.
#[must_use]
pub fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

/// Returns the text with such characters escaped, as in `\u{1b}`. `O(text)`.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(needs_escape) {
        return Cow::Borrowed(text);
    }
    let one = |c: char| if needs_escape(c) { c.escape_unicode().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(one).collect())
}

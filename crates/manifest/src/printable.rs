//! Text from objects, files and the kernel, made safe to show: names may hold anything.

use std::borrow::Cow;

/// Whether a character moves the cursor, hides text or turns the direction of writing: control characters and the marks of
/// bidirectional text, and separators that some programs take for line ends.
#[must_use]
pub fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

/// One line of text in which such characters are visible escapes: `\u{1b}`. `O(text)`.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(needs_escape) {
        return Cow::Borrowed(text);
    }
    let one = |c: char| if needs_escape(c) { c.escape_unicode().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(one).collect())
}

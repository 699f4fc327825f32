//! Texts of a runtime that are logged or answered.

/// Bytes of a text that is logged. Longer ones are cut.
const MAX_TEXT: usize = 256;

/// Cuts a text that is longer than any that is meant.
pub(crate) fn shortened(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push('…');
    }
    text
}

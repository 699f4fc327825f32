//! Line ends and byte order marks of files that are edited: many files from Windows have `\r\n`, and a mark.
//!
//! Edits are made in a text without a mark whose lines end with `\n`. Afterwards the lines that were not edited get their own
//! ends back, and new ones those that most lines of the file have, so that a patch changes nothing else.

use similar::{ChangeTag, TextDiff};

/// The byte order mark.
const MARK: char = '\u{feff}';

/// Returns a text with `\n` at the end of each line, without a byte order mark.
pub(crate) fn unified(text: &str) -> String {
    text.strip_prefix(MARK).unwrap_or(text).replace("\r\n", "\n")
}

/// Returns an edited text with the line ends and the byte order mark of the text before. `after` may have any line ends, and
/// has no mark.
pub(crate) fn kept(before: &str, after: &str) -> String {
    match before.strip_prefix(MARK) {
        Some(before) => format!("{MARK}{}", with_ends(before, after)),
        None => with_ends(before, after),
    }
}

fn with_ends(before: &str, after: &str) -> String {
    let with_return = before.matches("\r\n").count();
    if with_return == 0 {
        return after.to_owned();
    }
    let is_usual = 2 * with_return > before.matches('\n').count();
    let lines: Vec<&str> = before.split_inclusive('\n').collect();
    let (old, new) = (unified(before), unified(after));
    let old: Vec<&str> = old.split_inclusive('\n').collect();
    let new: Vec<&str> = new.split_inclusive('\n').collect();
    let diff = TextDiff::from_slices(&old, &new);
    let mut out = String::with_capacity(after.len() + lines.len());
    for change in diff.iter_all_changes() {
        match (change.tag(), change.old_index()) {
            (ChangeTag::Equal, Some(at)) => out.push_str(lines[at]),
            (ChangeTag::Delete, _) => {}
            _ => match change.value().strip_suffix('\n').filter(|_| is_usual) {
                Some(line) => {
                    out.push_str(line);
                    out.push_str("\r\n");
                }
                None => out.push_str(change.value()),
            },
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_ends_and_new_ones_get_the_usual() {
        for (before, after, expected) in [
            ("a\nb\n", "a\nx\nb\n", "a\nx\nb\n"),
            ("a\r\nb\r\n", "a\nx\nb\n", "a\r\nx\r\nb\r\n"),
            ("a\r\nb\r\n", "a\r\nx\nb\r\n", "a\r\nx\r\nb\r\n"),
            ("a\r\nb\r\nc\n", "a\nx\nb\nc\n", "a\r\nx\r\nb\r\nc\n"),
            ("a\nb\nc\r\n", "a\nb\nx\nc\n", "a\nb\nx\nc\r\n"),
            // The last line has no end.
            ("a\r\nb", "a\nb\nx\n", "a\r\nb\r\nx\r\n"),
            ("a\r\nb", "a\nx\nb", "a\r\nx\r\nb"),
            ("a\r\nb\r\n", "b\n", "b\r\n"),
            ("\u{feff}a\nb\n", "x\na\nb\n", "\u{feff}x\na\nb\n"),
            ("\u{feff}a\r\n", "a\nx\n", "\u{feff}a\r\nx\r\n"),
        ] {
            assert_eq!(kept(before, after), expected, "{before:?} {after:?}");
        }
    }
}

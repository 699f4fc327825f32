//! A page of limited size.

use std::fmt::Write as _;

/// A page, which takes parts as long as they fit, and counts what it leaves out.
pub(super) struct Page {
    text: String,
    size: usize,
    limit: Option<usize>,
    /// A heading that is written with the first part below it.
    heading: Option<String>,
    /// What was left out, in words, and how much of it.
    left_out: Vec<(&'static str, usize)>,
}

/// The size that is kept for the sentence about what was left out.
const RESERVE: usize = 300;

impl Page {
    /// Returns a page that has its beginning only.
    pub(super) fn new(beginning: String, limit: Option<usize>) -> Self {
        let size = size(&beginning);
        Self { text: beginning, size, limit, heading: None, left_out: Vec::new() }
    }

    /// Begins a section, which has its heading if it has a part.
    pub(super) fn section(&mut self, heading: &str) {
        self.heading = Some(heading.to_owned());
    }

    /// Adds a part that stands for `count` things, if it fits.
    pub(super) fn add(&mut self, things: &'static str, count: usize, part: &str) {
        self.add_first(things, count, [(part.to_owned(), 0)].into_iter());
    }

    /// Adds the first of several forms of a part that fits. Each comes with how many of the `count` things it leaves out.
    pub(super) fn add_first(
        &mut self,
        things: &'static str,
        count: usize,
        mut forms: impl Iterator<Item = (String, usize)>,
    ) {
        let mut heading = self.heading.as_deref().unwrap_or_default();
        if self.text.ends_with("\n\n") {
            heading = heading.trim_start_matches('\n');
        }
        let before = self.size + size(heading);
        let fits = |part: &str| self.limit.is_none_or(|limit| before + size(part) + RESERVE <= limit);
        let missing = match forms.find(|(part, _)| fits(part)) {
            Some((part, missing)) => {
                self.text.push_str(heading);
                self.text.push_str(&part);
                self.size = before + size(&part);
                self.heading = None;
                missing
            }
            None => count,
        };
        if missing > 0 {
            match self.left_out.iter_mut().find(|(known, _)| *known == things) {
                Some((_, all)) => *all += missing,
                None => self.left_out.push((things, missing)),
            }
        }
    }

    /// Returns the text, with what was left out.
    pub(super) fn finish(mut self) -> String {
        let parts: Vec<String> =
            self.left_out.iter().map(|(things, count)| format!("{things}: {count}")).collect();
        if !parts.is_empty() {
            _ = writeln!(
                self.text,
                "\nLeft out, as it does not fit in {} characters: {}. `palisade review` without --max-size prints all.",
                self.limit.unwrap_or_default(),
                parts.join(", ")
            );
        }
        self.text
    }
}

/// The size of a text in UTF-16 code units, which is at least its number of characters: it isn't documented which of them
/// GitHub and GitLab count.
fn size(text: &str) -> usize {
    text.encode_utf16().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        let mut page = Page::new("begin\n".to_owned(), Some(400));
        page.section("heading\n");
        page.add_first("rows", 9, [("x".repeat(500), 0), ("few\n".to_owned(), 7)].into_iter());
        page.add("findings", 1, &"y".repeat(500));
        page.add("findings", 1, &"y".repeat(500));
        page.section("nothing below\n");
        page.add("notes", 1, &"z".repeat(500));
        let text = page.finish();
        assert!(text.starts_with("begin\nheading\nfew\n\nLeft out, "), "{text}");
        assert!(text.contains(": rows: 7, findings: 2, notes: 1. "), "{text}");
        assert!(!text.contains("nothing below") && size(&text) <= 400, "{text}");
        assert_eq!(Page::new("a".to_owned(), None).finish(), "a");
    }
}

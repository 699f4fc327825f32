//! A review for a terminal.

use palisade_manifest::printable;

use super::{
    Reviewed,
    page::Page,
    summary::{self, Summary},
};
use crate::{
    assertions::{self, AssertionChange, Status},
    diff, lint,
    output::{Style, styled},
};

/// The numbers of rows of a group that are tried until one fits.
const ROWS: [usize; 5] = [usize::MAX, 200, 50, 20, 5];

/// Returns the page.
pub(super) fn page(reviewed: &Reviewed<'_>, limit: Option<usize>) -> String {
    let [before, after] = reviewed.names;
    let range = styled(Style::Strong, &format!("{} → {}:", printable(before), printable(after)));
    let mut page = Page::new(format!("{range} {}\n", Summary::new(reviewed).text), limit);
    let heading = |text: &str| format!("\n{}\n", styled(Style::Strong, text));
    let comparison = &reviewed.comparison;
    page.section(&heading("Remarks"));
    for text in diff::text::remarks(comparison) {
        page.add("remarks", 1, &format!("  {text}\n"));
    }
    for note in &reviewed.notes {
        page.add("remarks", 1, &format!("  note: {}\n", printable(&note.text)));
    }
    page.section(&heading("Assertions"));
    for change in reviewed.assertions.iter().filter(|change| change.is_shown()) {
        page.add("assertions", 1, &assertion(change));
    }
    page.section(&heading("New findings"));
    for finding in &reviewed.introduced.findings {
        page.add("findings", 1, &lint::finding_text(finding));
    }
    page.section(&heading("Connections"));
    for group in diff::groups(comparison) {
        let rows = diff::text::of_group(comparison, &group, 0).1;
        let forms = ROWS.into_iter().map(|most| diff::text::of_group(comparison, &group, most));
        page.add_first("changed connections", rows, forms);
    }
    let rest = diff::text::rest(comparison);
    if !rest.is_empty() {
        page.add("lists of workloads and policies", 1, &rest);
    }
    page.section(&heading("Not shown"));
    for text in summary::not_shown(reviewed) {
        page.add("remarks", 1, &format!("  {}\n", printable(&text)));
    }
    page.finish()
}

fn assertion(change: &AssertionChange) -> String {
    let style = match change.status() {
        _ if change.fails_now() => Style::Bad,
        Some(Status::Holds) => Style::Good,
        _ => Style::Strong,
    };
    let explanation = change.explained().map(assertions::explanation).unwrap_or_default();
    format!("{}  {}\n{explanation}\n", styled(style, &change.words()), printable(&change.name))
}

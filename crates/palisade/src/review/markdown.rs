//! A review as a comment on a pull request.

use super::{
    Reviewed,
    page::Page,
    summary::{self, Summary},
};
use crate::{
    assertions::{self, AssertionChange},
    diff::{self, markdown},
    escape, lint,
};

/// The numbers of rows of a group that are tried until one fits.
const ROWS: [usize; 4] = [markdown::MAX_ROWS, 50, 20, 5];

/// Returns the page. Below a heading, everything from manifests is escaped, and no line begins with it.
pub(super) fn page(reviewed: &Reviewed<'_>, limit: usize) -> String {
    let [before, after] = reviewed.names;
    let summary = escaped(&Summary::new(reviewed).text);
    let beginning =
        format!("### Network policies: {} → {}\n\n**{summary}**\n", escaped(before), escaped(after));
    let mut page = Page::new(beginning, Some(limit));
    let comparison = &reviewed.comparison;
    for text in markdown::remarks(comparison) {
        page.add("remarks", 1, &text);
    }
    for note in &reviewed.notes {
        page.add("remarks", 1, &format!("\n- {}\n", escaped(&note.text)));
    }
    page.section("\n#### Assertions\n");
    for change in reviewed.assertions.iter().filter(|change| change.is_shown()) {
        let short = format!("\n- **{}**: {}\n", escaped(&change.words()), escaped(&change.name));
        page.add_first("assertions", 1, [(assertion(change, &short), 0), (short, 0)].into_iter());
    }
    page.section("\n#### New findings\n");
    for finding in &reviewed.introduced.findings {
        let place = finding.origin.as_ref();
        let place = place.map_or_else(String::new, |o| format!("{}:{}:{}: ", o.file, o.line, o.column));
        page.add(
            "findings",
            1,
            &format!(
                "\n- **{} {}** {}: {}{}\n",
                finding.level.as_str(),
                finding.rule.code,
                finding.rule.name,
                escaped(&place),
                escaped(&lint::message(finding))
            ),
        );
    }
    page.section("\n#### Connections\n");
    for group in diff::groups(comparison) {
        let rows = markdown::of_group(comparison, &group, 0).1;
        let forms = ROWS.into_iter().map(|most| markdown::of_group(comparison, &group, most));
        page.add_first("changed connections", rows, forms);
    }
    for part in markdown::ends_and_policies(comparison) {
        page.add("workloads and policies", 1, &part);
    }
    page.section("\n#### Not shown\n");
    for text in summary::not_shown(reviewed) {
        page.add("remarks", 1, &format!("\n- {}\n", escaped(&text)));
    }
    page.finish()
}

/// An assertion, with what breaks it.
fn assertion(change: &AssertionChange, short: &str) -> String {
    let Some(result) = change.explained() else { return short.to_owned() };
    let text = anstream::adapter::strip_str(&assertions::explanation(result)).to_string();
    // A fence that is longer than any in the text can't be closed by it.
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(longest.max(2) + 1);
    let lines: String = text.lines().map(|line| format!("  {line}\n")).collect();
    format!("{short}\n  <details><summary>why</summary>\n\n  {fence}text\n{lines}  {fence}\n\n  </details>\n")
}

fn escaped(text: &str) -> String {
    escape::markdown(text).into_owned()
}

//! The first line of a review.

use serde::Serialize;

use super::Reviewed;
use crate::{
    assertions::{AssertionChange, Edit, Status},
    diff,
    inputs::plural,
};

/// The counts of a review.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// One line.
    pub(super) text: String,
    /// Whether a connection opens: of pods that exist, are new, or may be made.
    opens: bool,
    new_findings: usize,
    assertions_failing: usize,
    assertions_failing_as_before: usize,
    assertions_holding: usize,
    assertions_added: usize,
    assertions_removed: usize,
    assertions_edited: usize,
    assertions_undecided: usize,
}

impl Summary {
    /// Counts what a review has.
    pub(super) fn new(reviewed: &Reviewed<'_>) -> Self {
        let all = &reviewed.assertions;
        let count = |is: &dyn Fn(&AssertionChange) -> bool| all.iter().filter(|change| is(change)).count();
        let edits = |edit: Edit| count(&|change| change.edit == edit);
        let mut out = Self {
            text: String::new(),
            opens: reviewed.comparison.opens(),
            new_findings: reviewed.introduced.findings.len(),
            assertions_failing: count(&AssertionChange::fails_now),
            assertions_failing_as_before: count(&|change| {
                change.status() == Some(Status::Fails) && !change.fails_now()
            }),
            assertions_holding: count(&|change| change.status() == Some(Status::Holds)),
            assertions_added: edits(Edit::Added),
            assertions_removed: edits(Edit::Removed),
            assertions_edited: edits(Edit::Edited),
            assertions_undecided: count(&AssertionChange::is_open),
        };
        out.text = out.line(diff::Summary::new(&reviewed.comparison).text());
        out
    }

    fn line(&self, difference: &str) -> String {
        let assertions = |count: usize, what: &str| {
            (count > 0).then(|| format!("{count} {} {what}", plural(count, "assertion")))
        };
        let fail = if self.assertions_failing == 1 { "fails now" } else { "fail now" };
        let still = if self.assertions_failing_as_before == 1 { "fails as before" } else { "fail as before" };
        let findings = match self.new_findings {
            0 => "no new findings".to_owned(),
            count => format!("{count} new {}", plural(count, "finding")),
        };
        let parts = [
            Some(difference.to_owned()),
            Some(findings),
            assertions(self.assertions_failing, fail),
            assertions(self.assertions_undecided, "undecided"),
            assertions(self.assertions_failing_as_before, still),
            assertions(self.assertions_removed, "removed"),
            assertions(self.assertions_edited, "edited"),
            assertions(self.assertions_added, "added"),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

/// Returns what is not shown of findings and assertions, and why.
pub(super) fn not_shown(reviewed: &Reviewed<'_>) -> Vec<String> {
    let introduced = &reviewed.introduced;
    let mut out = Vec::new();
    let [before, after] = introduced.suppressed;
    if after > before {
        let count = after - before;
        out.push(format!("{count} more {} suppressed than before", are(count, "finding")));
    }
    if introduced.below > 0 {
        let count = introduced.below;
        out.push(format!("{count} less severe new {} not shown (--severity note)", are(count, "finding")));
    }
    if introduced.older > 0 {
        let count = introduced.older;
        out.push(format!("{count} {} older than the range, and not shown", are(count, "finding")));
    }
    let listed = |change: &&AssertionChange| change.is_shown();
    let holds = |change: &&AssertionChange| change.status() == Some(Status::Holds);
    let (holding, failing): (Vec<&AssertionChange>, Vec<&AssertionChange>) =
        reviewed.assertions.iter().filter(|change| !listed(change)).partition(holds);
    let (holding, failing) = (holding.len(), failing.len());
    if holding > 0 {
        out.push(format!(
            "{holding} {}, and are not listed",
            if holding == 1 { "assertion holds" } else { "assertions hold" }
        ));
    }
    if failing > 0 {
        let verb = if failing == 1 { "fails" } else { "fail" };
        out.push(format!("{failing} {} {verb} as before, and are not listed", plural(failing, "assertion")));
    }
    out
}

fn are(count: usize, noun: &str) -> String {
    format!("{} {}", plural(count, noun), if count == 1 { "is" } else { "are" })
}

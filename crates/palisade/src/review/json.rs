//! A review as JSON and YAML, described in docs/schemas/review.json.

use palisade_manifest::Note;
use serde::Serialize;

use super::{Reviewed, summary::Summary};
use crate::{
    assertions::{self, AssertionChange, Edit, JsonResult, Status},
    diff::{self, JsonDiff},
    lint::{self, JsonFinding},
};

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.review/v1";

/// A review as JSON.
#[derive(Serialize)]
pub(super) struct JsonReview<'a> {
    schema: &'static str,
    before: &'a str,
    after: &'a str,
    complete: bool,
    summary: Summary,
    diff: JsonDiff<'a>,
    lint: JsonIntroduced<'a>,
    assertions: Vec<JsonAssertion<'a>>,
    notes: &'a [Note],
}

#[derive(Serialize)]
struct JsonIntroduced<'a> {
    findings: Vec<JsonFinding<'a>>,
    less_severe: usize,
    older: usize,
    suppressed_before: usize,
    suppressed: usize,
}

#[derive(Serialize)]
struct JsonAssertion<'a> {
    name: &'a str,
    edit: &'static str,
    before: Option<&'static str>,
    after: Option<&'static str>,
    as_before: Option<&'static str>,
    fails_now: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<JsonResult<'a>>,
}

/// Returns the review.
pub(super) fn document<'a>(reviewed: &'a Reviewed<'_>) -> JsonReview<'a> {
    let introduced = &reviewed.introduced;
    let [suppressed_before, suppressed] = introduced.suppressed;
    JsonReview {
        schema: SCHEMA,
        before: &reviewed.names[0],
        after: &reviewed.names[1],
        complete: reviewed.is_complete(),
        summary: Summary::new(reviewed),
        diff: diff::document(&reviewed.comparison),
        lint: JsonIntroduced {
            findings: introduced.findings.iter().map(lint::json_finding).collect(),
            less_severe: introduced.below,
            older: introduced.older,
            suppressed_before,
            suppressed,
        },
        assertions: reviewed.assertions.iter().map(assertion).collect(),
        notes: &reviewed.notes,
    }
}

fn assertion(change: &AssertionChange) -> JsonAssertion<'_> {
    JsonAssertion {
        name: &change.name,
        edit: match change.edit {
            Edit::Unchanged => "unchanged",
            Edit::Added => "added",
            Edit::Removed => "removed",
            Edit::Edited => "edited",
        },
        before: change.before.map(Status::word),
        after: change.status().map(Status::word),
        as_before: change.as_before.as_ref().map(|result| result.status.word()),
        fails_now: change.fails_now(),
        result: change.after.as_ref().or(change.as_before.as_ref()).map(assertions::json_result),
    }
}

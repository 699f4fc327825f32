//! Results for programs.

use std::fmt::Write as _;

use anyhow::Result;
use palisade_analysis::assertion::{CounterEnd, Counterexample, Expectation};
use palisade_manifest::printable;
use serde::Serialize;

use super::{
    check::{Status, TestResult},
    text,
};
use crate::{
    cluster::JsonMissing,
    future_pods::JsonFuturePods,
    junit::{self, Case, Problem},
    output::Encoding,
    reasons::JsonSide,
    traffic::{JsonTraffic, family_names},
};

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.test-results/v1";

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    /// `holds`, `fails`, `undecided` or `error`.
    status: &'static str,
    results: Vec<JsonResult<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    incomplete: &'a [JsonMissing<'a>],
}

/// A result as JSON.
#[derive(Serialize)]
pub(crate) struct JsonResult<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    expect: &'static str,
    status: &'static str,
    file: &'a str,
    line: usize,
    column: usize,
    judged: usize,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    messages: &'a [String],
    counterexamples: Vec<JsonCounterexample>,
}

#[derive(Serialize)]
struct JsonCounterexample {
    source: JsonEnd,
    destination: JsonEnd,
    verdict: &'static str,
    traffic: JsonTraffic,
    protocol: String,
    port: u16,
    families: Vec<String>,
    egress: JsonSide,
    ingress: JsonSide,
}

#[derive(Serialize)]
struct JsonEnd {
    text: String,
    exists: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stands_for: Option<JsonFuturePods>,
}

pub(super) const fn expect_word(expect: Expectation) -> &'static str {
    match expect {
        Expectation::Allow => "allow",
        Expectation::Deny => "deny",
        Expectation::Only => "only",
    }
}

/// Encodes results as JSON.
pub(super) fn json(results: &[TestResult], incomplete: &[JsonMissing<'_>]) -> Result<String> {
    let status = results.iter().map(|r| r.status).max().unwrap_or(Status::Holds);
    let results = results.iter().map(json_result).collect();
    Encoding::Json.encode(&Document { schema: SCHEMA, status: status.word(), results, incomplete })
}

/// Returns a result as JSON.
pub(crate) fn json_result(result: &TestResult) -> JsonResult<'_> {
    let written = &result.written;
    JsonResult {
        name: &written.name,
        reason: written.reason.as_deref(),
        expect: expect_word(written.expect),
        status: result.status.word(),
        file: &written.place.file,
        line: written.place.line,
        column: written.place.column,
        judged: result.judged,
        messages: &result.messages,
        counterexamples: result.counterexamples.iter().map(json_counterexample).collect(),
    }
}

fn json_counterexample(example: &Counterexample) -> JsonCounterexample {
    let end = |end: &CounterEnd| JsonEnd {
        text: text::end(end),
        exists: end.future.is_none(),
        stands_for: end.future.as_ref().map(|future| (&future.set).into()),
    };
    JsonCounterexample {
        source: end(&example.source),
        destination: end(&example.destination),
        verdict: if example.undecided { "undecided" } else { text::verdict_word(example.decision.verdict()) },
        traffic: (&example.traffic).into(),
        protocol: example.port.0.to_string(),
        port: example.port.1,
        families: family_names(example.families),
        egress: (&example.decision.egress).into(),
        ingress: (&example.decision.ingress).into(),
    }
}

/// Returns what is to be said about a result that doesn't hold, without color.
fn details(result: &TestResult) -> String {
    anstream::adapter::strip_str(&text::result(result)).to_string()
}

/// Returns JUnit XML: each assertion is a test.
pub(super) fn junit(results: &[TestResult]) -> String {
    junit::suite("palisade test", &results.iter().map(case).collect::<Vec<_>>())
}

fn case(result: &TestResult) -> Case<'_> {
    let (written, kind) = (&result.written, result.status.word());
    let problem = || Problem {
        is_error: result.status != Status::Fails,
        kind,
        message: kind.to_owned(),
        details: details(result),
    };
    Case {
        class: &written.place.file,
        name: written.name.clone(),
        place: Some((&written.place.file, written.place.line)),
        problem: (result.status != Status::Holds).then(problem),
    }
}

/// Returns the Test Anything Protocol.
pub(super) fn tap(results: &[TestResult]) -> String {
    let mut out = format!("TAP version 14\n1..{}\n", results.len());
    for (number, result) in (1..).zip(results) {
        let ok = if result.status == Status::Holds { "ok" } else { "not ok" };
        // `#` begins a directive.
        let name = printable(&result.written.name).replace('\\', "\\\\").replace('#', "\\#");
        _ = writeln!(out, "{ok} {number} - {name}");
        if result.status != Status::Holds {
            for line in details(result).lines().filter(|line| !line.is_empty()) {
                _ = writeln!(out, "# {line}");
            }
        }
    }
    out
}

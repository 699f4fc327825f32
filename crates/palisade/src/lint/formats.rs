//! Findings for programs.

use std::fmt::Write as _;

use anyhow::Result;
use palisade_lint::{Finding, Level};
use serde::Serialize;
use serde_json::{Value, json};

use super::Shown;
use crate::{
    escape,
    junit::{self, Case, Problem},
    output::Encoding,
};

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.lint/v1";

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    findings: Vec<JsonFinding<'a>>,
    suppressed: usize,
    in_baseline: usize,
    less_severe: usize,
    fixed: usize,
}

/// A finding as JSON.
#[derive(Serialize)]
pub(crate) struct JsonFinding<'a> {
    code: &'static str,
    rule: &'static str,
    level: Level,
    message: &'a str,
    file: Option<&'a str>,
    line: Option<u32>,
    column: Option<u32>,
    object: Option<&'a str>,
    field: Option<&'a str>,
    snippet: Option<&'a str>,
    affected_pods: usize,
    affected: &'a [String],
    fix: Option<&'a str>,
    fingerprint: &'a str,
}

/// Encodes findings as JSON.
pub(super) fn json(shown: &Shown) -> Result<String> {
    let findings = shown.findings.iter().map(json_finding).collect();
    Encoding::Json.encode(&Document {
        schema: SCHEMA,
        findings,
        suppressed: shown.suppressed,
        in_baseline: shown.known,
        less_severe: shown.below,
        fixed: shown.fixed,
    })
}

/// Returns a finding as JSON.
pub(crate) fn json_finding(f: &Finding) -> JsonFinding<'_> {
    let origin = f.origin.as_ref();
    JsonFinding {
        code: f.rule.code,
        rule: f.rule.name,
        level: f.level,
        message: &f.message,
        file: origin.map(|o| &*o.file),
        line: origin.map(|o| o.line),
        column: origin.map(|o| o.column),
        object: f.object.as_deref(),
        field: f.field.as_deref(),
        snippet: f.line.as_deref(),
        affected_pods: f.affected.pods,
        affected: &f.affected.sample,
        fix: f.fix.as_ref().map(|fix| &*fix.text),
        fingerprint: &f.fingerprint,
    }
}

/// Returns the message, after the object if there is no file that names it.
pub(crate) fn message(f: &Finding) -> String {
    match &f.object {
        Some(object) => format!("{object}: {}", f.message),
        None => f.message.clone(),
    }
}

/// Returns workflow commands of GitHub Actions, one line for each finding.
pub(super) fn github(shown: &Shown) -> String {
    let data = |text: &str| {
        let text = escape::plain(text).into_owned();
        text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
    };
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let mut out = String::new();
    for f in &shown.findings {
        let command = match f.level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Note => "notice",
        };
        let place = f.origin.as_ref().map_or_else(String::new, |o| {
            format!("file={},line={},col={},", property(&o.file), o.line, o.column)
        });
        let title = format!("{} {}", f.rule.code, f.rule.name);
        _ = writeln!(out, "::{command} {place}title={}::{}", property(&title), data(&message(f)));
    }
    out
}

/// Returns a code quality report of GitLab.
pub(super) fn gitlab(shown: &Shown) -> Result<String> {
    let issue = |f: &Finding| {
        let origin = f.origin.as_ref();
        json!({
            "description": message(f),
            "check_name": f.rule.name,
            "fingerprint": f.fingerprint,
            "severity": match f.level {
                Level::Error => "critical",
                Level::Warning => "major",
                Level::Note => "info",
            },
            "location": {
                "path": origin.map_or("cluster", |o| o.file.strip_prefix("./").unwrap_or(&o.file)),
                "lines": { "begin": origin.map_or(1, |o| o.line) },
            },
        })
    };
    Encoding::Json.encode(&Value::from_iter(shown.findings.iter().map(issue)))
}

/// Returns JUnit XML: each finding is a test that failed.
pub(super) fn junit(shown: &Shown) -> String {
    let case = |f: &Finding| {
        let place =
            f.origin.as_ref().map_or_else(String::new, |o| format!("{}:{}:{}", o.file, o.line, o.column));
        Case {
            class: f.rule.name,
            name: format!("{} {place}", f.rule.code).trim().to_owned(),
            place: None,
            problem: Some(Problem {
                is_error: false,
                kind: f.level.as_str(),
                message: message(f),
                details: String::new(),
            }),
        }
    };
    let mut cases: Vec<Case<'_>> = shown.findings.iter().map(case).collect();
    if cases.is_empty() {
        cases.push(Case { class: "palisade", name: "lint".to_owned(), place: None, problem: None });
    }
    junit::suite("palisade lint", &cases)
}

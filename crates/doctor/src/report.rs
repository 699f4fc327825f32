//! Renders findings for people and for programs.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use palisade_manifest::printable;
use serde::Serialize;

use crate::finding::{Finding, Status};

/// Returns whether no check failed.
#[must_use]
pub fn is_healthy(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.status != Status::Fail)
}

/// Renders findings for a terminal, with colors.
#[must_use]
pub fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.id.len()).max().unwrap_or(0);
    let mut out = String::new();
    for Finding { id, status, found, cure } in findings {
        let style = style(*status);
        _ = writeln!(out, "{style}{status:<7}{style:#}  {id:<width$}  {}", printable(found));
        if let Some(cure) = cure {
            _ = writeln!(out, "{:9}{:width$}  cure: {}", "", "", printable(cure));
        }
    }
    let count = |status| findings.iter().filter(|finding| finding.status == status).count();
    let statuses = [Status::Fail, Status::Warn, Status::Unknown, Status::Ok];
    let counts: Vec<String> = statuses.map(|status| format!("{} {status}", count(status))).into();
    _ = writeln!(out, "\n{}", counts.join(", "));
    out
}

fn style(status: Status) -> Style {
    match status {
        Status::Ok => AnsiColor::Green.on_default().bold(),
        Status::Fail => AnsiColor::Red.on_default().bold(),
        Status::Warn | Status::Unknown => Style::new().bold(),
    }
}

/// Returns findings as a serializable value of the schema `palisade.doctor/v1`.
#[must_use]
pub fn document(findings: &[Finding]) -> impl Serialize {
    #[derive(Serialize)]
    struct JsonReport<'a> {
        schema: &'static str,
        healthy: bool,
        checks: Vec<JsonCheck<'a>>,
    }
    #[derive(Serialize)]
    struct JsonCheck<'a> {
        id: &'a str,
        status: &'a str,
        found: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        cure: Option<&'a str>,
    }
    impl<'a> From<&'a Finding> for JsonCheck<'a> {
        fn from(Finding { id, status, found, cure }: &'a Finding) -> Self {
            Self { id, status: status.as_str(), found, cure: cure.as_deref() }
        }
    }
    JsonReport {
        schema: "palisade.doctor/v1",
        healthy: is_healthy(findings),
        checks: findings.iter().map(JsonCheck::from).collect(),
    }
}

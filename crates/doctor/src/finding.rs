//! The result of a check.

use std::fmt;

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// As required.
    Ok,
    /// Could not be determined.
    Unknown,
    /// Something works less well, or may surprise.
    Warn,
    /// Policies are not enforced, or not as written.
    Fail,
}

impl Status {
    /// Returns `ok`, `unknown`, `warn` or `fail`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check's id. Ids never change: scripts and alerts use them.
    pub id: &'static str,
    /// How serious it is.
    pub status: Status,
    /// What was found, in one sentence.
    pub found: String,
    /// What to do about it. `None` if nothing needs to be done.
    pub cure: Option<String>,
}

/// A finding without the id, which the table of checks adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: Status,
    pub(crate) found: String,
    pub(crate) cure: Option<String>,
}

impl Outcome {
    /// Returns an outcome that needs no cure.
    pub(crate) fn ok(found: impl Into<String>) -> Self {
        Self { status: Status::Ok, found: found.into(), cure: None }
    }

    pub(crate) fn warn(found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::with_cure(Status::Warn, found, cure)
    }

    pub(crate) fn fail(found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::with_cure(Status::Fail, found, cure)
    }

    pub(crate) fn unknown(found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::with_cure(Status::Unknown, found, cure)
    }

    fn with_cure(status: Status, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { status, found: found.into(), cure: Some(cure.into()) }
    }

    pub(crate) fn with_id(self, id: &'static str) -> Finding {
        Finding { id, status: self.status, found: self.found, cure: self.cure }
    }
}

/// Formats an error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        out.push_str(": ");
        out.push_str(&e.to_string());
        cause = e.source();
    }
    out
}

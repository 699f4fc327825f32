//! How much a finding matters.

use serde::Serialize;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth knowing. Files need not contain everything that the finding depends on.
    Note,
    /// Probably not what was meant.
    Warning,
    /// Certainly not what was meant, or rejected by the API server.
    Error,
}

impl Level {
    /// Returns the name: `note`, `warning` or `error`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

//! The mode of a policy.

use std::fmt;

/// The annotation of a policy, and the label of a namespace, that sets the [`Mode`].
pub const MODE_KEY: &str = "palisade.dev/mode";

/// Whether a policy is enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// The policy decides.
    #[default]
    Enforce,
    /// The policy decides nothing. What it would deny passes and is recorded.
    Audit,
}

impl Mode {
    /// Parses the value of [`MODE_KEY`]; `None` if it is unknown.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        match value {
            "enforce" => Some(Self::Enforce),
            "audit" => Some(Self::Audit),
            _ => None,
        }
    }

    /// Returns the mode that a value of [`MODE_KEY`] sets. An unknown value enforces, so that a typing error opens nothing.
    #[must_use]
    pub fn of_value(value: &str) -> Self {
        Self::parse(value).unwrap_or_default()
    }

    /// Returns the value of [`MODE_KEY`] that sets it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Audit => "audit",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

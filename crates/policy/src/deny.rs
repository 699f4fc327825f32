//! Whether what policies deny is dropped or refused.

use std::fmt;

/// The annotation of a namespace that sets [`Deny`] for its pods.
pub const DENY_KEY: &str = "palisade.dev/deny";

/// What happens to packets that the policies of a pod deny. Verdicts don't depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deny {
    /// They are dropped: the sender waits until it gives up.
    #[default]
    Drop,
    /// The sender gets a TCP reset, or an ICMP message that the connection is administratively prohibited.
    Reject,
}

impl Deny {
    /// Parses the value of [`DENY_KEY`]; `None` if it is unknown.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        match value {
            "drop" => Some(Self::Drop),
            "reject" => Some(Self::Reject),
            _ => None,
        }
    }

    /// Returns what a value of [`DENY_KEY`] sets. An unknown value drops, so that a typing error answers no sender.
    #[must_use]
    pub fn of_value(value: &str) -> Self {
        Self::parse(value).unwrap_or_default()
    }

    /// Returns the value of [`DENY_KEY`] that sets it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Reject => "reject",
        }
    }
}

impl fmt::Display for Deny {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

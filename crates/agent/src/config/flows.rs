//! The setting of which flows are recorded.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Which flows are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flows {
    /// Packets that policies deny, or would deny without audit mode
    #[default]
    Drops,
    /// Also new connections of pods that policies allow
    New,
    /// Also the ends of such connections, with bytes and packets if the node counts them
    All,
}

impl Flows {
    /// Returns the value of the setting.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drops => "drops",
            Self::New => "new",
            Self::All => "all",
        }
    }
}

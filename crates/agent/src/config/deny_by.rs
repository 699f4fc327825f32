//! The setting of what happens to what policies deny.

use clap::ValueEnum;
use palisade_policy::Deny;
use serde::{Deserialize, Serialize};

/// What happens to packets that policies deny, where the annotation `palisade.dev/deny` of the namespace says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DenyBy {
    /// They are dropped; the sender waits until it gives up
    #[default]
    Drop,
    /// The sender gets a TCP reset or an ICMP message, within a limit; the rest is dropped
    Reject,
}

impl From<DenyBy> for Deny {
    fn from(deny: DenyBy) -> Self {
        match deny {
            DenyBy::Drop => Self::Drop,
            DenyBy::Reject => Self::Reject,
        }
    }
}

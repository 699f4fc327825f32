//! Errors of the plugin, with the codes of the CNI specification.

use serde_json::{Value, json};

/// Bytes of the longest message. Some repeat what was given, which may be long, and kubelets put the message into Events.
const MAX_MESSAGE: usize = 1000;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CniError {
    /// The configuration requires a version that isn't supported.
    #[error(
        "CNI version {0:?} is not supported: palisade-cni must be chained in a configuration of version 0.3.0 to 1.1.0"
    )]
    Version(String),
    /// The sandbox was deleted during the call.
    #[error("{0}")]
    Gone(String),
    /// An environment variable is missing or invalid.
    #[error("{0}")]
    Environment(String),
    /// A file or standard input can't be read or written.
    #[error("{0}")]
    Io(String),
    /// Standard input isn't JSON.
    #[error("the configuration on standard input is not valid: {0}")]
    Decode(String),
    /// The configuration is JSON, but not usable.
    #[error("{0}")]
    Configuration(String),
    /// The pod can't be isolated now.
    #[error("{0}")]
    TryAgain(String),
}

impl CniError {
    /// The code in the reply.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::Version(_) => 1,
            Self::Gone(_) => 3,
            Self::Environment(_) => 4,
            Self::Io(_) => 5,
            Self::Decode(_) => 6,
            Self::Configuration(_) => 7,
            Self::TryAgain(_) => 11,
        }
    }

    /// The reply, for a configuration of this version.
    pub(super) fn reply(&self, version: &str) -> Value {
        let mut msg = format!("palisade: {self}");
        if msg.len() > MAX_MESSAGE {
            msg.truncate(msg.floor_char_boundary(MAX_MESSAGE));
            msg.push('…');
        }
        json!({"cniVersion": version, "code": self.code(), "msg": msg, "details": ""})
    }
}

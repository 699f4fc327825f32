//! The outcome of a probe.

use std::{fmt, io, net::IpAddr};

use serde::{Serialize, Serializer};

use crate::layout::Place;

/// The outcome of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The connection was made.
    Connected {
        /// The place that answered. `None` if the answer names none, as with ICMP echo, or was lost after the handshake.
        by: Option<Place>,
        /// The client's address as the server saw it.
        seen_from: Option<IpAddr>,
    },
    /// No answer arrived.
    TimedOut,
    /// The destination refused the connection.
    Refused,
    /// The network returned an error, or the connection was reset.
    Unreachable(io::ErrorKind),
    /// The connection could not be tried.
    Failed(String),
}

impl Outcome {
    /// Returns whether it is what a sender gets of pods that refuse what their policies deny.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        use io::ErrorKind::{HostUnreachable, PermissionDenied};
        matches!(self, Self::Refused | Self::Unreachable(HostUnreachable | PermissionDenied))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { by: Some(place), .. } => write!(f, "answered by {place}"),
            Self::Connected { by: None, .. } => f.write_str("connected"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Refused => f.write_str("refused"),
            Self::Unreachable(kind) => write!(f, "unreachable: {kind}"),
            Self::Failed(why) => write!(f, "could not be tried: {why}"),
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

//! What a probe came to.

use std::{fmt, io, net::IpAddr};

use serde::{Serialize, Serializer};

use crate::layout::Place;

/// What a connection came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was made.
    Connected {
        /// Who answered; `None`: nobody said, as with ICMP echo, or where the answer was lost after the connection was made.
        by: Option<Place>,
        /// The address from which the server saw the client come.
        seen_from: Option<IpAddr>,
    },
    /// Nothing came back.
    TimedOut,
    /// The destination refused it.
    Refused,
    /// The network said that there is no way, or the connection broke.
    Unreachable(io::ErrorKind),
    /// It could not be tried.
    Failed(String),
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

//! What the connection to the container runtime sends to the worker, and what the worker answers.

use std::time::Instant;

use tokio::sync::oneshot;

use crate::runtime_pods::RuntimePod;

/// What the runtime has reported.
#[derive(Debug)]
pub(crate) enum RuntimeEvent {
    /// All sandboxes, at the beginning of a connection.
    Synchronized(Vec<RuntimePod>),
    /// A pod starts.
    Started(Start),
    /// A sandbox was stopped.
    Stopped(String),
    /// The connection ended.
    Disconnected,
    /// The connections with the addresses of these sandboxes are deleted, so many, or not, for this reason.
    Cleaned {
        /// The sandboxes' ids.
        sandboxes: Vec<String>,
        /// How many connections were deleted.
        result: Result<usize, String>,
    },
}

/// A pod whose containers wait.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) pod: RuntimePod,
    pub(crate) arrived: Instant,
    /// When the worker must have answered.
    pub(crate) deadline: Instant,
    pub(crate) respond: oneshot::Sender<StartOutcome>,
}

/// How a pod starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StartOutcome {
    /// The kernel holds what its policies require.
    Programmed,
    /// All its traffic is dropped in the directions that policies may select, until its policies are programmed and no older connection
    /// passes them. With the reason.
    Closed(String),
    /// Its policies are not programmed, for this reason.
    Open(String),
    /// It must not start, for this reason: it could be neither programmed nor closed.
    Refused(String),
}

impl StartOutcome {
    /// The value of the metric's label.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Programmed => "programmed",
            Self::Closed(_) => "closed",
            Self::Open(_) => "open",
            Self::Refused(_) => "refused",
        }
    }
}

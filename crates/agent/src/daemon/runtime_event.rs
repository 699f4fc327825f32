//! What the connection to the container runtime sends to the worker, and what the worker answers.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::start_outcome::StartOutcome;
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
    /// The connections that are older than the pods of these starts are deleted, so many, or not, for this reason.
    Cleaned {
        /// The numbers of the starts.
        starts: BTreeSet<u64>,
        /// How many connections were deleted.
        result: Result<usize, String>,
    },
}

/// A pod whose containers wait.
#[derive(Debug)]
pub(crate) struct Start {
    /// Tells the starts apart: a sandbox may be announced several times.
    pub(crate) number: u64,
    pub(crate) pod: RuntimePod,
    pub(crate) arrived: Instant,
    /// How long the worker may take for the answer.
    pub(crate) patience: Duration,
    /// Where the answer goes.
    pub(crate) respond: oneshot::Sender<StartOutcome>,
}

impl Start {
    /// When the worker must have answered.
    pub(crate) fn deadline(&self) -> Instant {
        self.arrived + self.patience
    }

    /// Lets the runtime go on with the pod, or not. It may have gone.
    pub(crate) fn answer(self, outcome: StartOutcome) {
        _ = self.respond.send(outcome);
    }
}

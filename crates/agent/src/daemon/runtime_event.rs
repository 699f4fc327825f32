//! What the connection to the container runtime sends to the worker, and what the worker answers.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{container_gate::Held, start_outcome::StartOutcome};
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
    /// How long the worker may take for each answer.
    pub(crate) patience: Duration,
    /// Where the answer goes. `None` once the runtime goes on with the sandbox.
    pub(crate) respond: Option<oneshot::Sender<StartOutcome>>,
    /// What holds the pod's containers, if the runtime asks again before it starts one.
    pub(crate) containers: Option<Held>,
}

impl Start {
    /// When the worker must have answered. `None` while nothing waits: the runtime goes on with the sandbox, and no container is about to start.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let since = match self.respond {
            Some(_) => Some(self.arrived),
            None => self.containers.as_ref().and_then(Held::asked),
        };
        since.map(|since| since + self.patience)
    }

    /// Lets the runtime go on with the sandbox, if it asks again before it starts a container: containers wait for [`Start::answer`].
    pub(crate) fn answer_for_sandbox(&mut self) {
        if self.containers.is_some()
            && let Some(respond) = self.respond.take()
        {
            _ = respond.send(StartOutcome::Programmed);
        }
    }

    /// Whether the runtime goes on with the sandbox, and only containers wait.
    pub(crate) fn holds_containers_only(&self) -> bool {
        self.respond.is_none()
    }

    /// Answers everything that waits. Those who asked may have gone.
    pub(crate) fn answer(self, outcome: StartOutcome) {
        // First, so that no container finds itself held after the sandbox's answer.
        if let Some(held) = self.containers {
            held.release().say(outcome.clone());
        }
        if let Some(respond) = self.respond {
            _ = respond.send(outcome);
        }
    }

    /// Refuses the containers that wait and those that follow, as long as this start is kept.
    pub(crate) fn refuse_containers(&self, outcome: StartOutcome) {
        if let Some(held) = &self.containers {
            held.release().say(outcome);
        }
    }
}

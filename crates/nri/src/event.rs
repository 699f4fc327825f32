//! What the runtime reports, and the answers that it waits for.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::sandbox::{InvalidSandbox, Sandbox};

/// The runtime, as it introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// "containerd" or "cri-o".
    pub name: String,
    /// Its version.
    pub version: String,
    /// How long it waits for an answer before it goes on without the plugin, and closes its connection. `None` if it doesn't say.
    pub request_timeout: Option<Duration>,
}

/// What happens to the pods of the node.
#[derive(Debug)]
pub enum Event {
    /// The sandboxes that exist, once for each connection, before any other event.
    Synchronize {
        /// All of them, whatever their pods' state.
        sandboxes: Vec<Sandbox>,
        /// Those that could not be understood.
        invalid: Vec<InvalidSandbox>,
        /// What the runtime waits for.
        answer: Answer,
    },
    /// The network of a pod is set up. No container of it runs before the answer.
    PodStarts {
        /// The pod.
        sandbox: Sandbox,
        /// What the runtime waits for.
        answer: Answer,
    },
    /// A sandbox was stopped: its processes are gone, its addresses are free.
    PodStopped {
        /// The pod.
        sandbox: Sandbox,
        /// What the runtime waits for.
        answer: Answer,
    },
    /// A request names a pod that no pod can be. It is refused: the pod does not start.
    Invalid(InvalidSandbox),
    /// The runtime is going down.
    Shutdown,
}

/// The answer to a request. Dropping it fails the request.
#[derive(Debug)]
pub struct Answer(pub(crate) oneshot::Sender<Result<(), String>>);

impl Answer {
    /// The runtime goes on.
    pub fn accept(self) {
        // The runtime no longer waits if its time-out is over.
        let _ = self.0.send(Ok(()));
    }

    /// The runtime fails what it was about to do, with this reason in its log and in the pod's events. The kubelet tries again.
    pub fn refuse(self, reason: impl Into<String>) {
        let _ = self.0.send(Err(reason.into()));
    }

    /// Returns whether the runtime has stopped waiting.
    #[must_use]
    pub fn is_too_late(&self) -> bool {
        self.0.is_closed()
    }
}

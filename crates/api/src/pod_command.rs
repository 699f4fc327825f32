//! One command in the container of many pods at once, through the API server.
//!
//! ```text
//!   list of pods ─► one exec for each, over WebSocket ─► lines of standard output ─┐
//!        ▲                                                                         ├─► PodEvent ─► PodCommands::next
//!        └─ again every few seconds, if commands are followed: pods come and go ───┘
//! ```
//!
//! Everything runs on one runtime, and only while [`PodCommands::next`] waits: while it is not called, the pods' output stops, too.

mod follow;
mod pods;
mod process;

use std::{fmt, sync::Arc, time::Duration};

use futures::StreamExt as _;
use kube::Client;
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    time::Instant,
};

pub use pods::ExecPod;

use crate::{Access, AccessError, ApiError};

/// How many pods are connected to at once.
const CONCURRENT: usize = 32;
/// The most commands that are followed: each has a connection of its own, and a process may usually open 1024.
const MAX_FOLLOWED: usize = 500;
/// Events that wait to be read. A line is at most [`process::MAX_LINE`] long.
const QUEUE: usize = 64;

/// The words of the command. The argument is how long ago the pod's last line was received, and `None` for a first attempt.
pub type CommandWords = Arc<dyn Fn(Option<Duration>) -> Vec<String> + Send + Sync>;

/// A command, and the pods to run it in.
#[derive(Clone)]
pub struct PodCommand {
    /// The namespace of the pods.
    pub namespace: String,
    /// The label selector of the pods, and of the workload that makes them.
    pub selector: PodSelector,
    /// The container.
    pub container: String,
    /// Only pods of these nodes; of all if empty.
    pub nodes: Vec<String>,
    /// The program and its arguments.
    pub words: CommandWords,
    /// Whether the command is started again when it ends, and in pods that appear.
    pub follow: bool,
    /// How long a response of the API server may take.
    pub timeout: Duration,
    /// How long a command may print nothing.
    pub idle_timeout: Duration,
}

/// Label selectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSelector {
    /// Of the pods.
    pub pods: String,
    /// Of the DaemonSets that make them.
    pub daemon_sets: String,
}

/// What happened in the pods.
#[derive(Debug)]
pub enum PodEvent {
    /// The pods were listed. Always the first event.
    Found {
        /// Those of the requested nodes, by node.
        pods: Vec<Arc<ExecPod>>,
        /// On how many nodes the DaemonSets want a pod, or why that is not known.
        desired: Result<usize, ApiError>,
    },
    /// The pods could not be listed. If this is the first event, there are no others.
    NotFound(ApiError),
    /// The command printed a line, given without its line break.
    Line(Arc<ExecPod>, Vec<u8>),
    /// The command ended, or could not be started. If commands are followed, it is started again, unless too many would be.
    Ended(Arc<ExecPod>, Result<CommandStatus, ExecError>),
    /// A pod has appeared, in which the command is started. Only if commands are followed.
    Appeared(Arc<ExecPod>),
    /// A pod is gone. Only if commands are followed.
    Gone(Arc<ExecPod>),
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandStatus {
    /// Its exit code.
    pub code: i32,
    /// The beginning of its standard error.
    pub stderr: String,
}

/// Why a command has no exit code.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ExecError {
    /// The API server refused it, or could not be reached.
    #[error("{}", .0.with_advice())]
    Api(ApiError),
    /// The container does not run.
    #[error("its container does not run: {0}")]
    NotRunning(String),
    /// It was not started for a reason that the kubelet gives.
    #[error("the kubelet could not run the command: {0}")]
    Kubelet(String),
    /// The connection ended before the command.
    #[error("the connection was lost")]
    ConnectionLost,
    /// It printed nothing for too long.
    #[error("no output for {} s", .0.as_secs())]
    Idle(Duration),
    /// It printed a line that is too long.
    #[error("it printed a line of more than {0} bytes")]
    LongLine(usize),
    /// There are too many pods to follow.
    #[error("only {0} agents can be followed at once")]
    TooMany(usize),
}

/// What [`PodCommands::next`] waited for.
#[derive(Debug)]
pub enum NextPodEvent {
    /// An event.
    Event(PodEvent),
    /// The time is over.
    Elapsed,
    /// There are no more events.
    End,
}

/// Commands that run in pods. When it is dropped, the connections are closed.
pub struct PodCommands {
    runtime: Runtime,
    events: mpsc::Receiver<PodEvent>,
    server: String,
}

impl fmt::Debug for PodCommands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodCommands").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Why no command was started.
#[derive(Debug, thiserror::Error)]
pub enum PodCommandError {
    /// There is no client.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// There is no runtime.
    #[error("cannot start the client")]
    Runtime(#[source] std::io::Error),
}

impl PodCommands {
    /// Begins to run a command in pods. The pods are listed once [`PodCommands::next`] is called.
    ///
    /// # Errors
    /// If there is no client.
    pub fn start(access: &Access, command: PodCommand) -> Result<Self, PodCommandError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(PodCommandError::Runtime)?;
        let connection = runtime.block_on(access.open())?;
        let (sender, events) = mpsc::channel(QUEUE);
        runtime.spawn(run(connection.client, command, sender));
        Ok(Self { runtime, events, server: connection.server })
    }

    /// The address of the API server.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Waits for the next event, or until a time.
    pub fn next(&mut self, until: Option<std::time::Instant>) -> NextPodEvent {
        let events = &mut self.events;
        let next = self.runtime.block_on(async {
            match until {
                Some(until) => tokio::time::timeout_at(Instant::from_std(until), events.recv()).await,
                None => Ok(events.recv().await),
            }
        });
        match next {
            Ok(Some(event)) => NextPodEvent::Event(event),
            Ok(None) => NextPodEvent::End,
            Err(_) => NextPodEvent::Elapsed,
        }
    }
}

/// Runs the command in all pods. Ends when they have ended, or, if commands are followed, when the events are no longer read.
async fn run(client: Client, command: PodCommand, events: mpsc::Sender<PodEvent>) {
    let pods = match pods::list(&client, &command).await {
        Ok(pods) => pods,
        Err(error) => {
            _ = events.send(PodEvent::NotFound(error)).await;
            return;
        }
    };
    let desired = pods::desired(&client, &command).await;
    if events.send(PodEvent::Found { pods: pods.clone(), desired }).await.is_err() {
        return;
    }
    if command.follow {
        return follow::run(client, command, pods, events).await;
    }
    let words = (command.words)(None);
    let runs = futures::stream::iter(pods).map(async |pod| {
        let ended = process::run(&client, &pod, &command, &words, &events, || (), &mut false).await;
        _ = events.send(PodEvent::Ended(pod, ended)).await;
    });
    runs.buffer_unordered(CONCURRENT).collect::<()>().await;
}

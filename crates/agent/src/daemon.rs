//! The agent as a process: a source, the kernel, and what an operator sees of them.
//!
//! Two threads carry it. One runs what waits for sockets: the source, HTTP, the local socket, signals. The other has the
//! [`NodeAgent`](crate::NodeAgent), which blocks on netlink. Between them lies an inbox in which changes gather while a
//! transaction runs. Until the first whole snapshot the kernel stays as it is; when the source is lost it stays as it was;
//! and when the process ends, however it ends, the rules stay.

mod health;
mod http;
mod inbox;
mod ledger;
mod once;
mod outside;
mod over_budget;
mod own_name;
mod reviews;
mod worker;

use std::{
    io,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use palisade_api::{AccessError, Client, Event, ReportOptions, Reporter, WatchOptions, report, watch};
use palisade_nft::Options;
use palisade_policy::{Cluster, Name};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

pub(crate) use health::Health;
use http::Pages;
pub(crate) use inbox::Inbox;
pub use once::{Once, Planned, Removed, dry_run, once, remove};

use crate::{
    DataPlaneError, NftDataPlane,
    config::{Config, ConfigError, EgressToOwnNode, Listen, SourceCheck, SourceChoice},
    lock::{Lock, LockError},
    metrics::Metrics,
    socket::{self, Explained, SocketError},
    source::{
        Heard,
        directory::{self, DirectoryError},
    },
};
use worker::Worker;

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Answers whether a connection is allowed: source, destination and default namespace as written. The error is for the
/// asker.
pub type Explain = Arc<dyn Fn(&Cluster, &str, &str, &str) -> Result<Explained, String> + Send + Sync>;

/// Why the agent can't run, or go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another agent.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The kernel.
    #[error(transparent)]
    DataPlane(#[from] DataPlaneError),
    /// The kernel, by itself.
    #[error(transparent)]
    Kernel(#[from] palisade_nft::Error),
    /// The API server's address or our credentials.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The manifests.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The local socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The system gives no thread, or no events.
    #[error("cannot start")]
    Start(#[source] io::Error),
    /// The source told nothing whole in time.
    #[error("no whole snapshot of the cluster within {} s{}", .0.as_secs(), .1.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    NoSnapshot(Duration, Option<String>),
    /// The source ended.
    #[error("the source ended: this is a fault of the program")]
    SourceEnded,
    /// The thread that works on the kernel ended.
    #[error(
        "the thread that works on the kernel ended: this is a fault of the program; the rules stay as they are"
    )]
    WorkerEnded,
}

/// Runs until SIGTERM or SIGINT, and leaves the rules.
///
/// # Errors
/// When it can't start: bad settings, another agent, no right to change the firewall. What fails later is retried, logged
/// and counted.
pub fn run(config: &Config, explain: Explain) -> Result<(), DaemonError> {
    let node = config.node()?;
    tracing::info!(
        version = VERSION,
        %node,
        source = %config.source,
        pid = std::process::id(),
        "the agent starts"
    );
    // Released last, so that the next agent finds the socket path free.
    let lock = take_lock(config)?;
    let plane = open_plane(config)?;
    let parts = Parts {
        node: node.clone(),
        metrics: Arc::new(Metrics::new(VERSION, &node)),
        inbox: Arc::default(),
        health: Arc::default(),
        reporter: Arc::default(),
    };
    let (ended, end) = oneshot::channel();
    let mut worker = Worker::new(config, &parts, plane, explain);
    let work = move || {
        worker.run();
        // Whoever waits for the end hears of a panic too: then the sender is dropped.
        _ = ended.send(());
    };
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let shell = Shell::open(config, &parts).await?;
        thread::Builder::new().name("palisade-node".into()).spawn(work).map_err(DaemonError::Start)?;
        shell.until_stopped(config, &parts, end).await
    });
    // Threads that block on files or netlink end with the process.
    runtime.shutdown_background();
    drop(lock);
    outcome
}

/// What the threads share.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) node: Name,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) health: Arc<Health>,
    /// What is reported to the cluster, once there is a way to it.
    pub(crate) reporter: Arc<OnceLock<Reporter>>,
}

/// What waits for sockets.
struct Shell {
    door: socket::Door,
    terminate: Signal,
    interrupt: Signal,
}

impl Shell {
    async fn open(config: &Config, parts: &Parts) -> Result<Self, DaemonError> {
        let door = socket::Door::open(&config.socket)?;
        let catch = |kind| signal(kind).map_err(DaemonError::Start);
        let shell = Self {
            door,
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
        };
        follow(config, parts).await?;
        Ok(shell)
    }

    async fn until_stopped(
        mut self,
        config: &Config,
        parts: &Parts,
        mut end: oneshot::Receiver<()>,
    ) -> Result<(), DaemonError> {
        serve_http(config, parts);
        let signalled = tokio::select! {
            () = socket::serve(&self.door, Arc::clone(&parts.inbox)) => "nothing",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            ended = &mut end => {
                // It ends by itself only when it panics or the source is lost for good.
                return Err(if ended.is_ok() { DaemonError::SourceEnded } else { DaemonError::WorkerEnded });
            }
        };
        tracing::info!(
            signal = signalled,
            node = %parts.node,
            source = %config.source,
            "the agent stops; the rules stay in force"
        );
        parts.inbox.stop();
        // A transaction under way is finished; a second signal doesn't wait for it.
        tokio::select! {
            _ = &mut end => {}
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        Ok(())
    }
}

/// Serves metrics and health, each where the settings want it.
fn serve_http(config: &Config, parts: &Parts) {
    let shown =
        http::Shown::new(Arc::clone(&parts.metrics), Arc::clone(&parts.health), Arc::clone(&parts.inbox));
    for (listen, pages) in [(config.listen, Pages::All), (config.health_listen, Pages::Health)] {
        if let Listen::At(address) = listen {
            tokio::spawn(http::run(address, pages, Arc::clone(&shown)));
        }
    }
}

/// Lets the source tell the inbox.
async fn follow(config: &Config, parts: &Parts) -> Result<(), DaemonError> {
    let inbox = Arc::clone(&parts.inbox);
    match &config.source {
        SourceChoice::Directory(path) => {
            let tell = move |heard| {
                inbox.hear(heard);
                true
            };
            directory::follow(path.clone(), tell)?;
        }
        SourceChoice::Api => {
            let client = config.access().connect_for_watching().await?;
            let reporter = config.report_status.then(|| {
                let options = ReportOptions::of_node(parts.node.clone());
                report(client.clone(), ReportOptions { access: Some(config.access()), ..options })
            });
            if let Some(reporter) = reporter {
                // Set here and nowhere else. What is reported goes through the inbox, as changes do: only who gives them to
                // the kernel knows what it has taken.
                _ = parts.reporter.set(reporter);
            }
            let mut events = watching(client, config);
            tokio::spawn(async move {
                while let Some(event) = events.recv().await {
                    inbox.hear(Heard::now(event));
                }
                tracing::error!("the watches of the API server ended");
                inbox.stop();
            });
        }
    }
    Ok(())
}

fn watching(client: Client, config: &Config) -> tokio::sync::mpsc::Receiver<Event> {
    watch(client, WatchOptions { access: Some(config.access()), ..WatchOptions::default() })
}

fn runtime() -> Result<tokio::runtime::Runtime, DaemonError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DaemonError::Start)
}

fn take_lock(config: &Config) -> Result<Lock, LockError> {
    let patience = Duration::from_secs(config.lock_timeout);
    Lock::take(&config.beside_socket("agent.lock"), patience, |held| {
        tracing::info!("{held}; waiting up to {} s for it to end", patience.as_secs());
    })
}

fn open_plane(config: &Config) -> Result<NftDataPlane, DataPlaneError> {
    NftDataPlane::open_with(options(config))
}

fn options(config: &Config) -> Options {
    let defaults = Options::default();
    Options {
        log_group: defaults.log_group.filter(|_| config.log_drops),
        egress_to_own_node: config.egress_to_own_node == EgressToOwnNode::Enforce,
        source_check: config.source_check == SourceCheck::Enforce,
    }
}

//! The agent as a process: the source, the kernel, and the interfaces for operators.
//!
//! Two threads do the work. The async thread runs everything that waits for sockets: the source, HTTP, the local socket and
//! signals. The worker thread owns the [`NodeAgent`](crate::NodeAgent), which blocks on netlink. Between them is an inbox,
//! in which changes accumulate while a transaction runs. `daemon/worker.rs` has a picture of the data flow.
//!
//! The kernel stays unchanged until the first complete snapshot, and while the source is lost; after a restart of the node its pods can be
//! closed until then. The rules stay in the kernel
//! when the process ends, also when it is killed.

mod cni;
mod conntrack_cleanup;
mod error;
mod error_log;
mod health;
mod http;
mod inbox;
mod kernel_events;
mod listener;
mod node_name;
mod once;
mod over_budget;
mod overrun;
mod pod_addresses;
mod pod_gate;
mod refused_sources;
mod repairs;
mod restore;
mod reviews;
mod runtime;
mod runtime_event;
mod setup;
mod shared;
mod shortfall;
mod start_outcome;
mod worker;

use std::{sync::Arc, thread, time::Duration};

use palisade_api::{Access, Client, ReportOptions, remove_startup_taint, report};
use palisade_policy::Name;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

pub use error::DaemonError;
#[cfg(fuzzing)]
pub(crate) use http::fuzz as fuzz_http;
pub use listener::SocketError;
#[cfg(fuzzing)]
pub(crate) use listener::fuzz as fuzz_socket;
pub use once::{Once, Planned, Removed, dry_run, once, remove};
pub use restore::{Restored, restore};
pub use shared::{Explain, VERSION, Wording};

use crate::{
    config::{Config, Listen, PolicyMode, SourceChoice, StartupTaint},
    metrics::Metrics,
    source::{Delivery, directory},
};
use health::Health;
use http::{HttpState, Pages};
use listener::{Doors, SocketListener};
use pod_gate::PodGate;
use runtime::RuntimeFollower;
use shared::Shared;
use worker::Worker;

/// How often readiness is checked until the startup taint is removed.
const READY_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Runs until SIGTERM or SIGINT. The rules stay in the kernel.
///
/// # Errors
/// If the agent can't start: invalid settings, another agent, no permission to change the firewall. Later failures are
/// retried, logged and counted.
pub fn run(config: &Config, explain: Explain, wording: Wording) -> Result<(), DaemonError> {
    let node = config.node()?;
    tracing::info!(
        version = VERSION,
        %node,
        source = %config.source,
        pid = std::process::id(),
        "starting agent"
    );
    if config.mode == PolicyMode::Audit {
        tracing::warn!(
            "audit mode: policies deny nothing, unless an annotation or the label of their namespace enforces them"
        );
    }
    // Released last, so that the next agent finds the socket path free.
    let lock = setup::take_lock(config)?;
    let plane = setup::open_plane(config)?;
    let state = restore::at_start(config, &node);
    let metrics = Arc::new(Metrics::new(VERSION, &node));
    let flows = Arc::new(setup::flow_store(config, &node, Arc::clone(&metrics))?);
    let shared = Shared {
        node,
        metrics,
        inbox: Arc::default(),
        flows,
        health: Arc::default(),
        reporter: Arc::default(),
    };
    let (ended, end) = oneshot::channel();
    let mut worker = Worker::new(config, &shared, plane, explain, wording);
    worker.keep_state_in(config, state);
    let work = move || {
        worker.run();
        // A panic drops the sender, which the receiver sees too.
        _ = ended.send(());
    };
    let runtime = setup::runtime()?;
    let outcome = runtime.block_on(async {
        let services = Services::open(config, &shared).await?;
        thread::Builder::new().name("palisade-node".into()).spawn(work).map_err(DaemonError::Start)?;
        services.run(config, &shared, end).await
    });
    // Threads that block on files or netlink end with the process.
    runtime.shutdown_background();
    drop(lock);
    outcome
}

/// The async side of the process: local socket and signals.
struct Services {
    listener: SocketListener,
    terminate: Signal,
    interrupt: Signal,
}

impl Services {
    async fn open(config: &Config, shared: &Shared) -> Result<Self, DaemonError> {
        let listener = SocketListener::open(&config.socket)?;
        let signals = |kind| signal(kind).map_err(DaemonError::Start);
        let services = Self {
            listener,
            terminate: signals(SignalKind::terminate())?,
            interrupt: signals(SignalKind::interrupt())?,
        };
        start_source(config, shared).await?;
        let gate = PodGate::new(config, &shared.inbox, &shared.metrics);
        // After the socket is open: a plugin that doesn't find it tells this agent nothing but its record.
        cni::recall(&config.socket, &gate);
        if let Some(follower) = RuntimeFollower::new(config, &gate) {
            tokio::spawn(follower.run());
        }
        if let Some(chain) = cni::Chain::new(config, &shared.metrics) {
            tokio::spawn(chain.run());
        }
        Ok(services)
    }

    /// Serves until a signal arrives or the worker thread ends.
    async fn run(
        mut self,
        config: &Config,
        shared: &Shared,
        mut end: oneshot::Receiver<()>,
    ) -> Result<(), DaemonError> {
        serve_http(config, shared);
        let signal = tokio::select! {
            () = listener::serve(&self.listener, Doors::new(config, shared)) => "none",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            ended = &mut end => {
                // The worker ends by itself only if it panics or the source has ended.
                return Err(if ended.is_ok() { DaemonError::SourceEnded } else { DaemonError::WorkerEnded });
            }
        };
        tracing::info!(
            signal,
            node = %shared.node,
            source = %config.source,
            "stopping agent, the rules stay in the kernel"
        );
        shared.inbox.stop();
        // Waits for a running transaction. A second signal ends the wait.
        tokio::select! {
            _ = &mut end => {}
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        Ok(())
    }
}

/// Serves metrics and health at the configured addresses.
fn serve_http(config: &Config, shared: &Shared) {
    let state =
        HttpState::new(Arc::clone(&shared.metrics), Arc::clone(&shared.health), Arc::clone(&shared.inbox));
    for (listen, pages) in [(config.listen, Pages::All), (config.health_listen, Pages::Health)] {
        if let Listen::At(address) = listen {
            tokio::spawn(http::run(address, pages, Arc::clone(&state)));
        }
    }
}

/// Connects the configured source to the inbox.
async fn start_source(config: &Config, shared: &Shared) -> Result<(), DaemonError> {
    let inbox = Arc::clone(&shared.inbox);
    match &config.source {
        SourceChoice::Directory(path) => {
            let deliver = move |delivery| {
                inbox.receive(delivery);
                true
            };
            directory::follow(path.clone(), deliver)?;
        }
        SourceChoice::Api => {
            let client = config.access().connect_without_retries().await?;
            let reporter = config.report_status.then(|| {
                let options = ReportOptions::for_node(shared.node.clone());
                report(client.clone(), ReportOptions { access: Some(config.access()), ..options })
            });
            if let Some(reporter) = reporter {
                // Findings go through the inbox, as changes do: only the worker knows what the kernel has accepted.
                _ = shared.reporter.set(reporter);
            }
            if config.startup_taint == StartupTaint::Remove {
                let (node, health) = (shared.node.clone(), Arc::clone(&shared.health));
                tokio::spawn(remove_taint_when_ready(client.clone(), config.access(), node, health));
            }
            let mut events = setup::watch_cluster(client, config, setup::needs_services(config));
            tokio::spawn(async move {
                while let Some(event) = events.recv().await {
                    inbox.receive(Delivery::now(event));
                }
                tracing::error!("API server watches ended, stopping agent");
                inbox.stop();
            });
        }
    }
    Ok(())
}

/// Lets pods be scheduled to this node when the agent is ready for the first time.
async fn remove_taint_when_ready(client: Client, access: Access, node: Name, health: Arc<Health>) {
    while health.ready().is_err() {
        tokio::time::sleep(READY_CHECK_INTERVAL).await;
    }
    remove_startup_taint(client, Some(access), node).await;
}

//! The connection to the container runtime: its announcements go to the worker, which programs the pods, and the worker's outcomes back.
//!
//! ```text
//!   container runtime ── NRI ──► follow (async) ── RuntimeEvent ──► Inbox ──► Worker
//!                  ◄── answer ──                ◄── StartOutcome ─────────────┘
//! ```
//!
//! A runtime waits for an answer before it starts a pod's containers. Each wait is bounded here, whatever the worker does.

use std::{
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use palisade_nri::{Answer, Connection, Event, Identity, InvalidSandbox, NriError, RuntimeInfo, Sandbox};
use palisade_policy::{Labels, ObjectKey, Uid};

use super::{
    pod_gate::PodGate,
    runtime_event::{RuntimeEvent, StartOutcome},
};
use crate::{
    config::{Config, Nri},
    error_chain,
    metrics::StageLabel,
    runtime_pods::{RuntimePod, is_of_pod},
};

/// The plugin's name, and its place among the plugins: last, because a plugin that is slow must not use up the time of this one's pods.
const IDENTITY: Identity<'static> = Identity { name: "palisade", index: "95" };
/// How long registration may take.
const REGISTRATION: Duration = Duration::from_secs(10);
/// What runtimes that don't say how long they wait have as a default.
const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// The part of the runtime's time-out that is left for the answer's way.
const RESERVE: Duration = Duration::from_millis(250);
/// The pause after a failure. It doubles up to [`MAX_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(250);
const MAX_RETRY: Duration = Duration::from_secs(30);
/// Labels that the kubelet adds to those of the pod.
const KUBELET_LABELS: [&str; 3] =
    ["io.kubernetes.pod.name", "io.kubernetes.pod.namespace", "io.kubernetes.pod.uid"];

/// What the connection needs of the settings and of the process.
#[derive(Clone, Debug)]
pub(super) struct RuntimeFollower {
    socket: PathBuf,
    mode: Nri,
    gate: PodGate,
}

impl RuntimeFollower {
    /// Returns `None` if the runtime isn't to be followed.
    pub(super) fn new(config: &Config, gate: &PodGate) -> Option<Self> {
        (config.nri != Nri::Off).then(|| Self {
            socket: config.nri_socket.clone(),
            mode: config.nri,
            gate: gate.clone(),
        })
    }

    /// Follows the runtime as long as the process runs.
    pub(super) async fn run(self) {
        let mut pause = FIRST_RETRY;
        let mut logged = None;
        loop {
            match Connection::open(&self.socket, IDENTITY, REGISTRATION).await {
                Ok(connection) => {
                    let connected = Instant::now();
                    logged = None;
                    let error = self.serve(connection).await;
                    self.gate.metrics.runtime_connected.set(0);
                    self.gate.inbox.add_runtime(RuntimeEvent::Disconnected);
                    let err = error_chain::with_causes(&error);
                    tracing::warn!(
                        err,
                        "lost the container runtime, reconnecting; pods may start before they are isolated"
                    );
                    if connected.elapsed() > MAX_RETRY {
                        pause = FIRST_RETRY;
                    }
                }
                Err(error) => {
                    let err = error_chain::with_causes(&error);
                    if logged.as_ref() != Some(&err) {
                        self.log_failure(&error, &err);
                        logged = Some(err);
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_RETRY);
        }
    }

    fn log_failure(&self, error: &NriError, err: &str) {
        match (self.mode, error) {
            (Nri::Auto, NriError::NoSocket { .. }) => {
                tracing::info!(
                    err,
                    "no container runtime to follow, pods may start before they are isolated"
                );
            }
            _ => {
                self.gate.metrics.errors.get_or_create(&StageLabel { stage: "runtime" }).inc();
                tracing::warn!(
                    err,
                    "cannot follow the container runtime, retrying; pods may start before they are isolated"
                );
            }
        }
    }

    /// Serves one connection. Returns why it ended.
    async fn serve(&self, mut connection: Connection) -> NriError {
        let patience = self.patience(&connection.runtime);
        self.gate.metrics.runtime_connected.set(1);
        loop {
            match connection.next().await {
                Ok(event) => self.handle(event, patience),
                Err(error) => return error,
            }
        }
    }

    /// How long a pod may wait: less than the runtime does, which then starts the pod and ends the connection.
    fn patience(&self, runtime: &RuntimeInfo) -> Duration {
        let most = runtime.request_timeout.unwrap_or(DEFAULT_REQUEST_TIMEOUT).saturating_sub(RESERVE);
        let patience = self.gate.timeout.min(most);
        tracing::info!(
            runtime = runtime.name,
            version = runtime.version,
            timeout_ms = patience.as_millis() as u64,
            "connected to the container runtime, pods are isolated before they start"
        );
        if patience < self.gate.timeout {
            tracing::warn!(
                timeout_ms = patience.as_millis() as u64,
                "pod-start-timeout is longer than the container runtime waits, using a shorter one"
            );
        }
        patience
    }

    fn handle(&self, event: Event, patience: Duration) {
        match event {
            Event::Synchronize { sandboxes, invalid, answer } => {
                invalid.iter().for_each(|invalid| self.log_invalid(invalid));
                let pods: Vec<RuntimePod> = sandboxes.into_iter().filter_map(runtime_pod).collect();
                self.gate.inbox.add_runtime(RuntimeEvent::Synchronized(pods));
                answer.accept();
            }
            Event::PodStarts { sandbox, answer } => self.start(sandbox, answer, patience),
            Event::PodStopped { sandbox, answer } => {
                self.gate.inbox.add_runtime(RuntimeEvent::Stopped(sandbox.id));
                answer.accept();
            }
            Event::Invalid(invalid) => {
                self.log_invalid(&invalid);
                self.gate.count("invalid");
            }
            Event::Shutdown => tracing::debug!("the container runtime stops"),
        }
    }

    fn log_invalid(&self, invalid: &InvalidSandbox) {
        tracing::warn!(err = %invalid, "the container runtime describes a pod that no pod can be, refused it");
    }

    fn start(&self, sandbox: Sandbox, answer: Answer, patience: Duration) {
        let is_host_network = sandbox.network_namespace.is_none();
        let key = format!("{}/{}", sandbox.namespace, sandbox.name);
        let Some(pod) = runtime_pod(sandbox) else {
            if is_host_network {
                self.gate.count("host-network");
            } else {
                tracing::warn!(
                    pod = key,
                    "the container runtime names no address of the pod, it is isolated once the API server does"
                );
                self.gate.count("no-address");
            }
            answer.accept();
            return;
        };
        let announced = self.gate.announce(pod, patience);
        tokio::spawn(async move {
            let outcome = announced.outcome().await;
            if answer.is_too_late() {
                tracing::warn!(
                    pod = key,
                    "the container runtime did not wait, pod may have started before it was isolated"
                );
            }
            match outcome {
                StartOutcome::Refused(reason) => {
                    answer.refuse(format!("palisade: {key} could not be isolated: {reason}"));
                }
                _ => answer.accept(),
            }
        });
    }
}

/// Returns the pod of a sandbox, unless the sandbox has no address of its own. Without a network namespace of its own, addresses are the
/// node's.
fn runtime_pod(sandbox: Sandbox) -> Option<RuntimePod> {
    sandbox.network_namespace.as_ref()?;
    let addresses: Vec<IpAddr> =
        sandbox.addresses.iter().map(IpAddr::to_canonical).filter(is_of_pod).collect();
    if addresses.is_empty() {
        return None;
    }
    let labels = sandbox.labels.iter().filter(|(key, _)| !KUBELET_LABELS.contains(&key.as_str()));
    let labels: Labels = labels.map(|(key, value)| (key.as_str(), value.as_str())).collect();
    Some(RuntimePod {
        key: ObjectKey::new(sandbox.namespace.as_str(), sandbox.name.as_str()),
        uid: if sandbox.is_static { Uid::UNKNOWN } else { Uid::parse(&sandbox.uid) },
        id: sandbox.id,
        labels: Some(labels),
        addresses,
    })
}

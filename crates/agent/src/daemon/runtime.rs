//! The connection to the container runtime: its announcements go to the worker, which programs the pods, and the worker's outcomes back.
//!
//! ```text
//!   container runtime ── NRI ──► follow (async) ── RuntimeEvent ──► Inbox ──► Worker
//!                  ◄── answer ──                ◄── StartOutcome ─────────────┘
//! ```
//!
//! A runtime waits for an answer before it starts a pod's containers. Each wait is bounded here, whatever the worker does.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use palisade_nri::{Answer, Connection, Event, Identity, InvalidSandbox, NriError, RuntimeInfo, Sandbox};
use palisade_policy::{Labels, ObjectKey, Uid};

use super::{
    pod_addresses::PodAddresses, pod_gate::PodGate, runtime_event::RuntimeEvent, start_outcome::StartOutcome,
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
/// The pause after a failure. It doubles up to [`MAX_RETRY`], and is short again when the runtime has another socket.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const MAX_RETRY: Duration = Duration::from_secs(30);
/// How often the socket is looked at during a pause: a runtime that has started again starts pods at once.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Labels that the kubelet adds to those of the pod.
const KUBELET_LABELS: [&str; 3] =
    ["io.kubernetes.pod.name", "io.kubernetes.pod.namespace", "io.kubernetes.pod.uid"];

/// What the connection needs of the settings and of the process.
#[derive(Clone, Debug)]
pub(super) struct RuntimeFollower {
    socket: PathBuf,
    mode: Nri,
    gate: PodGate,
    addresses: PodAddresses,
}

impl RuntimeFollower {
    /// Returns `None` if the runtime isn't to be followed.
    pub(super) fn new(config: &Config, gate: &PodGate) -> Option<Self> {
        (config.nri != Nri::Off).then(|| Self {
            socket: config.nri_socket.clone(),
            mode: config.nri,
            gate: gate.clone(),
            addresses: PodAddresses::default(),
        })
    }

    /// Follows the runtime as long as the process runs.
    pub(super) async fn run(self) {
        let mut pause = FIRST_RETRY;
        let mut logged = None;
        loop {
            // Looked at first: one that replaces it during the attempt is another one.
            let tried = SocketFile::at(&self.socket);
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
                        "lost the connection to the container runtime, reconnecting; pods may start before they are isolated"
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
            let is_another = self.wait_for_another(tried.as_ref(), pause).await;
            pause = if is_another { FIRST_RETRY } else { (pause * 2).min(MAX_RETRY) };
        }
    }

    /// Waits for a pause, or until there is another socket than the one that was tried: the runtime has started again. Returns whether there is.
    async fn wait_for_another(&self, tried: Option<&SocketFile>, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        loop {
            let found = SocketFile::at(&self.socket);
            if found.is_some() && found.as_ref() != tried {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            tokio::time::sleep(left.min(LOOK_INTERVAL)).await;
        }
    }

    fn log_failure(&self, error: &NriError, err: &str) {
        match (self.mode, error) {
            (Nri::Auto, NriError::NoSocket { .. }) => {
                tracing::info!(err, "no container runtime with NRI, pods may start before they are isolated");
            }
            _ => {
                self.gate.metrics.errors.get_or_create(&StageLabel { stage: "runtime" }).inc();
                tracing::warn!(
                    err,
                    "cannot connect to the container runtime, retrying; pods may start before they are isolated"
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
                Ok(event) => self.handle(event, patience).await,
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

    async fn handle(&self, event: Event, patience: Duration) {
        match event {
            Event::Synchronize { sandboxes, invalid, answer } => {
                invalid.iter().for_each(|invalid| self.log_invalid(invalid));
                let pods: Vec<RuntimePod> = sandboxes.into_iter().filter_map(runtime_pod).collect();
                self.gate.inbox.add_runtime(RuntimeEvent::Synchronized(pods));
                answer.accept();
            }
            Event::PodStarts { sandbox, answer } => self.start(sandbox, answer, patience).await,
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
        tracing::warn!(err = %invalid, "refused an invalid pod from the container runtime");
    }

    /// The addresses of a pod that the runtime names without any.
    async fn addresses_in(&self, namespace: &Path, pod: &str) -> Vec<IpAddr> {
        let read = self.addresses.read(namespace).await;
        let (err, found) = match read {
            Ok(found) => (None, found.iter().map(IpAddr::to_canonical).filter(is_of_pod).collect()),
            Err(error) => (Some(error_chain::with_causes(&error)), Vec::new()),
        };
        if found.is_empty() {
            tracing::warn!(
                pod,
                err,
                "the container runtime reports no address of the pod, it is isolated once the API server does"
            );
        }
        found
    }

    /// Announces a pod, and answers once it is programmed. Addresses that the runtime doesn't report are waited for here, so that what it reports
    /// next is not handled before: its end, for example.
    async fn start(&self, sandbox: Sandbox, answer: Answer, patience: Duration) {
        let arrived = Instant::now();
        let key = format!("{}/{}", sandbox.namespace, sandbox.name);
        let namespace = sandbox.network_namespace.clone();
        let Some(mut pod) = runtime_pod(sandbox) else {
            self.gate.count("host-network");
            answer.accept();
            return;
        };
        if let (true, Some(namespace)) = (pod.addresses.is_empty(), namespace) {
            pod.addresses = self.addresses_in(&namespace, &key).await;
        }
        if pod.addresses.is_empty() {
            self.gate.count("no-address");
            answer.accept();
            return;
        }
        let announced = self.gate.announce(pod, arrived, patience);
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

/// Tells a socket's file from another one at the same path.
#[derive(Debug, PartialEq, Eq)]
struct SocketFile {
    device: u64,
    inode: u64,
    /// Inodes are used again.
    changed: (i64, i64),
}

impl SocketFile {
    /// Returns `None` if there is none, or it can't be looked at.
    fn at(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        let changed = (found.ctime(), found.ctime_nsec());
        Some(Self { device: found.dev(), inode: found.ino(), changed })
    }
}

/// Returns the pod of a sandbox, without addresses that can't be its own. `None` if it has no network namespace of its own: then addresses are
/// the node's.
fn runtime_pod(sandbox: Sandbox) -> Option<RuntimePod> {
    let network_namespace = Some(sandbox.network_namespace?);
    let addresses: Vec<IpAddr> =
        sandbox.addresses.iter().map(IpAddr::to_canonical).filter(is_of_pod).collect();
    let labels = sandbox.labels.iter().filter(|(key, _)| !KUBELET_LABELS.contains(&key.as_str()));
    let labels: Labels = labels.map(|(key, value)| (key.as_str(), value.as_str())).collect();
    Some(RuntimePod {
        key: ObjectKey::new(sandbox.namespace.as_str(), sandbox.name.as_str()),
        uid: Uid::parse(&sandbox.uid),
        id: sandbox.id,
        labels: Some(labels),
        addresses,
        network_namespace,
    })
}

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
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_nri::{Answer, Connection, Event, Identity, InvalidSandbox, NriError, RuntimeInfo, Sandbox};
use palisade_policy::{Labels, ObjectKey, Uid};
use tokio::{sync::oneshot, time::timeout};

use super::{
    inbox::Inbox,
    runtime_event::{RuntimeEvent, Start, StartOutcome},
};
use crate::{
    config::{Config, Nri, PodStart},
    error_chain,
    metrics::{Metrics, ResultLabel, StageLabel},
    runtime_pods::RuntimePod,
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
/// How long the worker has to answer beyond the deadline that it is given.
const GRACE: Duration = Duration::from_millis(150);
/// Labels that the kubelet adds to those of the pod.
const KUBELET_LABELS: [&str; 3] =
    ["io.kubernetes.pod.name", "io.kubernetes.pod.namespace", "io.kubernetes.pod.uid"];

/// What the connection needs of the settings and of the process.
#[derive(Clone, Debug)]
pub(super) struct RuntimeFollower {
    socket: PathBuf,
    mode: Nri,
    pod_start: PodStart,
    timeout: Duration,
    inbox: Arc<Inbox>,
    metrics: Arc<Metrics>,
}

impl RuntimeFollower {
    /// Returns `None` if the runtime isn't to be followed.
    pub(super) fn new(config: &Config, inbox: &Arc<Inbox>, metrics: &Arc<Metrics>) -> Option<Self> {
        (config.nri != Nri::Off).then(|| Self {
            socket: config.nri_socket.clone(),
            mode: config.nri,
            pod_start: config.pod_start,
            timeout: Duration::from_millis(config.pod_start_timeout),
            inbox: Arc::clone(inbox),
            metrics: Arc::clone(metrics),
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
                    self.metrics.runtime_connected.set(0);
                    self.inbox.add_runtime(RuntimeEvent::Disconnected);
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
                self.metrics.errors.get_or_create(&StageLabel { stage: "runtime" }).inc();
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
        self.metrics.runtime_connected.set(1);
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
        let patience = self.timeout.min(most);
        tracing::info!(
            runtime = runtime.name,
            version = runtime.version,
            timeout_ms = patience.as_millis() as u64,
            "connected to the container runtime, pods are isolated before they start"
        );
        if patience < self.timeout {
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
                self.inbox.add_runtime(RuntimeEvent::Synchronized(pods));
                answer.accept();
            }
            Event::PodStarts { sandbox, answer } => self.start(sandbox, answer, patience),
            Event::PodStopped { sandbox, answer } => {
                self.inbox.add_runtime(RuntimeEvent::Stopped(sandbox.id));
                answer.accept();
            }
            Event::Invalid(invalid) => {
                self.log_invalid(&invalid);
                self.count("invalid");
            }
            Event::Shutdown => tracing::debug!("the container runtime stops"),
        }
    }

    fn log_invalid(&self, invalid: &InvalidSandbox) {
        tracing::warn!(err = %invalid, "the container runtime describes a pod that no pod can be, refused it");
    }

    fn start(&self, sandbox: Sandbox, answer: Answer, patience: Duration) {
        let arrived = Instant::now();
        let is_host_network = sandbox.network_namespace.is_none();
        let key = format!("{}/{}", sandbox.namespace, sandbox.name);
        let Some(pod) = runtime_pod(sandbox) else {
            if is_host_network {
                self.count("host-network");
            } else {
                tracing::warn!(
                    pod = key,
                    "the container runtime names no address of the pod, it is isolated once the API server does"
                );
                self.count("no-address");
            }
            answer.accept();
            return;
        };
        let (respond, outcome) = oneshot::channel();
        let id = pod.id.clone();
        let start = Start { pod, arrived, deadline: arrived + patience.saturating_sub(GRACE), respond };
        self.inbox.add_runtime(RuntimeEvent::Started(start));
        let this = self.clone();
        tokio::spawn(async move {
            let outcome = match timeout(patience.saturating_sub(arrived.elapsed()), outcome).await {
                Ok(Ok(outcome)) => outcome,
                // The worker is in a long transaction, or has ended.
                _ => this.without_outcome(),
            };
            this.answer(&key, id, outcome, answer, arrived);
        });
    }

    fn without_outcome(&self) -> StartOutcome {
        let reason = "the agent is busy with another change".to_owned();
        match self.pod_start {
            PodStart::Closed => StartOutcome::Refused(reason),
            PodStart::Open => StartOutcome::Open(reason),
        }
    }

    fn answer(&self, pod: &str, id: String, outcome: StartOutcome, answer: Answer, arrived: Instant) {
        let waited = arrived.elapsed();
        self.metrics.pod_start_latency.observe(waited.as_secs_f64());
        self.count(outcome.label());
        if answer.is_too_late() {
            tracing::warn!(
                pod,
                "the container runtime did not wait, pod may have started before it was isolated"
            );
        }
        match outcome {
            StartOutcome::Programmed => {
                tracing::debug!(
                    pod,
                    duration_us = waited.as_micros() as u64,
                    "programmed pod before its start"
                );
            }
            StartOutcome::Closed => {
                tracing::warn!(pod, "pod starts closed, its policies are not known yet");
            }
            StartOutcome::Open(err) => {
                tracing::error!(pod, err, "pod starts before its policies are programmed");
            }
            StartOutcome::Refused(reason) => {
                tracing::error!(
                    pod,
                    err = reason,
                    "refused to start pod, it could not be isolated; the kubelet tries again"
                );
                // A runtime doesn't announce the end of a sandbox that was refused.
                self.inbox.add_runtime(RuntimeEvent::Stopped(id));
                answer.refuse(format!("palisade: {pod} could not be isolated: {reason}"));
                return;
            }
        }
        answer.accept();
    }

    fn count(&self, result: &'static str) {
        self.metrics.pod_starts.get_or_create(&ResultLabel { result }).inc();
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
        labels,
        addresses,
    })
}

/// Whether an address can be a pod's own.
fn is_of_pod(address: &IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(is_link_local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}

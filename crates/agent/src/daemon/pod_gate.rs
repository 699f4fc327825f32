//! Holds the start of pods until the worker has programmed them. The container runtime announces them by NRI, or the CNI plugin does.
//! Each wait is bounded here, whatever the worker does.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, time::timeout};

use super::{
    inbox::Inbox,
    runtime_event::{RuntimeEvent, Start, StartOutcome},
};
use crate::{
    config::{Config, PodStart},
    metrics::{Metrics, ResultLabel},
    runtime_pods::RuntimePod,
};

/// How long the worker has to answer beyond the deadline that it is given.
const GRACE: Duration = Duration::from_millis(150);

/// What the start of a pod needs of the settings and of the process.
#[derive(Clone, Debug)]
pub(super) struct PodGate {
    pod_start: PodStart,
    pub(super) timeout: Duration,
    pub(super) inbox: Arc<Inbox>,
    pub(super) metrics: Arc<Metrics>,
}

/// A pod that the worker has been told of. If this is dropped before the outcome is known, the pod is taken back.
#[derive(Debug)]
pub(super) struct Announced {
    gate: PodGate,
    key: String,
    unstarted: Unstarted,
    arrived: Instant,
    patience: Duration,
    outcome: oneshot::Receiver<StartOutcome>,
}

/// A pod that may not start. If it doesn't, no one announces its end, so dropping this takes it back.
#[derive(Debug)]
struct Unstarted {
    inbox: Arc<Inbox>,
    id: Option<String>,
}

impl Drop for Unstarted {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.inbox.add_runtime(RuntimeEvent::Stopped(id));
        }
    }
}

impl PodGate {
    pub(super) fn new(config: &Config, inbox: &Arc<Inbox>, metrics: &Arc<Metrics>) -> Self {
        Self {
            pod_start: config.pod_start,
            timeout: Duration::from_millis(config.pod_start_timeout),
            inbox: Arc::clone(inbox),
            metrics: Arc::clone(metrics),
        }
    }

    /// Tells the worker of a pod, in the order of these calls. It may wait for `patience` from its arrival on.
    pub(super) fn announce(&self, pod: RuntimePod, arrived: Instant, patience: Duration) -> Announced {
        let (respond, outcome) = oneshot::channel();
        let unstarted = Unstarted { inbox: Arc::clone(&self.inbox), id: Some(pod.id.clone()) };
        let key = pod.key.to_string();
        let start = Start { pod, arrived, deadline: arrived + patience.saturating_sub(GRACE), respond };
        self.inbox.add_runtime(RuntimeEvent::Started(start));
        Announced { gate: self.clone(), key, unstarted, arrived, patience, outcome }
    }

    pub(super) fn count(&self, result: &'static str) {
        self.metrics.pod_starts.get_or_create(&ResultLabel { result }).inc();
    }
}

impl Announced {
    /// Waits until the pod is programmed, for a bounded time, and logs how it starts. A pod that is refused is taken back.
    pub(super) async fn outcome(self) -> StartOutcome {
        let Self { gate, key: pod, mut unstarted, arrived, patience, outcome } = self;
        let outcome = match timeout(patience.saturating_sub(arrived.elapsed()), outcome).await {
            Ok(Ok(outcome)) => outcome,
            // The worker is in a long transaction, or has ended.
            _ => gate.without_outcome(),
        };
        let waited = arrived.elapsed();
        gate.metrics.pod_start_latency.observe(waited.as_secs_f64());
        gate.count(outcome.label());
        match &outcome {
            StartOutcome::Programmed => {
                tracing::debug!(
                    pod,
                    duration_us = waited.as_micros() as u64,
                    "programmed pod before its start"
                );
            }
            StartOutcome::Closed(err) => {
                tracing::warn!(
                    pod,
                    err,
                    "pod starts closed, its traffic is dropped until its policies are in force"
                );
            }
            StartOutcome::Open(err) => {
                tracing::error!(pod, err, "pod starts before its policies are programmed");
            }
            StartOutcome::Refused(err) => {
                tracing::error!(
                    pod,
                    err,
                    "refused to start pod, it could not be isolated; the kubelet tries again"
                );
                return outcome;
            }
        }
        unstarted.id = None;
        outcome
    }
}

impl PodGate {
    fn without_outcome(&self) -> StartOutcome {
        let reason = "the agent is busy with another change".to_owned();
        match self.pod_start {
            PodStart::Closed => StartOutcome::Refused(reason),
            PodStart::Open => StartOutcome::Open(reason),
        }
    }
}

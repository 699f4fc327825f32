//! Holds the start of pods until the worker has programmed them. The container runtime announces them by NRI, or the CNI plugin does.
//! Each wait is bounded here, whatever the worker does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, time::timeout};

use super::{
    inbox::Inbox,
    runtime_event::{RuntimeEvent, Start},
    start_outcome::StartOutcome,
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
    /// The number of the last start.
    last: Arc<AtomicU64>,
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

/// A pod that may not start. If it doesn't, no one announces its end, so dropping this takes it back. With `pod-start: open` it starts whatever
/// happens, and the addresses of a pod that runs must not be taken for free.
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
            last: Arc::default(),
            inbox: Arc::clone(inbox),
            metrics: Arc::clone(metrics),
        }
    }

    /// Tells the worker of a pod, in the order of these calls. It may wait for `patience` from its arrival on.
    pub(super) fn announce(&self, pod: RuntimePod, arrived: Instant, patience: Duration) -> Announced {
        let (respond, outcome) = oneshot::channel();
        let id = (!self.starts_whatever_happens()).then(|| pod.id.clone());
        let unstarted = Unstarted { inbox: Arc::clone(&self.inbox), id };
        let key = pod.key.to_string();
        let start = Start {
            number: self.last.fetch_add(1, Ordering::Relaxed),
            pod,
            arrived,
            patience: patience.saturating_sub(GRACE),
            respond,
        };
        self.inbox.add_runtime(RuntimeEvent::Started(start));
        Announced { gate: self.clone(), key, unstarted, arrived, patience, outcome }
    }

    /// Whether pods start also if the agent doesn't answer.
    pub(super) fn starts_whatever_happens(&self) -> bool {
        self.pod_start == PodStart::Open
    }

    pub(super) fn count(&self, result: &'static str) {
        self.metrics.pod_starts.get_or_create(&ResultLabel { result }).inc();
    }
}

impl Announced {
    /// Waits until the runtime may go on with the pod, for a bounded time. Logs and counts how the pod starts.
    pub(super) async fn outcome(self) -> StartOutcome {
        let Self { gate, key: pod, mut unstarted, arrived, patience, outcome } = self;
        let outcome = match timeout(patience.saturating_sub(arrived.elapsed()), outcome).await {
            Ok(Ok(outcome)) => outcome,
            // The worker is in a long transaction, or has ended.
            _ => gate.without_outcome(),
        };
        if !matches!(outcome, StartOutcome::Refused(_)) {
            unstarted.id = None;
        }
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
                tracing::warn!(pod, err, "pod starts closed, all its traffic is dropped until it is opened");
            }
            StartOutcome::Open(err) => {
                tracing::error!(pod, err, "pod starts before it is isolated");
            }
            StartOutcome::Refused(err) => {
                tracing::error!(
                    pod,
                    err,
                    "refused to start pod, it could not be isolated; the kubelet tries again"
                );
            }
        }
        outcome
    }
}

impl PodGate {
    /// The answer if the worker has none in time.
    fn without_outcome(&self) -> StartOutcome {
        let reason = "the agent is busy with another change".to_owned();
        match self.pod_start {
            PodStart::Closed => StartOutcome::Refused(reason),
            PodStart::Open => StartOutcome::Open(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::{Name, ObjectKey, Uid};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn gate() -> PodGate {
        gate_that_starts(PodStart::Closed)
    }

    fn gate_that_starts(pod_start: PodStart) -> PodGate {
        let metrics = Arc::new(Metrics::new("", &Name::from("n1")));
        PodGate::new(&Config { pod_start, ..Config::default() }, &Arc::default(), &metrics)
    }

    fn announce(gate: &PodGate, patience: Duration) -> (Announced, Start) {
        let pod = RuntimePod {
            id: "4f2a".to_owned(),
            key: ObjectKey::new("shop", "db"),
            uid: Uid::parse("u"),
            labels: None,
            addresses: vec![[10, 0, 0, 1].into()],
            network_namespace: None,
        };
        let announced = gate.announce(pod, Instant::now(), patience);
        let mut events = gate.inbox.take(Duration::ZERO).runtime;
        match (events.pop(), events.is_empty()) {
            (Some(RuntimeEvent::Started(start)), true) => (announced, start),
            other => panic!("{other:?}"),
        }
    }

    fn counted(gate: &PodGate, result: &'static str) -> u64 {
        gate.metrics.pod_starts.get_or_create(&ResultLabel { result }).get()
    }

    #[tokio::test]
    async fn a_pod_starts_as_the_worker_says() {
        let gate = gate();
        let (announced, start) = announce(&gate, LONG);
        start.answer(StartOutcome::Programmed);
        assert_eq!(announced.outcome().await, StartOutcome::Programmed);
        assert_eq!(counted(&gate, "programmed"), 1);
        assert!(gate.inbox.take(Duration::ZERO).runtime.is_empty(), "the runtime announces its end");
    }

    #[tokio::test]
    async fn a_pod_for_which_no_one_waits_any_longer_is_taken_back_unless_it_starts_all_the_same() {
        for (pod_start, taken_back) in [(PodStart::Closed, 1), (PodStart::Open, 0)] {
            let gate = gate_that_starts(pod_start);
            let (announced, _start) = announce(&gate, LONG);
            drop(announced);
            assert_eq!(gate.inbox.take(Duration::ZERO).runtime.len(), taken_back, "{pod_start:?}");
        }
    }

    #[tokio::test]
    async fn a_pod_that_does_not_start_is_taken_back() {
        let gate = gate();
        let (announced, _start) = announce(&gate, Duration::from_millis(1));
        let refused = StartOutcome::Refused("the agent is busy with another change".to_owned());
        assert_eq!(announced.outcome().await, refused);
        assert_eq!(counted(&gate, "refused"), 1);
        let events = gate.inbox.take(Duration::ZERO).runtime;
        assert!(matches!(&events[..], [RuntimeEvent::Stopped(id)] if id == "4f2a"), "{events:?}");
    }
}

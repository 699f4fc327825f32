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
    container_gate::{ContainerGate, HeldContainers},
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
    /// What a runtime asks before it starts a container.
    pub(super) containers: ContainerGate,
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
    /// What its containers wait for, if the runtime asks again before it starts one.
    containers: Option<HeldContainers>,
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
            containers: ContainerGate::default(),
            last: Arc::default(),
            inbox: Arc::clone(inbox),
            metrics: Arc::clone(metrics),
        }
    }

    /// Tells the worker of a pod, in the order of these calls. It may wait for `patience` from its arrival on. With `asks_again`, the runtime
    /// asks [`PodGate::containers`] before it starts a container, and starts none that is refused. Then the pod's sandbox doesn't wait for the
    /// deletion of older connections.
    pub(super) fn announce(
        &self,
        pod: RuntimePod,
        arrived: Instant,
        patience: Duration,
        asks_again: bool,
    ) -> Announced {
        let (respond, outcome) = oneshot::channel();
        let unstarted = Unstarted { inbox: Arc::clone(&self.inbox), id: Some(pod.id.clone()) };
        let key = pod.key.to_string();
        let (held, containers) = asks_again.then(|| self.containers.hold(&pod.id, &key)).unzip();
        let start = Start {
            number: self.last.fetch_add(1, Ordering::Relaxed),
            pod,
            arrived,
            patience: patience.saturating_sub(GRACE),
            respond: Some(respond),
            containers: held,
        };
        self.inbox.add_runtime(RuntimeEvent::Started(start));
        Announced { gate: self.clone(), key, unstarted, arrived, patience, outcome, containers }
    }

    pub(super) fn count(&self, result: &'static str) {
        self.metrics.pod_starts.get_or_create(&ResultLabel { result }).inc();
    }
}

impl Announced {
    /// Waits until the runtime may go on with the pod, for a bounded time. [`Answered::log`] follows.
    pub(super) async fn answer(self) -> (StartOutcome, Answered) {
        let Self { gate, key, mut unstarted, arrived, patience, outcome, containers } = self;
        let outcome = match timeout(patience.saturating_sub(arrived.elapsed()), outcome).await {
            Ok(Ok(outcome)) => outcome,
            // The worker is in a long transaction, or has ended.
            _ => gate.without_outcome(),
        };
        if !matches!(outcome, StartOutcome::Refused(_)) {
            unstarted.id = None;
        }
        let answered =
            Answered { gate, key, outcome: outcome.clone(), waited: arrived.elapsed(), containers };
        (outcome, answered)
    }

    /// The same for those who don't ask again before containers start. The pod's start is logged.
    pub(super) async fn outcome(self) -> StartOutcome {
        let (outcome, answered) = self.answer().await;
        answered.log().await;
        outcome
    }
}

/// A pod with which the runtime goes on, or doesn't.
#[derive(Debug)]
pub(super) struct Answered {
    gate: PodGate,
    key: String,
    outcome: StartOutcome,
    waited: Duration,
    containers: Option<HeldContainers>,
}

impl Answered {
    /// Logs and counts how the pod starts, once its containers may.
    pub(super) async fn log(self) {
        let Self { gate, key: pod, mut outcome, mut waited, containers } = self;
        if let (StartOutcome::Programmed, Some(mut containers)) = (&outcome, containers) {
            // Nothing more is to be said of a pod that is stopped before.
            outcome = containers.outcome().await.unwrap_or(outcome);
            waited += containers.waited();
        }
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
            }
        }
    }
}

impl PodGate {
    /// The answer if the worker has none in time.
    pub(super) fn without_outcome(&self) -> StartOutcome {
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
    use crate::daemon::container_gate::Waited;

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(60);

    fn gate() -> PodGate {
        let metrics = Arc::new(Metrics::new("", &Name::from("n1")));
        PodGate::new(&Config::default(), &Arc::default(), &metrics)
    }

    fn announce(gate: &PodGate, asks_again: bool) -> (Announced, Start) {
        let pod = RuntimePod {
            id: "4f2a".to_owned(),
            key: ObjectKey::new("shop", "db"),
            uid: Uid::parse("u"),
            labels: None,
            addresses: vec![[10, 0, 0, 1].into()],
            network_namespace: None,
        };
        let announced = gate.announce(pod, Instant::now(), LONG, asks_again);
        let mut events = gate.inbox.take(Duration::ZERO).runtime;
        match (events.pop(), events.is_empty()) {
            (Some(RuntimeEvent::Started(start)), true) => (announced, start),
            other => panic!("{other:?}"),
        }
    }

    /// A pod with whose sandbox the runtime goes on.
    async fn gone_on(gate: &PodGate) -> (Start, Answered) {
        let (announced, mut start) = announce(gate, true);
        start.answer_for_sandbox();
        let (outcome, answered) = announced.answer().await;
        assert_eq!(outcome, StartOutcome::Programmed);
        (start, answered)
    }

    fn counted(gate: &PodGate, result: &'static str) -> u64 {
        gate.metrics.pod_starts.get_or_create(&ResultLabel { result }).get()
    }

    #[tokio::test]
    async fn a_sandbox_goes_on_while_its_containers_wait() {
        let gate = gate();
        let (announced, mut start) = announce(&gate, true);
        assert!(start.deadline().is_some());
        start.answer_for_sandbox();
        let (outcome, answered) = announced.answer().await;
        assert_eq!(outcome, StartOutcome::Programmed);
        assert!(start.holds_containers_only() && start.deadline().is_none(), "no container has asked");
        let mut container = gate.containers.held("4f2a").unwrap();
        assert_eq!(container.wait(SHORT).await, Waited::TooLong);
        assert!(start.deadline().is_some() && counted(&gate, "programmed") == 0);
        start.answer(StartOutcome::Closed("slow".to_owned()));
        assert_eq!(container.wait(SHORT).await, Waited::Released(StartOutcome::Closed("slow".to_owned())));
        answered.log().await;
        assert_eq!((counted(&gate, "programmed"), counted(&gate, "closed")), (0, 1));
        assert!(gate.containers.held("4f2a").is_none());
    }

    #[tokio::test]
    async fn refused_containers_are_refused_until_they_may_start() {
        let gate = gate();
        let (start, answered) = gone_on(&gate).await;
        let refused = StartOutcome::Refused("no memory".to_owned());
        start.refuse_containers(refused.clone());
        answered.log().await;
        assert_eq!(counted(&gate, "refused"), 1);
        let mut container = gate.containers.held("4f2a").unwrap();
        assert_eq!(container.wait(SHORT).await, Waited::Released(refused));
        start.answer(StartOutcome::Programmed);
        assert_eq!(container.wait(SHORT).await, Waited::Released(StartOutcome::Programmed));
    }

    #[tokio::test]
    async fn who_does_not_ask_again_waits_for_everything_at_once() {
        let gate = gate();
        let (announced, mut start) = announce(&gate, false);
        start.answer_for_sandbox();
        assert!(!start.holds_containers_only() && gate.containers.held("4f2a").is_none());
        start.answer(StartOutcome::Programmed);
        assert_eq!(announced.outcome().await, StartOutcome::Programmed);
        assert_eq!(counted(&gate, "programmed"), 1);
    }

    #[tokio::test]
    async fn a_pod_that_is_stopped_while_its_containers_wait_holds_nothing() {
        let gate = gate();
        let (start, answered) = gone_on(&gate).await;
        let mut container = gate.containers.held("4f2a").unwrap();
        drop(start);
        assert_eq!(container.wait(LONG).await, Waited::Gone);
        answered.log().await;
        assert_eq!((counted(&gate, "programmed"), counted(&gate, "refused")), (1, 0));
    }
}

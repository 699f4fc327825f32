//! Holds the containers of pods whose older connections are still being deleted.
//!
//! ```text
//!   container runtime ── RunPodSandbox ──► policies are programmed ──► answer
//!                     creates a container           │ meanwhile, older connections are deleted
//!                     ── StartContainer ──► wait ◄──┘ Release ──► answer, before the container's first instruction
//! ```
//!
//! Between the two requests a runtime prepares the container, for longer than the deletion takes on most nodes. So pods rarely wait for it.
//! The thread that deletes connections releases the containers itself, so that they don't wait for what the worker is doing.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::timeout};

use super::start_outcome::StartOutcome;

/// The sandboxes whose containers are held.
#[derive(Clone, Debug, Default)]
pub(super) struct ContainerGate(Arc<Sandboxes>);

#[derive(Debug, Default)]
struct Sandboxes {
    held: Mutex<HashMap<String, (u64, HeldContainers)>>,
    /// Tells the holds of one sandbox that is announced again apart.
    last: AtomicU64,
}

impl Sandboxes {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, (u64, HeldContainers)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds the containers of a sandbox as long as it exists, and until it is released.
#[derive(Debug)]
pub(crate) struct Held {
    sandboxes: Arc<Sandboxes>,
    sandbox: String,
    number: u64,
    release: Release,
    asked: Arc<OnceLock<Instant>>,
}

/// Says how the pod of a sandbox starts.
#[derive(Clone, Debug)]
pub(super) struct Release(watch::Sender<Option<StartOutcome>>);

/// What those see who wait.
#[derive(Clone, Debug)]
pub(super) struct HeldContainers {
    /// The pod.
    pub(super) pod: String,
    outcome: watch::Receiver<Option<StartOutcome>>,
    /// When the first container was about to start.
    asked: Arc<OnceLock<Instant>>,
}

/// How the wait of a container ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// It is known how the pod starts.
    Released(StartOutcome),
    /// Nothing holds the container any longer: the sandbox was stopped, or the agent stops.
    Gone,
    /// The time is over.
    TooLong,
}

impl ContainerGate {
    /// Holds the containers of a pod's sandbox from now on.
    pub(super) fn hold(&self, sandbox: &str, pod: &str) -> (Held, HeldContainers) {
        let (sender, outcome) = watch::channel(None);
        let asked = Arc::<OnceLock<Instant>>::default();
        let containers = HeldContainers { pod: pod.to_owned(), outcome, asked: Arc::clone(&asked) };
        let number = self.0.last.fetch_add(1, Ordering::Relaxed);
        self.0.lock().insert(sandbox.to_owned(), (number, containers.clone()));
        let sandboxes = Arc::clone(&self.0);
        let held = Held { sandboxes, sandbox: sandbox.to_owned(), number, release: Release(sender), asked };
        (held, containers)
    }

    /// Returns what the containers of a sandbox have to wait for, if they have to.
    pub(super) fn held(&self, sandbox: &str) -> Option<HeldContainers> {
        self.0.lock().get(sandbox).map(|(_, containers)| containers.clone())
    }
}

impl Held {
    /// Returns what tells the containers how the pod starts. A refusal holds until something else is said, or until this is dropped.
    pub(super) fn release(&self) -> &Release {
        &self.release
    }

    /// When the first container was about to start.
    pub(super) fn asked(&self) -> Option<Instant> {
        self.asked.get().copied()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.sandboxes.lock();
        if held.get(&self.sandbox).is_some_and(|(number, _)| *number == self.number) {
            held.remove(&self.sandbox);
        }
    }
}

impl Release {
    pub(super) fn say(&self, outcome: StartOutcome) {
        self.0.send_replace(Some(outcome));
    }
}

impl HeldContainers {
    /// Waits until it is known whether the containers may start.
    pub(super) async fn wait(&mut self, patience: Duration) -> Waited {
        self.asked.get_or_init(Instant::now);
        match timeout(patience, self.outcome()).await {
            Ok(outcome) => outcome.map_or(Waited::Gone, Waited::Released),
            Err(_) => Waited::TooLong,
        }
    }

    /// Waits for how the pod starts. `None` if its sandbox was stopped before.
    pub(super) async fn outcome(&mut self) -> Option<StartOutcome> {
        self.outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone())
    }

    /// For how long the first container has waited until now.
    pub(super) fn waited(&self) -> Duration {
        self.asked.get().map_or(Duration::ZERO, Instant::elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn containers_of_a_held_sandbox_wait_for_its_release() {
        let gate = ContainerGate::default();
        assert!(gate.held("a").is_none(), "what nothing holds doesn't wait");
        let (held, mut pod) = gate.hold("a", "shop/db");
        assert!(gate.held("b").is_none() && held.asked().is_none());
        let mut container = gate.held("a").unwrap();
        assert_eq!(container.wait(SHORT).await, Waited::TooLong);
        assert!(held.asked().is_some() && pod.waited() > Duration::ZERO);
        let waiting = tokio::spawn(async move { container.wait(LONG).await });
        tokio::task::yield_now().await;
        // By another thread, which doesn't hold.
        held.release().clone().say(StartOutcome::Programmed);
        assert_eq!(waiting.await.unwrap(), Waited::Released(StartOutcome::Programmed));
        assert_eq!(pod.outcome().await, Some(StartOutcome::Programmed));
        // As long as the worker doesn't know, later containers see the same.
        assert_eq!(gate.held("a").unwrap().wait(SHORT).await, Waited::Released(StartOutcome::Programmed));
        drop(held);
        assert!(gate.held("a").is_none(), "later containers don't wait");
    }

    #[tokio::test]
    async fn a_refusal_holds_until_something_else_is_said() {
        let gate = ContainerGate::default();
        let (held, _pod) = gate.hold("a", "shop/db");
        let refused = StartOutcome::Refused("no memory".to_owned());
        held.release().say(refused.clone());
        for _ in 0..2 {
            assert_eq!(gate.held("a").unwrap().wait(SHORT).await, Waited::Released(refused.clone()));
        }
        held.release().say(StartOutcome::Programmed);
        let waited = gate.held("a").unwrap().wait(SHORT).await;
        assert_eq!(waited, Waited::Released(StartOutcome::Programmed));
    }

    #[tokio::test]
    async fn a_stopped_sandbox_holds_nothing_and_a_second_hold_outlives_the_first() {
        let gate = ContainerGate::default();
        let (first, mut of_first) = gate.hold("a", "shop/db");
        let (second, _) = gate.hold("a", "shop/db");
        drop(first);
        assert_eq!(of_first.outcome().await, None);
        let mut container = gate.held("a").unwrap();
        drop(second);
        assert_eq!(container.wait(LONG).await, Waited::Gone);
        assert!(gate.held("a").is_none());
    }
}

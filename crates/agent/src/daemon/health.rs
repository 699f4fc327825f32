//! What `/healthz` and `/readyz` say.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The thread that works on the kernel looks up once a second. A first plan of a large cluster, or a transaction on a busy
/// kernel, takes seconds; one that takes so long never ends.
const STUCK: Duration = Duration::from_secs(120);

/// How the agent fares, for those who ask often.
#[derive(Debug)]
pub(crate) struct Health {
    started: Instant,
    /// Milliseconds from the start to the last sign of life.
    beat: AtomicU64,
    not_ready: Mutex<Option<String>>,
}

impl Default for Health {
    fn default() -> Self {
        let not_ready = Mutex::new(Some("the agent is starting".to_owned()));
        Self { started: Instant::now(), beat: AtomicU64::new(0), not_ready }
    }
}

impl Health {
    /// A sign of life.
    pub(crate) fn beat(&self) {
        let since = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beat.store(since, Ordering::Relaxed);
    }

    /// Says why the agent is not ready; `None`: it is.
    pub(crate) fn set(&self, not_ready: Option<String>) {
        *self.not_ready.lock().unwrap_or_else(PoisonError::into_inner) = not_ready;
    }

    /// Whether the agent's loop turns.
    pub(crate) fn alive(&self) -> Result<(), String> {
        let last = Duration::from_millis(self.beat.load(Ordering::Relaxed));
        match self.started.elapsed().saturating_sub(last) {
            silent if silent > STUCK => {
                Err(format!("the thread that works on the kernel is stuck for {} s", silent.as_secs()))
            }
            _ => Ok(()),
        }
    }

    /// Whether the first whole snapshot is programmed and the kernel holds the latest plan.
    pub(crate) fn ready(&self) -> Result<(), String> {
        self.not_ready.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }

    /// For how long the agent has run.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

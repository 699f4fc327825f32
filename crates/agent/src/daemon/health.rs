//! State behind `/healthz` and `/readyz`.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Without a heartbeat for this long, the worker thread counts as stuck. It sends one every second, except during a
/// transaction; the first plan of a large cluster, or any transaction on a busy kernel, takes seconds.
const STUCK_AFTER: Duration = Duration::from_secs(120);

/// Liveness and readiness of the agent.
#[derive(Debug)]
pub(crate) struct Health {
    started: Instant,
    /// Milliseconds from the start to the last heartbeat.
    heartbeat: AtomicU64,
    not_ready: Mutex<Option<String>>,
}

impl Default for Health {
    fn default() -> Self {
        let not_ready = Mutex::new(Some("the agent is starting".to_owned()));
        Self { started: Instant::now(), heartbeat: AtomicU64::new(0), not_ready }
    }
}

impl Health {
    /// Records that the worker thread is alive.
    pub(crate) fn beat(&self) {
        let since = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heartbeat.store(since, Ordering::Relaxed);
    }

    /// Sets why the agent is not ready; `None` means that it is ready.
    pub(crate) fn set_not_ready(&self, reason: Option<String>) {
        *self.not_ready.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Returns an error if the worker thread is stuck.
    pub(crate) fn alive(&self) -> Result<(), String> {
        let last = Duration::from_millis(self.heartbeat.load(Ordering::Relaxed));
        match self.started.elapsed().saturating_sub(last) {
            silent if silent > STUCK_AFTER => {
                Err(format!("the worker thread has been stuck for {} s", silent.as_secs()))
            }
            _ => Ok(()),
        }
    }

    /// Returns an error unless the first snapshot is programmed and the kernel holds the latest plan.
    pub(crate) fn ready(&self) -> Result<(), String> {
        self.not_ready.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }

    /// How long the agent has been running.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

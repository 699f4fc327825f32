//! What the worker and the threads share.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{ReceiveLearned, core::Core};

/// What the threads share.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) core: Mutex<Core>,
    pub(super) receiver: Arc<dyn ReceiveLearned>,
    pub(super) started: Instant,
}

impl Link {
    /// Ignores poisoning: a panic leaves at worst an answer that is never released.
    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! What the worker and the threads share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{ReceiveLearned, clock::Clock, core::Core};

/// What the threads share.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) core: Mutex<Core>,
    pub(super) receiver: Arc<dyn ReceiveLearned>,
    pub(super) clock: Clock,
}

impl Link {
    /// Ignores poisoning: a panic leaves at worst an answer that is never released.
    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

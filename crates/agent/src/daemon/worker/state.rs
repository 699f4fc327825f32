//! The state of the node that outlives its restart.

use std::time::Instant;

use super::Worker;
use crate::{
    config::Config,
    daemon::restore::log_unwritten,
    error_chain,
    state::{Keeper, NodeState, StateFile},
};

impl Worker {
    /// Keeps the node's state in the configured directory from now on. `known` is what it has.
    pub(in crate::daemon) fn keep_state_in(&mut self, config: &Config, known: Option<NodeState>) {
        let file = config.state_dir.as_deref().map(StateFile::new);
        self.state = file.map(|file| Keeper::new(file, known, Instant::now()));
    }

    /// Writes the node's state if it has changed, not more often than every few seconds.
    pub(super) fn keep_state(&mut self) {
        let reconciler = self.agent.reconciler();
        let now = Instant::now();
        let Some(state) = self.state.as_mut().filter(|state| state.is_due(now)) else { return };
        if reconciler.is_waiting() {
            return;
        }
        let current = |before: Option<&NodeState>| {
            NodeState::of(reconciler.cluster(), reconciler.node(), reconciler.plan(), before)
        };
        if let Err(error) = state.update(now, current) {
            log_unwritten(&error);
            self.errors.record("state", error_chain::with_causes(&error));
        }
    }
}

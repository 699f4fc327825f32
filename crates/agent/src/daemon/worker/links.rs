//! Follows changes of the node's links.

use super::Worker;
use crate::error_chain;

impl Worker {
    /// Logs features that the kernel lacks, and updates the rules that depend on the node's links.
    pub(super) fn follow_links(&mut self) {
        let missing = self.agent.data_plane().missing_features();
        if missing.len() > self.missing_features {
            self.missing_features = missing.len();
            missing.iter().for_each(|feature| feature.log());
        }
        match self.agent.data_plane().refresh_links() {
            Ok(None) => {}
            Ok(Some(commit)) => {
                self.generation = commit.generation;
                tracing::debug!(elements = commit.elements, "programmed a change of the node's links");
            }
            Err(error) => {
                let err = error_chain::with_causes(&error);
                tracing::error!(
                    err,
                    "cannot read the node's links, retrying; forged and tunnelled packets of pods may pass"
                );
                self.errors.record("links", err);
            }
        }
    }
}

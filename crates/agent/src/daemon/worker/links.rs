//! Follows the node's links.

use super::Worker;
use crate::words;

impl Worker {
    /// Follows changes of the node's links.
    pub(super) fn look_around(&mut self) {
        let lacking = self.agent.data_plane().lacking();
        if lacking.len() > self.lacking {
            self.lacking = lacking.len();
            lacking.iter().for_each(|what| tracing::warn!("{what}"));
        }
        match self.agent.data_plane().look_around() {
            Ok(None) => {}
            Ok(Some(done)) => {
                self.generation = done.generation;
                tracing::debug!(elements = done.elements, "the node's links changed");
            }
            Err(error) => {
                let why = words::with_causes(&error);
                tracing::error!(
                    why,
                    "forged and tunnelled packets of pods may pass: the rules do not know the node's links; it is tried again"
                );
                self.ledger.error("links", why);
            }
        }
    }
}

//! Where the cluster comes from: the API server or manifests. Both speak [`Event`]s.

pub mod directory;
pub mod files;
mod settled;

use std::time::Instant;

pub use palisade_api::Event;

/// An event, and when it came in: for an [`Event::Snapshot`] of changed files, when the first of them changed.
#[derive(Debug)]
pub struct Heard {
    /// What.
    pub event: Event,
    /// When.
    pub at: Instant,
}

impl Heard {
    /// An event that came in just now, or when it says.
    #[must_use]
    pub fn now(event: Event) -> Self {
        let at = match &event {
            Event::Changes { received, .. } => *received,
            _ => Instant::now(),
        };
        Self { event, at }
    }
}

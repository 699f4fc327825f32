//! Sources of the cluster: the API server, or manifests in a directory. Both deliver [`Event`]s.

pub mod directory;
pub mod files;
mod writes;

use std::time::Instant;

pub use palisade_api::Event;

/// An event with its arrival time.
#[derive(Debug)]
pub struct Delivery {
    /// The event.
    pub event: Event,
    /// When it arrived. For an [`Event::Snapshot`] of changed files, when the first of them changed.
    pub received: Instant,
}

impl Delivery {
    /// Wraps an event that arrived just now, or at the time that it contains.
    #[must_use]
    pub fn now(event: Event) -> Self {
        let received = match &event {
            Event::Changes { received, .. } => *received,
            _ => Instant::now(),
        };
        Self { event, received }
    }
}

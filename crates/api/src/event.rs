//! The events that a source of objects sends to the agent.

use std::{fmt, time::Instant};

use palisade_manifest::Diagnostic;
use palisade_policy::{Change, Cluster, Name};

use crate::resource::ResourceKind;

/// An event of a source. The agent's directory source sends the same events.
#[derive(Clone, Debug)]
pub enum Event {
    /// The whole cluster, once every kind has been listed or is known not to be served. Nothing may be programmed before it. It is
    /// sent once, before the first [`Event::Changes`].
    Snapshot(Box<Cluster>),
    /// Changes, in order; never empty.
    Changes {
        /// The changes.
        changes: Vec<Change>,
        /// When the first of them was received from the network.
        received: Instant,
    },
    /// The state of a watch changed.
    Watch {
        /// The kind that is watched.
        kind: ResourceKind,
        /// The new state.
        state: WatchState,
    },
    /// The findings about an object, replacing earlier ones. Without findings the object is valid again or was deleted; a deleted
    /// object has no uid. It follows the change of its object. Findings before the snapshot are about objects in the snapshot.
    Findings {
        /// The object.
        object: ObjectRef,
        /// The findings.
        findings: Vec<Diagnostic>,
    },
}

/// The state of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchState {
    /// Reading the whole list, at first or again because the server no longer has our resource version.
    Listing,
    /// Up to date, as far as the server reports.
    Watching,
    /// The cluster doesn't serve this kind. Discovery checks it periodically.
    NotServed,
    /// The server responds that it doesn't serve this kind, which it did before. That is no failure: its
    /// CustomResourceDefinition may have been deleted. Until discovery confirms it, the last known objects stay in effect.
    Disappeared,
    /// Requests fail and are retried. The last known objects stay in effect.
    Failing {
        /// The cause and what to do about it, as text.
        why: String,
    },
}

/// A reference to an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// The kind.
    pub kind: ResourceKind,
    /// The namespace; `None` for cluster-scoped objects.
    pub namespace: Option<Name>,
    /// The name.
    pub name: Name,
    /// `metadata.uid`; empty if there is none.
    pub uid: Name,
    /// `metadata.generation`; 0 if there is none.
    pub generation: i64,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

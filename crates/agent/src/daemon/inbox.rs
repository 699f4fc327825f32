//! Inputs that wait for the worker thread.
//!
//! While a transaction runs, changes accumulate here; together they become the next transaction. Their order is kept. Once there
//! are many, only the last change of each object is kept, so that memory is bounded by the number of objects in a
//! long burst, not by its length.

use std::{
    collections::BTreeSet,
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use palisade_api::{Event, ObjectRef, ResourceKind, WatchState};
use palisade_manifest::Diagnostic;
use palisade_policy::{Change, Cluster, DomainName, Name, ObjectKey, PolicyKey};
use tokio::sync::oneshot;

use super::runtime_event::RuntimeEvent;
use crate::{
    drops::DeniedPacket,
    names::{LearnedAnswer, ReceiveLearned},
    socket::{Request, Response},
    source::Delivery,
};

/// Above this number of changes, superseded ones are discarded.
const COMPACT_ABOVE: usize = 8192;
/// The most denied packets that are kept. Further ones are only counted.
const MAX_DENIED_PACKETS: usize = 1024;

/// The inbox. All threads write to it, the worker reads it.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pending: Mutex<Pending>,
    arrived: Condvar,
}

/// A request, and the channel for its response.
#[derive(Debug)]
pub(crate) struct PendingRequest {
    pub(crate) request: Request,
    pub(crate) respond: oneshot::Sender<Response>,
}

/// A change of our nftables table by another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableChange {
    /// What was changed and by which program. If there were several changes, the first.
    pub(crate) description: String,
    /// Whether any of the changes removed the table.
    pub(crate) removed_table: bool,
}

/// Everything that arrived since the last [`Inbox::take`].
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// A whole cluster. It precedes `changes`: earlier ones are part of it.
    pub(crate) snapshot: Option<Box<Cluster>>,
    /// Changes, in order.
    pub(crate) changes: Vec<Change>,
    /// Learned names, in order. Bounded by the packets that the kernel lets wait.
    pub(crate) learned: Vec<LearnedAnswer>,
    /// When the first snapshot or change arrived.
    pub(crate) received: Option<Instant>,
    /// States of watches, in order.
    pub(crate) watches: Vec<(ResourceKind, WatchState)>,
    /// Findings about objects, in order.
    pub(crate) findings: Vec<(ObjectRef, Vec<Diagnostic>)>,
    /// Packets that policies denied.
    pub(crate) denied_packets: Vec<DeniedPacket>,
    /// The number of further denied packets.
    pub(crate) uncollected_packets: u64,
    /// Whether connections wait to be taken.
    pub(crate) connections: bool,
    /// A change of our table by another program.
    pub(crate) table_change: Option<TableChange>,
    /// Whether nftables notifications were lost.
    pub(crate) lost_notifications: bool,
    /// What the container runtime has reported, in order.
    pub(crate) runtime: Vec<RuntimeEvent>,
    /// Requests from the socket and from HTTP.
    pub(crate) requests: Vec<PendingRequest>,
    /// Whether the worker must stop.
    pub(crate) stop: bool,
    /// The number of changes above which the next compaction is due.
    compact_above: usize,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.snapshot.is_none()
            && self.changes.is_empty()
            && self.learned.is_empty()
            && self.watches.is_empty()
            && self.findings.is_empty()
            && self.denied_packets.is_empty()
            && self.uncollected_packets == 0
            && !self.connections
            && self.table_change.is_none()
            && !self.lost_notifications
            && self.runtime.is_empty()
            && self.requests.is_empty()
            && !self.stop
    }

    fn receive(&mut self, delivery: Delivery) {
        match delivery.event {
            Event::Snapshot(cluster) => {
                self.snapshot = Some(cluster);
                self.changes.clear();
                self.received.get_or_insert(delivery.received);
            }
            Event::Changes { changes, .. } => {
                self.changes.extend(changes);
                self.received.get_or_insert(delivery.received);
                if self.changes.len() > self.compact_above.max(COMPACT_ABOVE) {
                    compact(&mut self.changes);
                    self.compact_above = 2 * self.changes.len();
                }
            }
            Event::Watch { kind, state } => self.watches.push((kind, state)),
            Event::Findings { object, findings } => self.findings.push((object, findings)),
        }
    }
}

impl Inbox {
    /// Adds an event from the source.
    pub(crate) fn receive(&self, delivery: Delivery) {
        self.update(|pending| pending.receive(delivery));
    }

    /// Adds a denied packet.
    pub(crate) fn add_denied_packet(&self, packet: DeniedPacket) {
        self.update(|pending| {
            if pending.denied_packets.len() < MAX_DENIED_PACKETS {
                pending.denied_packets.push(packet);
            } else {
                pending.uncollected_packets += 1;
            }
        });
    }

    /// Records that connections wait to be taken.
    pub(crate) fn note_connections(&self) {
        self.update(|pending| pending.connections = true);
    }

    /// Records that another program changed our table.
    pub(crate) fn add_table_change(&self, change: TableChange) {
        self.update(|pending| match &mut pending.table_change {
            Some(first) => first.removed_table |= change.removed_table,
            None => pending.table_change = Some(change),
        });
    }

    /// Records that nftables notifications were lost.
    pub(crate) fn add_lost_notifications(&self) {
        self.update(|pending| pending.lost_notifications = true);
    }

    /// Adds an event of the container runtime.
    pub(crate) fn add_runtime(&self, event: RuntimeEvent) {
        self.update(|pending| pending.runtime.push(event));
    }

    /// Sends a request to the worker. The response arrives when the worker has finished its current work.
    pub(crate) fn request(&self, request: Request) -> oneshot::Receiver<Response> {
        let (respond, response) = oneshot::channel();
        self.update(|pending| pending.requests.push(PendingRequest { request, respond }));
        response
    }

    /// Tells the worker to stop.
    pub(crate) fn stop(&self) {
        self.update(|pending| pending.stop = true);
    }

    /// Takes everything that is pending. Waits up to `timeout` for something to arrive.
    pub(crate) fn take(&self, timeout: Duration) -> Pending {
        let guard = self.lock();
        let waited = self.arrived.wait_timeout_while(guard, timeout, |pending| pending.is_empty());
        let (mut guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        mem::take(&mut *guard)
    }

    fn update(&self, change: impl FnOnce(&mut Pending)) {
        change(&mut self.lock());
        self.arrived.notify_one();
    }

    /// Ignores poisoning: each change of the value is a single push, so it is consistent after a panic.
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReceiveLearned for Inbox {
    fn receive_learned(&self, answer: LearnedAnswer) {
        self.update(|pending| pending.learned.push(answer));
    }
}

/// The object that a change sets or removes.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Object<'a> {
    Namespace(&'a Name),
    Pod(&'a ObjectKey),
    Node(&'a Name),
    Service(&'a ObjectKey),
    Policy(&'a PolicyKey),
    Learned(&'a DomainName),
}

impl<'a> Object<'a> {
    fn of(change: &'a Change) -> Self {
        match change {
            Change::SetNamespace(n) => Self::Namespace(&n.name),
            Change::RemoveNamespace(name) => Self::Namespace(name),
            Change::SetPod(p) => Self::Pod(&p.key),
            Change::RemovePod(key) => Self::Pod(key),
            Change::SetNode(n) => Self::Node(&n.name),
            Change::RemoveNode(name) => Self::Node(name),
            Change::SetService(s) => Self::Service(&s.key),
            Change::RemoveService(key) => Self::Service(key),
            Change::SetPolicy(p) => Self::Policy(&p.key),
            Change::RemovePolicy(key) => Self::Policy(key),
            Change::SetLearned(learned) => Self::Learned(&learned.name),
            Change::RemoveLearned(name) => Self::Learned(name),
        }
    }
}

/// Keeps only the last change of each object. The resulting cluster is the same, and so is the plan, which depends on the
/// cluster alone.
fn compact(changes: &mut Vec<Change>) {
    let mut seen = BTreeSet::new();
    let mut keep: Vec<bool> = changes.iter().rev().map(|change| seen.insert(Object::of(change))).collect();
    keep.reverse();
    let mut keep = keep.into_iter();
    changes.retain(|_| keep.next().unwrap_or(true));
}

#[cfg(test)]
mod tests {
    use palisade_policy::{Labels, Namespace};

    use super::*;

    fn set(name: &str, value: &str) -> Change {
        Change::SetNamespace(Namespace::new(name, &Labels::default().with("v", value)))
    }

    fn changes(changes: Vec<Change>) -> Delivery {
        Delivery::now(Event::Changes { changes, received: Instant::now() })
    }

    #[test]
    fn accumulated_changes_keep_their_order_and_the_first_arrival_time() {
        let inbox = Inbox::default();
        let first = changes(vec![set("a", "1")]);
        let received = first.received;
        inbox.receive(first);
        inbox.receive(changes(vec![set("b", "1"), set("a", "2")]));
        let pending = inbox.take(Duration::ZERO);
        assert_eq!(pending.changes, [set("a", "1"), set("b", "1"), set("a", "2")]);
        assert_eq!(pending.received, Some(received));
        assert!(inbox.take(Duration::ZERO).is_empty());
    }

    #[test]
    fn a_snapshot_supersedes_earlier_changes() {
        let inbox = Inbox::default();
        inbox.receive(changes(vec![set("a", "1")]));
        inbox.receive(Delivery::now(Event::Snapshot(Box::default())));
        inbox.receive(changes(vec![set("b", "1")]));
        let pending = inbox.take(Duration::ZERO);
        assert!(pending.snapshot.is_some());
        assert_eq!(pending.changes, [set("b", "1")]);
    }

    #[test]
    fn a_long_burst_takes_memory_for_its_objects_only_and_leads_to_the_same_cluster() {
        let inbox = Inbox::default();
        let all: Vec<Change> = (0..50_000)
            .map(|i| match i % 7 {
                3 => Change::RemoveNamespace(format!("n{}", i % 100).into()),
                _ => set(&format!("n{}", i % 100), &i.to_string()),
            })
            .collect();
        let mut expected = Cluster::default();
        for change in &all {
            expected.apply(change.clone());
        }
        for part in all.chunks(10) {
            inbox.receive(changes(part.to_vec()));
        }
        let kept = inbox.take(Duration::ZERO).changes;
        assert!(kept.len() <= COMPACT_ABOVE + 10, "{}", kept.len());
        let mut cluster = Cluster::default();
        kept.into_iter().for_each(|change| cluster.apply(change));
        assert_eq!(cluster, expected);
    }

    #[test]
    fn a_flood_of_denied_packets_is_counted_and_not_kept() {
        let inbox = Inbox::default();
        for _ in 0..MAX_DENIED_PACKETS + 5 {
            inbox.add_denied_packet(crate::drops::tests::denied_packet());
        }
        let pending = inbox.take(Duration::ZERO);
        assert_eq!((pending.denied_packets.len(), pending.uncollected_packets), (MAX_DENIED_PACKETS, 5));
    }
}

//! What waits for the thread that works on the kernel.
//!
//! While a transaction runs, changes gather here; what gathered becomes the next transaction. Their order is kept, but of
//! several changes of one object the last alone counts once there are many, so that a burst that outlasts the kernel
//! takes memory for the objects concerned and not for their history.

use std::{
    collections::BTreeSet,
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use palisade_api::{Event, Kind, ObjectRef, WatchState};
use palisade_manifest::Diagnostic;
use palisade_policy::{Change, Cluster, Name, ObjectKey, PolicyKey};
use tokio::sync::oneshot;

use crate::{
    drops::Dropped,
    socket::{Ask, Reply},
    source::Heard,
};

/// Beyond so many changes, those that later ones supersede are thrown away.
const MANY_CHANGES: usize = 8192;
/// As many dropped packets are told as wait here; of more, the number alone.
const MANY_DROPS: usize = 1024;

/// The inbox. Shared by everybody who has something to say.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    news: Condvar,
}

/// A question, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) ask: Ask,
    pub(crate) reply: oneshot::Sender<Reply>,
}

/// A change of our table by another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Drifted {
    /// In words: the first thing, where there were several.
    pub(crate) what: String,
    /// Whether the table is gone, or was.
    pub(crate) gone: bool,
}

/// Everything that came in since the last look.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// A whole cluster; it stands before the changes, since what came before it says too.
    pub(crate) snapshot: Option<Box<Cluster>>,
    /// Edits, in order.
    pub(crate) changes: Vec<Change>,
    /// When the first of these arrived.
    pub(crate) received: Option<Instant>,
    /// How watches fare, in order.
    pub(crate) watches: Vec<(Kind, WatchState)>,
    /// What is wrong with objects, in order.
    pub(crate) findings: Vec<(ObjectRef, Vec<Diagnostic>)>,
    /// Packets that policies denied.
    pub(crate) drops: Vec<Dropped>,
    /// How many more of them there were.
    pub(crate) more_drops: u64,
    /// What somebody else did to our table, if anybody did.
    pub(crate) drift: Option<Drifted>,
    /// Whether more was changed in nftables, by whomever, than could be followed.
    pub(crate) overrun: bool,
    /// Questions.
    pub(crate) asked: Vec<Asked>,
    /// Whether it is time to end.
    pub(crate) stop: bool,
    /// Beyond so many changes the next look for superseded ones is due.
    compact_at: usize,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.snapshot.is_none()
            && self.changes.is_empty()
            && self.watches.is_empty()
            && self.findings.is_empty()
            && self.drops.is_empty()
            && self.more_drops == 0
            && self.drift.is_none()
            && !self.overrun
            && self.asked.is_empty()
            && !self.stop
    }

    fn hear(&mut self, heard: Heard) {
        match heard.event {
            Event::Snapshot(cluster) => {
                self.snapshot = Some(cluster);
                self.changes.clear();
                self.received.get_or_insert(heard.at);
            }
            Event::Changes { changes, .. } => {
                self.changes.extend(changes);
                self.received.get_or_insert(heard.at);
                if self.changes.len() > self.compact_at.max(MANY_CHANGES) {
                    compact(&mut self.changes);
                    self.compact_at = 2 * self.changes.len();
                }
            }
            Event::Watch { kind, state } => self.watches.push((kind, state)),
            Event::Findings { object, findings } => self.findings.push((object, findings)),
        }
    }
}

impl Inbox {
    /// Something from the source.
    pub(crate) fn hear(&self, heard: Heard) {
        self.with(|waiting| waiting.hear(heard));
    }

    /// A packet was dropped.
    pub(crate) fn dropped(&self, dropped: Dropped) {
        self.with(|waiting| {
            if waiting.drops.len() < MANY_DROPS {
                waiting.drops.push(dropped);
            } else {
                waiting.more_drops += 1;
            }
        });
    }

    /// Somebody else touched our table.
    pub(crate) fn drifted(&self, drifted: Drifted) {
        self.with(|waiting| match &mut waiting.drift {
            Some(first) => first.gone |= drifted.gone,
            None => waiting.drift = Some(drifted),
        });
    }

    /// More was changed in nftables than could be followed.
    pub(crate) fn overrun(&self) {
        self.with(|waiting| waiting.overrun = true);
    }

    /// Asks; the answer comes once what is in work is done.
    pub(crate) fn ask(&self, ask: Ask) -> oneshot::Receiver<Reply> {
        let (reply, answer) = oneshot::channel();
        self.with(|waiting| waiting.asked.push(Asked { ask, reply }));
        answer
    }

    /// It is time to end.
    pub(crate) fn stop(&self) {
        self.with(|waiting| waiting.stop = true);
    }

    /// Everything that waits, in one; nothing if nothing comes for so long.
    pub(crate) fn take(&self, patience: Duration) -> Waiting {
        let guard = self.lock();
        let waited = self.news.wait_timeout_while(guard, patience, |waiting| waiting.is_empty());
        let (mut guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        mem::take(&mut *guard)
    }

    fn with(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.lock());
        self.news.notify_one();
    }

    /// Whoever panicked while holding it left a whole value: each change of it is one push.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a change is about.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Object<'a> {
    Namespace(&'a Name),
    Pod(&'a ObjectKey),
    Node(&'a Name),
    Service(&'a ObjectKey),
    Policy(&'a PolicyKey),
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
        }
    }
}

/// Keeps the last change of each object. What the cluster is after all of them stays the same, and so does the plan: it
/// depends on the cluster alone.
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

    fn changes(changes: Vec<Change>) -> Heard {
        Heard::now(Event::Changes { changes, received: Instant::now() })
    }

    #[test]
    fn what_gathered_comes_as_one_in_order_with_the_first_arrival() {
        let inbox = Inbox::default();
        let first = changes(vec![set("a", "1")]);
        let at = first.at;
        inbox.hear(first);
        inbox.hear(changes(vec![set("b", "1"), set("a", "2")]));
        let got = inbox.take(Duration::ZERO);
        assert_eq!(got.changes, [set("a", "1"), set("b", "1"), set("a", "2")]);
        assert_eq!(got.received, Some(at));
        assert!(inbox.take(Duration::ZERO).is_empty());
    }

    #[test]
    fn a_snapshot_supersedes_what_came_before_it() {
        let inbox = Inbox::default();
        inbox.hear(changes(vec![set("a", "1")]));
        inbox.hear(Heard::now(Event::Snapshot(Box::default())));
        inbox.hear(changes(vec![set("b", "1")]));
        let got = inbox.take(Duration::ZERO);
        assert!(got.snapshot.is_some());
        assert_eq!(got.changes, [set("b", "1")]);
    }

    #[test]
    fn a_burst_that_lasts_costs_memory_for_the_objects_alone_and_ends_where_it_would() {
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
            inbox.hear(changes(part.to_vec()));
        }
        let got = inbox.take(Duration::ZERO).changes;
        assert!(got.len() <= MANY_CHANGES + 10, "{}", got.len());
        let mut cluster = Cluster::default();
        got.into_iter().for_each(|change| cluster.apply(change));
        assert_eq!(cluster, expected);
    }

    #[test]
    fn a_flood_of_drops_is_counted_and_not_kept() {
        let inbox = Inbox::default();
        for _ in 0..MANY_DROPS + 5 {
            inbox.dropped(crate::drops::tests::dropped());
        }
        let got = inbox.take(Duration::ZERO);
        assert_eq!((got.drops.len(), got.more_drops), (MANY_DROPS, 5));
    }
}

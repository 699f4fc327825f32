//! Puts the records of several nodes into the order of time.
//!
//! Until every node has sent what it had, records are held back. From then on each is held for [`WINDOW`], in which earlier ones of
//! other nodes may still arrive. Time is an argument.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use palisade_flow::Record;

/// How long a record waits for earlier ones of other nodes.
const WINDOW: Duration = Duration::from_millis(750);
/// How long the records that nodes had at the beginning are waited for.
const HISTORY: Duration = Duration::from_secs(10);
/// The most bytes that are held. Beyond, the earliest records are given out early, perhaps out of order.
const MAX_BYTES: usize = 64 << 20;

/// Time, node and number: the order in which records are shown.
type Key = (Timestamp, String, u64);

/// The records that are held.
#[derive(Debug)]
pub(super) struct Merger {
    held: BTreeMap<Key, (Record, usize)>,
    bytes: usize,
    /// The nodes' pods that have not sent yet what they had. Empty if it is no longer waited for.
    awaited: HashSet<String>,
    history_ends: Option<Instant>,
    /// The keys in the order in which they arrived, with the end of their wait.
    arrivals: VecDeque<(Instant, Key)>,
    /// Only this many of the latest records that the nodes had.
    last: Option<usize>,
    /// Whether the records that nodes had at the beginning were given out.
    history_is_given: bool,
    /// What was given out last.
    shown: Option<Timestamp>,
    /// Records that came after later ones were given out.
    late: u64,
}

impl Merger {
    /// Waits for the records of these pods. If commands are not followed (`bounded` is false), it waits until they have ended.
    pub(super) fn new(
        awaited: impl IntoIterator<Item = String>,
        last: Option<usize>,
        bounded: bool,
        now: Instant,
    ) -> Self {
        Self {
            held: BTreeMap::new(),
            bytes: 0,
            awaited: awaited.into_iter().collect(),
            history_ends: bounded.then(|| now + HISTORY),
            arrivals: VecDeque::new(),
            last,
            history_is_given: false,
            shown: None,
            late: 0,
        }
    }

    /// Adds a record.
    pub(super) fn add(&mut self, record: Record, now: Instant) {
        let key = (record.time, record.node.clone(), record.id);
        let bytes = size(&record);
        if self.shown.is_some_and(|shown| record.time < shown) {
            self.late += 1;
        }
        if let Some((_, before)) = self.held.insert(key.clone(), (record, bytes)) {
            self.bytes -= before;
        }
        self.bytes += bytes;
        if self.is_history() {
            while self.last.is_some_and(|last| self.held.len() > last) {
                self.pop();
            }
        } else {
            self.arrivals.push_back((now + WINDOW, key));
        }
    }

    /// A pod has sent all that it had, or failed.
    pub(super) fn caught_up(&mut self, uid: &str) {
        self.awaited.remove(uid);
    }

    /// The pods that are still waited for when that ends now.
    pub(super) fn end_history(&mut self, now: Instant) -> HashSet<String> {
        match self.history_ends {
            Some(end) if end <= now => std::mem::take(&mut self.awaited),
            _ => HashSet::new(),
        }
    }

    /// Takes the records that need not wait any longer, in order.
    pub(super) fn ready(&mut self, now: Instant) -> Vec<Record> {
        let mut out = Vec::new();
        while self.bytes > MAX_BYTES {
            out.extend(self.pop());
        }
        if self.is_history() {
            return self.given(out);
        }
        // What the nodes had at the beginning has no time of arrival: it is in order.
        let is_first = !std::mem::replace(&mut self.history_is_given, true);
        let mut until = is_first.then(|| self.held.keys().next_back().cloned()).flatten();
        while self.arrivals.front().is_some_and(|(end, _)| *end <= now) {
            until = until.max(self.arrivals.pop_front().map(|(_, key)| key));
        }
        if let Some(until) = until {
            while self.held.first_key_value().is_some_and(|(key, _)| *key <= until) {
                out.extend(self.pop());
            }
        }
        self.given(out)
    }

    /// Takes all records, in order.
    pub(super) fn rest(&mut self) -> Vec<Record> {
        let out = std::iter::from_fn(|| self.pop()).collect();
        self.given(out)
    }

    /// When [`Merger::ready`] may have more without a new record.
    pub(super) fn next(&self) -> Option<Instant> {
        if self.is_history() {
            return self.history_ends;
        }
        self.arrivals.front().map(|(end, _)| *end)
    }

    /// Takes the number of records that are out of order.
    pub(super) fn take_late(&mut self) -> u64 {
        std::mem::take(&mut self.late)
    }

    fn is_history(&self) -> bool {
        !self.awaited.is_empty()
    }

    fn pop(&mut self) -> Option<Record> {
        let (_, (record, bytes)) = self.held.pop_first()?;
        self.bytes -= bytes;
        Some(record)
    }

    fn given(&mut self, out: Vec<Record>) -> Vec<Record> {
        self.shown = out.last().map(|record| record.time).max(self.shown);
        out
    }
}

/// About the bytes of a record in memory.
fn size(record: &Record) -> usize {
    let text: usize = record.reason.iter().map(String::len).sum();
    let labels = [&record.source, &record.destination].map(|end| end.labels.iter());
    let labels: usize = labels.into_iter().flatten().map(|(key, value)| key.len() + value.len() + 64).sum();
    1024 + text + labels + record.policies.len() * 128
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(node: &str, id: u64, second: i64) -> Record {
        let end = serde_json::json!({"address": "10.0.0.1"});
        serde_json::from_value(serde_json::json!({
            "id": id, "time": Timestamp::from_second(second).unwrap(), "node": node, "verdict": "dropped",
            "direction": "ingress", "source": end, "destination": end, "protocol": "TCP", "reason": [],
            "generation": 1, "count": 1,
        }))
        .unwrap()
    }

    fn ids(records: &[Record]) -> Vec<u64> {
        records.iter().map(|record| record.id).collect()
    }

    fn merger(last: Option<usize>, bounded: bool, now: Instant) -> Merger {
        Merger::new(["a".to_owned(), "b".to_owned()], last, bounded, now)
    }

    #[test]
    fn what_nodes_had_waits_for_all_of_them() {
        let now = Instant::now();
        let mut merger = merger(None, true, now);
        merger.add(record("n1", 1, 10), now);
        merger.add(record("n1", 2, 30), now);
        merger.caught_up("a");
        assert_eq!(ids(&merger.ready(now + WINDOW)), [0_u64; 0]);
        merger.add(record("n2", 3, 20), now);
        merger.caught_up("b");
        assert_eq!(ids(&merger.ready(now)), [1, 3, 2]);
        assert_eq!((merger.take_late(), merger.bytes), (0, 0));
    }

    #[test]
    fn a_node_that_does_not_answer_is_not_waited_for_forever() {
        let now = Instant::now();
        let mut merger = merger(None, true, now);
        merger.add(record("n1", 1, 10), now);
        merger.caught_up("a");
        assert_eq!(merger.next(), Some(now + HISTORY));
        assert!(merger.end_history(now).is_empty());
        assert_eq!(merger.end_history(now + HISTORY), HashSet::from(["b".to_owned()]));
        assert_eq!(ids(&merger.ready(now + HISTORY)), [1]);
    }

    #[test]
    fn later_records_wait_for_earlier_ones_for_a_moment() {
        let now = Instant::now();
        let mut merger = merger(None, true, now);
        for uid in ["a", "b"] {
            merger.caught_up(uid);
        }
        assert!(merger.ready(now).is_empty());
        merger.add(record("n1", 1, 20), now);
        merger.add(record("n2", 2, 10), now + WINDOW / 2);
        assert!(merger.next() == Some(now + WINDOW));
        let mut shown = merger.ready(now + WINDOW);
        shown.extend(merger.ready(now + WINDOW * 2));
        assert_eq!(ids(&shown), [2, 1]);
        // Too late: shown nevertheless, and counted.
        merger.add(record("n2", 3, 15), now + WINDOW * 2);
        assert_eq!((ids(&merger.ready(now + WINDOW * 3)), merger.take_late()), (vec![3], 1));
    }

    #[test]
    fn only_the_latest_of_all_nodes_are_kept() {
        let now = Instant::now();
        let mut merger = merger(Some(2), false, now);
        for (id, second) in [(1, 10), (2, 40), (3, 20), (4, 30)] {
            merger.add(record("n1", id, second), now);
        }
        assert_eq!(merger.next(), None, "the end of the commands ends the wait");
        assert_eq!(ids(&merger.rest()), [4, 2]);
    }

    #[test]
    fn memory_is_bounded() {
        let now = Instant::now();
        let mut merger = merger(None, false, now);
        let each = size(&record("n1", 1, 1));
        let many = (MAX_BYTES / each) as u64 + 100;
        for id in 1..=many {
            merger.add(record("n1", id, id as i64), now);
        }
        let early = merger.ready(now);
        assert!(early.len() >= 99 && early[0].id == 1 && merger.bytes <= MAX_BYTES);
        assert_eq!(early.len() as u64 + merger.rest().len() as u64, many);
    }
}

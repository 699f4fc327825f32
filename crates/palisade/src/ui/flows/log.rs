//! The latest records, in a bounded number of bytes, and what is wrong with the nodes that they come from.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use palisade_flow::{Filter, Record};
use serde::Serialize;
use tokio::sync::watch;

/// The most records, and the most bytes that they have as JSON.
const MOST: (usize, usize) = (20_000, 32 << 20);
/// The most nodes that are remembered.
#[cfg(any(test, feature = "live"))]
const MOST_NODES: usize = 5_000;
/// The most records of an answer.
const MOST_ANSWERED: usize = 1_000;

/// The latest records.
pub(crate) struct FlowLog {
    held: Mutex<Held>,
    number: watch::Sender<u64>,
}

#[derive(Default)]
struct Held {
    records: VecDeque<Kept>,
    bytes: usize,
    /// How many records made room for later ones.
    left_out: u64,
    nodes: BTreeMap<String, Node>,
    /// What is wrong with all of them.
    problem: Option<String>,
}

struct Kept {
    number: u64,
    bytes: usize,
    record: Arc<Record>,
}

/// What is known of a node besides its records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Node {
    /// Why it sends no records.
    pub(crate) problem: Option<String>,
    /// How many packets have no record, because there were too many at once.
    pub(crate) unrecorded: u64,
    /// How many records its agent has given up for later ones.
    pub(crate) evicted: u64,
    /// Whether its agent may have had older records than were asked for at first.
    #[serde(skip)]
    pub(crate) has_older: bool,
    /// When its agent started: it forgot what was before.
    #[serde(skip)]
    pub(crate) started: Option<Timestamp>,
}

impl Node {
    /// Whether there may have been packets after a time of which no record is known.
    pub(crate) fn is_lossy(&self, since: Timestamp) -> bool {
        let is_new = self.started.is_some_and(|started| started > since);
        self.problem.is_some() || self.unrecorded > 0 || self.evicted > 0 || self.has_older || is_new
    }
}

/// Records that match a filter, oldest first, and the state of the nodes.
pub(crate) struct Answer {
    pub(crate) number: u64,
    pub(crate) records: Vec<Arc<Record>>,
    /// How many older ones match and are not in the answer.
    pub(crate) more: usize,
    pub(crate) left_out: u64,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) problem: Option<String>,
}

impl FlowLog {
    pub(crate) fn new() -> Self {
        Self { held: Mutex::default(), number: watch::Sender::new(1) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds records.
    pub(crate) fn add(&self, records: impl IntoIterator<Item = Record>) {
        let mut held = self.held();
        self.number.send_if_modified(|number| {
            let before = *number;
            for record in records {
                *number += 1;
                held.add(*number, record);
            }
            *number != before
        });
    }

    /// Changes what is known of a node.
    #[cfg(any(test, feature = "live"))]
    pub(crate) fn note(&self, node: &str, change: impl FnOnce(&mut Node)) {
        let mut held = self.held();
        let known = held.nodes.get(node).cloned().unwrap_or_default();
        let mut changed = known.clone();
        change(&mut changed);
        if changed == known && held.nodes.contains_key(node) {
            return;
        }
        if held.nodes.len() < MOST_NODES || held.nodes.contains_key(node) {
            held.nodes.insert(node.to_owned(), changed);
        }
        self.number.send_modify(|number| *number += 1);
    }

    /// Forgets a node that is gone.
    #[cfg(feature = "live")]
    pub(crate) fn forget(&self, node: &str) {
        if self.held().nodes.remove(node).is_some() {
            self.number.send_modify(|number| *number += 1);
        }
    }

    /// Sets what is wrong with all nodes.
    pub(crate) fn fail(&self, problem: Option<String>) {
        let mut held = self.held();
        if held.problem != problem {
            held.problem = problem;
            self.number.send_modify(|number| *number += 1);
        }
    }

    /// Has what another log has, in place of everything: the file is another one.
    pub(crate) fn replace(&self, other: Self) {
        let mut new = other.held.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut held = self.held();
        self.number.send_modify(|number| {
            *number += 1;
            for kept in &mut new.records {
                *number += 1;
                kept.number = *number;
            }
            *held = new;
        });
    }

    /// Waits until there is something new since an answer, but no longer than `most`.
    pub(crate) async fn changed(&self, number: u64, most: Duration) {
        let mut receiver = self.number.subscribe();
        // On a timeout, nothing is new.
        _ = tokio::time::timeout(most, receiver.wait_for(|now| *now != number)).await;
    }

    /// Returns the latest records after an answer's number that match.
    pub(crate) fn answer(&self, filter: &Filter, after: u64) -> Answer {
        let held = self.held();
        let new = held.records.iter().rev().take_while(|kept| kept.number > after);
        let mut matching = new.filter(|kept| filter.matches(&kept.record));
        let mut records: Vec<Arc<Record>> =
            matching.by_ref().take(MOST_ANSWERED).map(|kept| Arc::clone(&kept.record)).collect();
        let more = matching.count();
        records.reverse();
        self.answered(&held, records, more)
    }

    /// Returns all records that are kept.
    pub(crate) fn all(&self) -> Answer {
        let held = self.held();
        let records = held.records.iter().map(|kept| Arc::clone(&kept.record)).collect();
        self.answered(&held, records, 0)
    }

    fn answered(&self, held: &Held, records: Vec<Arc<Record>>, more: usize) -> Answer {
        Answer {
            number: *self.number.borrow(),
            records,
            more,
            left_out: held.left_out,
            nodes: held.nodes.clone(),
            problem: held.problem.clone(),
        }
    }
}

impl Held {
    fn add(&mut self, number: u64, record: Record) {
        let bytes = serde_json::to_vec(&record).map_or(0, |json| json.len());
        self.bytes += bytes;
        self.records.push_back(Kept { number, bytes, record: Arc::new(record) });
        while self.records.len() > MOST.0 || self.bytes > MOST.1 {
            let Some(first) = self.records.pop_front() else { break };
            self.bytes -= first.bytes;
            self.left_out += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u64, reason: &str) -> Record {
        let end = serde_json::json!({"address": "10.0.0.1"});
        serde_json::from_value(serde_json::json!({
            "id": id, "time": "2026-11-28T10:00:00Z", "node": "n1", "verdict": "dropped",
            "direction": "ingress", "source": end, "destination": end, "protocol": "TCP", "reason": [reason],
            "generation": 1, "count": 1,
        }))
        .unwrap()
    }

    #[test]
    fn only_what_is_new_is_answered() {
        let log = FlowLog::new();
        log.add([record(1, ""), record(2, "")]);
        let first = log.answer(&Filter::default(), 0);
        assert_eq!(first.records.len(), 2);
        log.add([record(3, "")]);
        let next = log.answer(&Filter::default(), first.number);
        assert_eq!((next.records.len(), next.records[0].id), (1, 3));
        let none = Filter { ports: vec!["80".parse().unwrap()], ..Filter::default() };
        assert!(log.answer(&none, 0).records.is_empty());
    }

    #[test]
    fn what_replaces_everything_is_new() {
        let log = FlowLog::new();
        log.add([record(1, ""), record(2, "")]);
        let before = log.answer(&Filter::default(), 0).number;
        let other = FlowLog::new();
        other.add([record(7, "")]);
        other.fail(Some("1 line is no record".to_owned()));
        log.replace(other);
        let after = log.answer(&Filter::default(), before);
        assert_eq!((after.records.len(), after.records[0].id), (1, 7));
        assert!(after.number > before && after.problem.is_some());
        assert_eq!(log.all().records.len(), 1);
    }

    #[test]
    fn memory_is_bounded_and_what_is_left_out_is_counted() {
        let log = FlowLog::new();
        log.add((0..MOST.0 as u64 + 7).map(|id| record(id, "")));
        let answer = log.answer(&Filter::default(), 0);
        assert_eq!((answer.left_out, answer.records.len()), (7, MOST_ANSWERED));
        assert_eq!(answer.more, MOST.0 - MOST_ANSWERED);
        let long = "x".repeat(1 << 20);
        log.add((0..64).map(|id| record(id, &long)));
        assert!(log.held().bytes <= MOST.1);
    }

    #[test]
    fn a_node_that_fails_is_named_until_it_answers() {
        let log = FlowLog::new();
        log.note("n1", |node| node.problem = Some("gone".to_owned()));
        let failed = log.answer(&Filter::default(), 0);
        assert_eq!(failed.nodes["n1"].problem.as_deref(), Some("gone"));
        log.note("n1", |node| node.problem = None);
        let answer = log.answer(&Filter::default(), 0);
        assert!(answer.number > failed.number && answer.nodes["n1"].problem.is_none());
    }
}

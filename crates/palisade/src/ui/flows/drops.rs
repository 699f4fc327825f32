//! What the policies of each namespace dropped in the last hour.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use palisade_flow::{Direction, Record, Verdict};
use serde::Serialize;

use super::{Origin, log::FlowLog};

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.ui.drops/v1";
/// How far back packets are counted.
const PERIOD: SignedDuration = SignedDuration::from_hours(1);

/// The packets of the last hour.
#[derive(Serialize)]
pub(super) struct JsonDrops {
    schema: &'static str,
    from: Origin,
    /// To be given as `after` to go on.
    number: u64,
    /// The end of the hour: now, or for a file the time of its latest record. `None`: nothing is known, so nothing is claimed.
    until: Option<Timestamp>,
    /// Whether there may have been more: records were lost or made room for later ones, an agent has started since, or a node
    /// does not answer.
    at_least: bool,
    /// Namespaces with such packets, sorted.
    namespaces: Vec<JsonNamespace>,
}

/// The packets that policies of a namespace's pods decided about.
#[derive(Serialize)]
struct JsonNamespace {
    name: String,
    /// How many packets were dropped.
    dropped: u64,
    /// How many policies in audit mode would have dropped.
    audited: u64,
}

impl JsonDrops {
    /// Counts the packets of the records that are kept. `O(records)`, which are bounded.
    pub(super) fn new(log: &FlowLog, origin: Origin, now: Timestamp) -> Self {
        let held = log.all();
        let until = match origin {
            Origin::Nowhere => None,
            Origin::Agents => held.nodes.values().any(|node| node.problem.is_none()).then_some(now),
            Origin::File => held.records.iter().map(|record| record.time).max(),
        };
        let since = until.and_then(|until| until.checked_sub(PERIOD).ok());
        let mut found: BTreeMap<String, [u64; 2]> = BTreeMap::new();
        for record in held.records.iter().filter(|record| since.is_some_and(|since| record.time >= since)) {
            if let Some(namespace) = namespace(record) {
                let counts = found.entry(namespace.to_owned()).or_default();
                let count = &mut counts[usize::from(record.verdict == Verdict::Audited)];
                *count = count.saturating_add(record.count);
            }
        }
        let named = |(name, [dropped, audited]): (String, [u64; 2])| JsonNamespace { name, dropped, audited };
        Self {
            schema: SCHEMA,
            from: origin,
            number: held.number,
            until,
            at_least: held.left_out > 0
                || held.problem.is_some()
                || since.is_some_and(|since| held.nodes.values().any(|node| node.is_lossy(since))),
            namespaces: found.into_iter().map(named).collect(),
        }
    }
}

/// Returns the namespace of the pod whose policies decided.
fn namespace(record: &Record) -> Option<&str> {
    let subject = match record.direction {
        Direction::Ingress => &record.destination,
        Direction::Egress => &record.source,
    };
    subject.pod.as_ref()?.namespace.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(time: &str, namespace: &str) -> Record {
        let pod = serde_json::json!({"kind": "Pod", "namespace": namespace, "name": "a"});
        let end = serde_json::json!({"address": "10.0.0.1", "pod": pod});
        serde_json::from_value(serde_json::json!({
            "id": 1, "time": time, "node": "n1", "verdict": "dropped", "direction": "ingress", "source": end,
            "destination": end, "protocol": "TCP", "reason": [], "generation": 1, "count": 2,
        }))
        .unwrap()
    }

    #[test]
    fn nothing_is_claimed_without_an_agent_that_answers() {
        let now: Timestamp = "2026-11-28T10:00:00Z".parse().unwrap();
        let log = FlowLog::new();
        let drops = || JsonDrops::new(&log, Origin::Agents, now);
        assert_eq!(drops().until, None);
        log.note("n1", |node| node.problem = Some("gone".to_owned()));
        assert_eq!((drops().until, drops().at_least), (None, false));
        log.note("n1", |node| node.problem = None);
        assert_eq!((drops().until, drops().at_least), (Some(now), false));
        log.add([record("2026-11-28T09:00:00Z", "a"), record("2026-11-28T08:59:59Z", "b")]);
        let found: Vec<(String, u64)> = drops().namespaces.into_iter().map(|n| (n.name, n.dropped)).collect();
        assert_eq!(found, [("a".to_owned(), 2)]);
    }

    #[test]
    fn what_may_be_missing_is_said() {
        let now: Timestamp = "2026-11-28T10:00:00Z".parse().unwrap();
        let changes: [fn(&mut super::super::log::Node); 5] = [
            |node| node.unrecorded = 1,
            |node| node.evicted = 1,
            |node| node.has_older = true,
            |node| node.problem = Some("gone".to_owned()),
            |node| node.started = "2026-11-28T09:30:00Z".parse().ok(),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let log = FlowLog::new();
            log.note("n1", |_| {});
            log.note("n2", |node| node.started = "2026-11-28T08:00:00Z".parse().ok());
            assert!(!JsonDrops::new(&log, Origin::Agents, now).at_least);
            log.note("n2", change);
            assert!(JsonDrops::new(&log, Origin::Agents, now).at_least, "change {number}");
        }
    }
}

//! Records of the agents of a cluster, as long as a page that shows them is open.

use std::{
    collections::HashMap,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use palisade_api::pod_command::{ExecPod, NextPodEvent, PodCommands, PodEvent};
use palisade_flow::FlowPage;

use super::{Flows, log::FlowLog};
use crate::{agents, flows::follow_words};

/// How many of the latest records are read of each agent at first.
const LAST: usize = 1_000;
/// How long an agent may say nothing. A page comes every few seconds.
const IDLE: Duration = Duration::from_secs(30);
/// How often it is looked whether a page is open.
const LOOK: Duration = Duration::from_secs(2);
/// How long to wait after a failure of all agents.
const RETRY: Duration = Duration::from_secs(10);

/// The greatest number of an agent's records, and when the agent started.
#[derive(Default)]
struct Known {
    last: u64,
    started: Option<jiff::Timestamp>,
    /// Its node.
    node: String,
}

/// What is known of each agent, by the uid of its pod. Kept while no page is open: records that the log has are not added again.
type Agents = HashMap<String, Known>;

/// Follows the agents while they are asked for; never returns.
pub(super) fn follow(source: &agents::AgentsArguments, flows: &Flows) {
    let mut known = Agents::new();
    loop {
        if flows.is_asked()
            && let Err(problem) = follow_once(source, flows, &mut known)
        {
            flows.log.fail(Some(problem));
            thread::sleep(RETRY);
        }
        thread::sleep(LOOK);
    }
}

/// Follows the agents until none is asked for any more.
fn follow_once(source: &agents::AgentsArguments, flows: &Flows, known: &mut Agents) -> Result<(), String> {
    let log = &*flows.log;
    let mut commands = source.run(follow_words(LAST), true, IDLE).map_err(|error| format!("{error:#}"))?;
    while flows.is_asked() {
        match commands.next(Some(Instant::now() + LOOK)) {
            NextPodEvent::Event(event) => process(event, &commands, source, known, log)?,
            NextPodEvent::Elapsed => {}
            NextPodEvent::End => return Err("the agents can't be followed any longer".to_owned()),
        }
    }
    Ok(())
}

fn process(
    event: PodEvent,
    commands: &PodCommands,
    source: &agents::AgentsArguments,
    known: &mut Agents,
    log: &FlowLog,
) -> Result<(), String> {
    match event {
        PodEvent::Found { pods, desired } => {
            retain(&pods, known, log);
            let missing = source.missing(commands.server(), &pods, &desired).map_err(|e| format!("{e:#}"))?;
            log.fail(missing);
        }
        PodEvent::NotFound(error) => {
            log.fail(Some(format!("can't list the agents: {}", error.with_advice())));
        }
        PodEvent::Line(pod, line) => match serde_json::from_slice(&line) {
            Ok(page) => self::page(&pod, page, known.entry(pod.uid.clone()).or_default(), log),
            Err(error) => fail(&pod, &format!("it printed no page of flows: {error}"), log),
        },
        PodEvent::Ended(pod, Ok(status)) => {
            fail(&pod, &agents::failure(status.code, &status.stderr), log);
        }
        PodEvent::Ended(pod, Err(error)) => fail(&pod, &error.to_string(), log),
        PodEvent::Appeared(pod) => log.note(&pod.node, |node| node.problem = None),
        PodEvent::Gone(pod) => {
            known.remove(&pod.uid);
            log.forget(&pod.node);
        }
    }
    Ok(())
}

/// Forgets the agents that are gone since the pods were listed last.
fn retain(pods: &[Arc<ExecPod>], known: &mut Agents, log: &FlowLog) {
    known.retain(|uid, known| {
        let is_there = pods.iter().any(|pod| pod.uid == *uid);
        // Its node may have another agent now, whose first page comes later.
        if !is_there {
            log.forget(&known.node);
        }
        is_there
    });
}

fn fail(pod: &ExecPod, why: &str, log: &FlowLog) {
    log.note(&pod.node, |node| node.problem = Some(format!("{}: {why}", pod.name)));
}

fn page(pod: &ExecPod, page: FlowPage, known: &mut Known, log: &FlowLog) {
    if known.started.is_some_and(|started| started != page.started) {
        known.last = 0;
    }
    known.node.clone_from(&pod.node);
    // More records than were asked for came while no page was open.
    let has_gap = known.last > 0 && page.records.first().is_some_and(|first| first.id > known.last + 1);
    let is_first = known.started != Some(page.started);
    known.started = Some(page.started);
    log.note(&pod.node, |node| {
        node.problem = None;
        node.started = Some(page.started);
        node.has_older |= has_gap || (is_first && page.records.len() >= LAST);
        (node.unrecorded, node.evicted) = (page.unrecorded, page.evicted);
    });
    // After a lost connection more is requested than is missing.
    let last = known.last;
    let new = page.records.into_iter().filter(|record| record.id > last);
    let mut greatest = last;
    log.add(new.inspect(|record| greatest = greatest.max(record.id)));
    known.last = greatest;
}

#[cfg(test)]
mod tests {
    use palisade_flow::{Filter, Record};

    use super::*;

    fn pod(uid: &str) -> ExecPod {
        ExecPod {
            uid: uid.to_owned(),
            name: format!("agent-{uid}"),
            node: format!("node-{uid}"),
            not_running: None,
        }
    }

    fn record(id: u64) -> Record {
        let end = serde_json::json!({"address": "10.0.0.1"});
        serde_json::from_value(serde_json::json!({
            "id": id, "time": "2026-11-28T10:00:00Z", "node": "n", "verdict": "dropped", "direction": "ingress",
            "source": end, "destination": end, "protocol": "TCP", "reason": [], "generation": 1, "count": 1,
        }))
        .unwrap()
    }

    fn receive(uid: &str, ids: std::ops::RangeInclusive<u64>, known: &mut Agents, log: &FlowLog) {
        let page = FlowPage { records: ids.map(record).collect(), ..FlowPage::default() };
        super::page(&pod(uid), page, known.entry(uid.to_owned()).or_default(), log);
    }

    /// What an agent sends when it is followed again begins with records that the log has.
    #[test]
    fn records_are_added_once_when_a_page_is_opened_again() {
        let (log, mut known) = (FlowLog::new(), Agents::new());
        let ids = |log: &FlowLog| -> Vec<u64> {
            log.answer(&Filter::default(), 0).records.iter().map(|record| record.id).collect()
        };
        receive("a", 1..=3, &mut known, &log);
        retain(&[Arc::new(pod("a"))], &mut known, &log);
        receive("a", 1..=4, &mut known, &log);
        assert_eq!(ids(&log), [1, 2, 3, 4]);
        assert!(!log.answer(&Filter::default(), 0).nodes["node-a"].has_older);
        // More came meanwhile than was asked for.
        receive("a", 7..=8, &mut known, &log);
        assert!(log.answer(&Filter::default(), 0).nodes["node-a"].has_older);
    }

    #[test]
    fn agents_that_went_while_no_page_was_open_are_forgotten() {
        let (log, mut known) = (FlowLog::new(), Agents::new());
        receive("a", 1..=1, &mut known, &log);
        receive("b", 1..=1, &mut known, &log);
        retain(&[Arc::new(pod("b"))], &mut known, &log);
        assert_eq!(known.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(log.answer(&Filter::default(), 0).nodes.keys().collect::<Vec<_>>(), ["node-b"]);
    }
}

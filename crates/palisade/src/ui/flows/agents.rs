//! Records of the agents of a cluster, as long as a page that shows them is open.

use std::{
    collections::HashMap,
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
}

/// Follows the agents while they are asked for; never returns.
pub(super) fn follow(source: &agents::AgentsArguments, flows: &Flows) {
    loop {
        if flows.is_asked()
            && let Err(problem) = follow_once(source, flows)
        {
            flows.log.fail(Some(problem));
            thread::sleep(RETRY);
        }
        thread::sleep(LOOK);
    }
}

/// Follows the agents until none is asked for any more.
fn follow_once(source: &agents::AgentsArguments, flows: &Flows) -> Result<(), String> {
    let log = &*flows.log;
    let mut commands = source.run(follow_words(LAST), true, IDLE).map_err(|error| format!("{error:#}"))?;
    let mut known: HashMap<String, Known> = HashMap::new();
    while flows.is_asked() {
        match commands.next(Some(Instant::now() + LOOK)) {
            NextPodEvent::Event(event) => process(event, &commands, source, &mut known, log)?,
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
    known: &mut HashMap<String, Known>,
    log: &FlowLog,
) -> Result<(), String> {
    match event {
        PodEvent::Found { pods, desired } => {
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

fn fail(pod: &ExecPod, why: &str, log: &FlowLog) {
    log.note(&pod.node, |node| node.problem = Some(format!("{}: {why}", pod.name)));
}

fn page(pod: &ExecPod, page: FlowPage, known: &mut Known, log: &FlowLog) {
    if known.started.is_some_and(|started| started != page.started) {
        known.last = 0;
    }
    let is_first = known.started != Some(page.started);
    known.started = Some(page.started);
    log.note(&pod.node, |node| {
        node.problem = None;
        node.started = Some(page.started);
        node.has_older |= is_first && page.records.len() >= LAST;
        (node.unrecorded, node.evicted) = (page.unrecorded, page.evicted);
    });
    // After a lost connection more is requested than is missing.
    let last = known.last;
    let new = page.records.into_iter().filter(|record| record.id > last);
    let mut greatest = last;
    log.add(new.inspect(|record| greatest = greatest.max(record.id)));
    known.last = greatest;
}

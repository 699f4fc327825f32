//! The flows of a cluster's agents, merged by time.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use jiff::{SignedDuration, Timestamp};
use palisade_api::pod_command::{CommandStatus, ExecError, ExecPod, NextPodEvent, PodCommands, PodEvent};
use palisade_flow::FlowPage;

use super::{Flows, Printer, losses::Losses, merge::Merger};
use crate::{
    agents::{self, AgentsArguments},
    escape,
    exit::Outcome,
    output,
};

/// How long an agent's answer may take. A page comes every few seconds if flows are followed.
const IDLE: Duration = Duration::from_secs(75);
const IDLE_FOLLOWED: Duration = Duration::from_secs(30);
/// How much more is requested from an agent whose connection was lost: what may not have arrived, and the delay of records.
const OVERLAP: Duration = Duration::from_secs(10);
/// A clock that differs by more is reported.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(2);

/// What is known of an agent.
#[derive(Default)]
struct Known {
    losses: Losses,
    /// The greatest number of its records.
    last: u64,
    has_answered: bool,
    clock_is_reported: bool,
    /// Whether its last failure was said.
    has_failed: bool,
}

/// The flows of all agents.
struct Merged<'a> {
    arguments: &'a Flows,
    printer: Printer<'a>,
    merger: Merger,
    agents: HashMap<String, Known>,
    is_complete: bool,
}

/// Prints the flows.
///
/// # Errors
/// If no agent can be queried.
pub(super) fn run(arguments: &Flows, cluster: &AgentsArguments) -> Result<Outcome> {
    let words = words(arguments);
    let again = arguments.follow;
    let words = Arc::new(move |since: Option<Duration>| words.of(since, again));
    let idle = if arguments.follow { IDLE_FOLLOWED } else { IDLE };
    let mut commands = cluster.run(words, arguments.follow, idle)?;
    let (pods, desired) = match commands.next(None) {
        NextPodEvent::Event(PodEvent::Found { pods, desired }) => (pods, desired),
        NextPodEvent::Event(PodEvent::NotFound(error)) => {
            bail!("can't list the agents of {}: {}", commands.server(), error.with_advice())
        }
        _ => bail!("can't list the agents of {}", commands.server()),
    };
    let is_complete = cluster.check(commands.server(), &pods, &desired)?;
    let uids = pods.iter().map(|pod| pod.uid.clone());
    let merged = Merged {
        arguments,
        printer: Printer::of_nodes(arguments),
        merger: Merger::new(uids, arguments.last, arguments.follow, Instant::now()),
        agents: pods.iter().map(|pod| (pod.uid.clone(), Known::default())).collect(),
        is_complete,
    };
    merged.run(&mut commands, &pods)
}

impl Merged<'_> {
    fn run(mut self, commands: &mut PodCommands, pods: &[Arc<ExecPod>]) -> Result<Outcome> {
        loop {
            match commands.next(self.merger.next()) {
                NextPodEvent::Event(event) => self.process(event),
                NextPodEvent::Elapsed => {}
                NextPodEvent::End => break,
            }
            let now = Instant::now();
            for uid in self.merger.end_history(now) {
                if let Some(pod) = pods.iter().find(|pod| pod.uid == uid) {
                    agents::note_failure(pod, "no answer yet; its earlier flows may appear out of order");
                }
            }
            let ready = self.merger.ready(now);
            if !self.printer.print(&ready)? {
                return Ok(Outcome::Yes);
            }
            self.note_late();
        }
        let rest = self.merger.rest();
        self.printer.print(&rest)?;
        self.note_late();
        let answered = self.agents.values().filter(|known| known.has_answered).count();
        if answered == 0 {
            bail!("none of {} could be queried", agents::count(self.agents.len()));
        }
        if !self.is_complete {
            output::note(&format!(
                "incomplete: flows of {} of {}\n",
                answered,
                agents::count(self.agents.len())
            ));
            return Ok(Outcome::Incomplete);
        }
        self.printer.note_nothing();
        Ok(Outcome::Yes)
    }

    fn process(&mut self, event: PodEvent) {
        match event {
            PodEvent::Line(pod, line) => match serde_json::from_slice(&line) {
                Ok(page) => self.page(&pod, page),
                Err(error) => self.failed(&pod, &format!("it printed no page of flows: {error}")),
            },
            PodEvent::Ended(pod, ended) => self.ended(&pod, ended),
            PodEvent::Appeared(pod) => {
                output::note(&format!("node {}: its agent has started\n", escape::plain(&pod.node)));
                self.agents.insert(pod.uid.clone(), Known::default());
            }
            PodEvent::Gone(pod) => {
                output::note(&format!("node {}: its agent is gone\n", escape::plain(&pod.node)));
                self.merger.caught_up(&pod.uid);
                self.agents.remove(&pod.uid);
            }
            PodEvent::NotFound(error) => output::note(&format!(
                "can't list the agents, so that new ones are not followed: {}\n",
                error.with_advice()
            )),
            PodEvent::Found { .. } => {}
        }
    }

    fn page(&mut self, pod: &ExecPod, page: FlowPage) {
        let known = self.agents.entry(pod.uid.clone()).or_default();
        let node = escape::plain(&pod.node).into_owned();
        if known.losses.is_new(&page) {
            output::note(&format!("node {node}: its agent has started again, its earlier flows are gone\n"));
            (known.losses, known.last) = (Losses::default(), 0);
        }
        if std::mem::replace(&mut known.has_failed, false) {
            output::note(&format!("node {node}: its flows are followed again\n"));
        }
        known.has_answered = true;
        known.losses.report(&page, &format!("node {node}: "));
        // A large page takes its time to arrive, which says nothing about clocks.
        if !page.more && page.records.len() < 100 && !known.clock_is_reported {
            known.clock_is_reported = report_clock(&node, page.now);
        }
        let (more, now) = (page.more, Instant::now());
        for record in page.records {
            // After a lost connection more is requested than is missing.
            if record.id > known.last {
                known.last = record.id;
                self.merger.add(record, now);
            }
        }
        if !more && self.arguments.follow {
            self.merger.caught_up(&pod.uid);
        }
    }

    fn ended(&mut self, pod: &ExecPod, ended: Result<CommandStatus, ExecError>) {
        self.merger.caught_up(&pod.uid);
        match ended {
            Ok(CommandStatus { code: 0, .. }) => {}
            Ok(CommandStatus { code, stderr }) => self.failed(pod, &agents::failure(code, &stderr)),
            Err(error) => self.failed(pod, &error.to_string()),
        }
    }

    fn failed(&mut self, pod: &ExecPod, why: &str) {
        self.is_complete = false;
        let known = self.agents.entry(pod.uid.clone()).or_default();
        if std::mem::replace(&mut known.has_failed, true) {
            return;
        }
        agents::note_failure(pod, why);
        let all = self.agents.values();
        // They may be starting. The pauses between attempts grow to 30 s.
        if self.arguments.follow && all.clone().all(|known| known.has_failed && !known.has_answered) {
            output::note(&format!("none of {} could be queried, trying again\n", agents::count(all.len())));
        }
    }

    fn note_late(&mut self) {
        let late = self.merger.take_late();
        if late > 0 {
            output::note(&format!("records out of order, because clocks differ or they came late: {late}\n"));
        }
    }
}

/// Says if a node's clock differs from this machine's. Returns whether it does.
fn report_clock(node: &str, now: Option<Timestamp>) -> bool {
    let Some(now) = now else { return false };
    let ahead = now.duration_since(Timestamp::now());
    let differs = ahead.abs() > CLOCK_TOLERANCE;
    if differs {
        let direction = if ahead.is_positive() { "ahead of" } else { "behind" };
        output::note(&format!(
            "node {node}: its clock is {:.1} s {direction} this machine's; records have the time of their node\n",
            ahead.abs().as_secs_f64()
        ));
    }
    differs
}

/// The arguments of the command that runs in the agents' containers.
struct Words {
    filter: Vec<String>,
    since: Option<String>,
    last: Option<usize>,
}

fn words(arguments: &Flows) -> Words {
    let mut filter = Vec::new();
    let mut add = |option: &str, value: String| filter.push(format!("{option}={value}"));
    arguments.from.iter().for_each(|peer| add("--from", peer.to_string()));
    arguments.to.iter().for_each(|peer| add("--to", peer.to_string()));
    arguments.pod.iter().for_each(|peer| add("--pod", peer.to_string()));
    arguments.namespace.iter().for_each(|peer| add("--namespace", peer.to_string().replace('/', "")));
    arguments.verdict.iter().for_each(|verdict| add("--verdict", verdict.word()));
    arguments.policy.iter().for_each(|policy| add("--policy", policy.to_string()));
    arguments.port.iter().for_each(|port| add("--port", port.to_string()));
    let since = arguments.since.as_ref().map(|since| since.text.clone());
    Words { filter, since, last: arguments.last }
}

/// Returns the words that follow all records of an agent, from so many of the latest on.
#[cfg(feature = "ui")]
pub(crate) fn follow_words(last: usize) -> palisade_api::pod_command::CommandWords {
    let words = Words { filter: Vec::new(), since: None, last: Some(last) };
    Arc::new(move |since| words.of(since, true))
}

impl Words {
    /// The words of an attempt: `since` is how long ago the last line of an earlier one was received.
    fn of(&self, since: Option<Duration>, follow: bool) -> Vec<String> {
        let mut words = agents::palisade(&["flows", "--output=pages"]);
        words.extend(self.filter.iter().cloned());
        words.extend(follow.then(|| "--follow".to_owned()));
        match since {
            Some(since) => words.push(format!("--since={}s", (since + OVERLAP).as_secs())),
            None => {
                words.extend(self.since.iter().map(|since| format!("--since={since}")));
                words.extend(self.last.map(|last| format!("--last={last}")));
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_attempt_requests_what_the_first_may_have_missed() {
        let words =
            Words { filter: vec!["--port=53/UDP".to_owned()], since: Some("5m".to_owned()), last: Some(7) };
        let program = "/usr/local/bin/palisade flows --output=pages --port=53/UDP";
        assert_eq!(words.of(None, false).join(" "), format!("{program} --since=5m --last=7"));
        assert_eq!(
            words.of(Some(Duration::from_secs(3)), true).join(" "),
            format!("{program} --follow --since=13s")
        );
    }

    #[test]
    fn clocks_that_differ_are_reported() {
        let at = |seconds| Timestamp::now().checked_add(SignedDuration::from_secs(seconds)).ok();
        assert!(!report_clock("n1", None) && !report_clock("n1", at(0)) && !report_clock("n1", at(1)));
        assert!(report_clock("n1", at(5)) && report_clock("n1", at(-5)));
    }
}

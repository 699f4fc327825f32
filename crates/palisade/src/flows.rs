//! `palisade flows`: what the agent of this node saw.

mod render;

use std::{path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use palisade_agent::{
    config::DEFAULT_SOCKET,
    flows::{FlowPage, FlowRequest},
    socket::{Request, Response},
};
use palisade_flow::{Filter, Peer, PolicyName, Port, Verdict};

use crate::{exit::Outcome, node, output};

pub(crate) const HELP: &str = "\
The agent must run on this machine. Its socket accepts root and the agent's own user only. It keeps the latest flows, as many as fit into the setting flow-buffer; a flow that is dropped all the time has one record each second, with the number of its packets.

PEER is a pod or workload (NAMESPACE/NAME), a namespace (NAMESPACE/), an address or a CIDR.

Examples:
  palisade flows                                    what policies dropped, oldest first
  palisade flows -f --last 0                        only what is dropped from now on
  palisade flows --to shop/database --since 5m
  palisade flows -n shop --port 53/UDP
  palisade flows --policy shop/default-deny -o json | jq -r .reason[0]

Exit codes: 0 shown, also if there is nothing, 2 error.";

/// Arguments of `flows`.
#[derive(Debug, Args)]
pub(crate) struct Flows {
    /// Wait for more, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only the latest N flows
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Only since a time (2026-11-28T10:00:00Z) or for a duration until now (30s, 5m, 2h)
    #[arg(long, value_name = "TIME|DURATION", value_parser = since)]
    since: Option<Timestamp>,
    /// Only from these sources
    #[arg(long, value_name = "PEER")]
    from: Vec<Peer>,
    /// Only to these destinations
    #[arg(long, value_name = "PEER")]
    to: Vec<Peer>,
    /// Only from or to these pods
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pod: Vec<Peer>,
    /// Only from or to pods of these namespaces
    #[arg(short, long, value_name = "NAME", value_parser = namespace)]
    namespace: Vec<Peer>,
    /// Only with this verdict
    #[arg(long, value_enum, value_name = "VERDICT")]
    verdict: Vec<Decided>,
    /// Only what this policy decided
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    policy: Vec<PolicyName>,
    /// Only to this destination port
    #[arg(long, value_name = "PORT[/PROTO]")]
    port: Vec<Port>,
    /// Path of the agent's socket
    #[arg(
        long,
        env = "PALISADE_SOCKET",
        value_name = "FILE",
        default_value = DEFAULT_SOCKET,
        hide_env_values = true
    )]
    socket: PathBuf,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Form,
}

/// `--verdict`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Decided {
    /// Denied by a policy
    Dropped,
    /// Passed, but a policy in audit mode would deny it
    Audited,
}

impl Decided {
    fn of_records(self) -> Verdict {
        match self {
            Self::Dropped => Verdict::Dropped,
            Self::Audited => Verdict::Audited,
        }
    }
}

/// `--output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// One line for each record, with a line for each reason
    #[default]
    Text,
    /// One JSON object on a line for each record
    Json,
    /// The same in Hubble's format, for programs that read `hubble observe -o jsonpb`
    Jsonpb,
}

/// How long the agent is asked to wait for a record, and the pause before it is asked again if it didn't.
const WAIT: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(50);
/// The pause before an agent that is gone is asked again.
const RETRY: Duration = Duration::from_millis(500);

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago: SignedDuration =
        text.parse().map_err(|_| "not a time such as 2026-11-28T10:00:00Z and not a duration such as 5m")?;
    Timestamp::now().checked_sub(ago.abs()).map_err(|_| "longer ago than times go back".to_owned())
}

fn namespace(text: &str) -> Result<Peer, String> {
    match format!("{text}/").parse() {
        Ok(peer @ Peer::Namespace(_)) => Ok(peer),
        _ => Err("not the name of a namespace".to_owned()),
    }
}

impl Flows {
    fn filter(&self) -> Filter {
        Filter {
            from: self.from.clone(),
            to: self.to.clone(),
            either: self.pod.clone(),
            namespaces: self.namespace.clone(),
            verdicts: self.verdict.iter().map(|verdict| verdict.of_records()).collect(),
            policies: self.policy.clone(),
            ports: self.port.clone(),
            since: self.since,
        }
    }

    fn page(&self, request: &FlowRequest) -> Result<FlowPage> {
        match node::ask(&self.socket, Request::Flows(request.clone()))? {
            Response::Flows(page) => Ok(page),
            Response::Error(error) if error.contains("unknown variant") => {
                Err(anyhow!("the agent of this node is of a version without flows: {error}"))
            }
            Response::Error(error) => bail!("{error}"),
            _ => bail!("the agent of this node gave another answer than asked for"),
        }
    }
}

/// Prints the flows.
pub(crate) fn run(arguments: &Flows) -> Result<Outcome> {
    let mut request =
        FlowRequest { filter: arguments.filter(), last: arguments.last, ..FlowRequest::default() };
    let mut state = State::default();
    loop {
        let page = match arguments.page(&request) {
            Ok(page) => page,
            Err(error) if arguments.follow && state.started.is_some() => {
                state.wait(&error);
                continue;
            }
            Err(error) => return Err(error),
        };
        if state.is_new(&page) {
            output::note("the agent of this node has started again, its earlier flows are gone\n");
            (request.after, state) = (0, State { is_headed: state.is_headed, ..State::default() });
            continue;
        }
        if !print(arguments, &page, &mut state)? {
            return Ok(Outcome::Yes);
        }
        state.report(&page);
        let found = !page.records.is_empty();
        (request.after, request.last) = (page.next, None);
        if page.more {
            continue;
        }
        if !arguments.follow {
            if !state.has_shown {
                output::note("no flows: nothing was dropped, or nothing that matches\n");
            }
            return Ok(Outcome::Yes);
        }
        if !found && request.wait_milliseconds > 0 {
            thread::sleep(PAUSE);
        }
        request.wait_milliseconds = WAIT.as_millis() as u64;
    }
}

/// Prints a page. Returns whether somebody may still read the next one.
fn print(arguments: &Flows, page: &FlowPage, state: &mut State) -> Result<bool> {
    let mut text = String::new();
    let shows = arguments.follow || !page.records.is_empty();
    if arguments.output == Form::Text && shows && !std::mem::replace(&mut state.is_headed, true) {
        text += &render::heading();
    }
    for record in &page.records {
        text += &match arguments.output {
            Form::Text => render::text(record),
            Form::Json => render::line(record)?,
            Form::Jsonpb => render::line(&palisade_flow::hubble(record))?,
        };
    }
    state.has_shown |= !page.records.is_empty();
    output::print_unless_closed(&text).context("can't write the flows")
}

/// What has been shown and said so far.
#[derive(Debug, Default)]
struct State {
    is_headed: bool,
    has_shown: bool,
    /// When the agent that answers has started.
    started: Option<Timestamp>,
    /// Whether it was said that the agent is gone.
    is_away: bool,
    evicted: u64,
    unrecorded: u64,
}

impl State {
    /// Whether another agent answers than before, which counts from the beginning.
    fn is_new(&self, page: &FlowPage) -> bool {
        self.started.is_some_and(|started| started != page.started)
    }

    /// Waits for an agent that is gone.
    fn wait(&mut self, error: &anyhow::Error) {
        if !std::mem::replace(&mut self.is_away, true) {
            output::note(&format!("waiting for the agent of this node: {error:#}\n"));
        }
        thread::sleep(RETRY);
    }

    /// Says what has got lost since the last page, or since the agent started.
    fn report(&mut self, page: &FlowPage) {
        let unrecorded = page.unrecorded.saturating_sub(self.unrecorded);
        let evicted = page.evicted.saturating_sub(self.evicted);
        if unrecorded > 0 {
            output::note(&format!(
                "dropped packets without a record, because there were too many at once: {unrecorded}\n"
            ));
        }
        if evicted > 0 {
            output::note(&format!(
                "records that made room for later ones of the same sender (setting flow-buffer): {evicted}\n"
            ));
        }
        (self.evicted, self.unrecorded) = (page.evicted, page.unrecorded);
        (self.started, self.is_away) = (Some(page.started), false);
    }
}

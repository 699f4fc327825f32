//! `palisade flows`: what agents saw, of this machine or of a cluster.

mod cluster;
#[cfg(all(target_os = "linux", feature = "agent"))]
mod local;
mod losses;
mod merge;
mod render;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use palisade_flow::{Peer, PolicyName, Port, Record, Verdict};

#[cfg(feature = "ui")]
pub(crate) use cluster::follow_words;

use crate::{
    agents::{AgentsArguments, Reach},
    exit::Outcome,
    output,
};

pub(crate) const HELP: &str = "\
On a machine with an agent, that agent is queried over its socket, which accepts root and the agent's own user only. Elsewhere, and with --node, --namespace-of-agents, --context or --kubeconfig, all agents of a cluster are queried: `palisade flows` runs in their pods through the API server, as with `kubectl exec`, and the records are merged by time. This requires what the Role palisade-flow-reader grants.

An agent keeps the latest flows, as many as fit into the setting flow-buffer; a flow that is dropped all the time has one record each second, with the number of its packets. Connections that policies allow are recorded if the agent's setting flows is new or all.

PEER is a pod or workload (NAMESPACE/NAME), a namespace (NAMESPACE/), an address or a CIDR.

Examples:
  palisade flows                                    what policies dropped, oldest first
  palisade flows -f --last 0                        only what is dropped from now on
  palisade flows --to shop/database --since 5m
  palisade flows --node worker-1 --context staging  of one node of a cluster
  palisade flows -n shop --port 53/UDP
  palisade flows --verdict forwarded --to shop/     connections that passed, if recorded
  palisade flows --policy shop/default-deny -o json | jq -r .reason[0]

Exit codes: 0 shown, also if there is nothing, 2 error, also if an agent could not be queried.";

/// Arguments of `flows`.
#[derive(Debug, Args)]
pub(crate) struct Flows {
    /// Follow new flows, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only the latest N flows
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Only since a time (2026-11-28T10:00:00Z) or for a duration until now (30s, 5m, 2h)
    #[arg(long, value_name = "TIME|DURATION", value_parser = since)]
    since: Option<Since>,
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
    /// Only flows that this policy decided
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    policy: Vec<PolicyName>,
    /// Only to this destination port
    #[arg(long, value_name = "PORT[/PROTO]")]
    port: Vec<Port>,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Form,
    #[command(flatten)]
    agents: AgentsArguments,
}

/// `--since`.
#[derive(Clone, Debug)]
struct Since {
    /// As the user wrote it. A duration counts by the clock of each node.
    text: String,
    #[cfg_attr(
        not(all(target_os = "linux", feature = "agent")),
        expect(dead_code, reason = "the agents of a cluster are sent the text")
    )]
    time: Timestamp,
}

/// `--verdict`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Decided {
    /// A connection that passed; agents record these if their setting flows is new or all
    Forwarded,
    /// Denied by a policy
    Dropped,
    /// Passed, but a policy in audit mode would deny it
    Audited,
}

impl Decided {
    fn verdict(self) -> Verdict {
        match self {
            Self::Forwarded => Verdict::Forwarded,
            Self::Dropped => Verdict::Dropped,
            Self::Audited => Verdict::Audited,
        }
    }

    /// The word on the command line.
    fn word(self) -> String {
        self.verdict().to_string()
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
    /// Pages of records as JSON lines, with what was lost and the time of the node: what `palisade flows` reads from other machines
    #[value(hide = true)]
    Pages,
}

fn since(text: &str) -> Result<Since, String> {
    let since = |time| Since { text: text.to_owned(), time };
    if let Ok(time) = text.parse() {
        return Ok(since(time));
    }
    let ago: SignedDuration =
        text.parse().map_err(|_| "not a time such as 2026-11-28T10:00:00Z and not a duration such as 5m")?;
    let time = Timestamp::now().checked_sub(ago.abs());
    time.map(since).map_err(|_| "longer ago than times go back".to_owned())
}

fn namespace(text: &str) -> Result<Peer, String> {
    match format!("{text}/").parse() {
        Ok(peer @ Peer::Namespace(_)) => Ok(peer),
        _ => Err("not the name of a namespace".to_owned()),
    }
}

/// Prints the flows.
///
/// # Errors
/// If no agent can be queried.
pub(crate) fn run(arguments: &Flows) -> Result<Outcome> {
    match arguments.agents.reach()? {
        #[cfg(all(target_os = "linux", feature = "agent"))]
        Reach::Socket(socket) => local::run(arguments, socket),
        Reach::Cluster(_) if arguments.output == Form::Pages => {
            anyhow::bail!("`-o pages` is for the agent of this machine, and none runs here")
        }
        Reach::Cluster(agents) => cluster::run(arguments, agents),
    }
}

/// Prints records in the requested format.
struct Printer<'a> {
    arguments: &'a Flows,
    names_nodes: bool,
    is_headed: bool,
    has_shown: bool,
}

impl<'a> Printer<'a> {
    /// For the records of one node.
    #[cfg(all(target_os = "linux", feature = "agent"))]
    fn new(arguments: &'a Flows) -> Self {
        Self { arguments, names_nodes: false, is_headed: false, has_shown: false }
    }

    /// For the records of several nodes.
    fn of_nodes(arguments: &'a Flows) -> Self {
        Self { arguments, names_nodes: true, is_headed: false, has_shown: false }
    }

    /// Prints records. Returns whether the next ones may still be read.
    fn print(&mut self, records: &[Record]) -> Result<bool> {
        let Flows { follow, output, .. } = self.arguments;
        let mut text = String::new();
        let shows = *follow || !records.is_empty();
        if *output == Form::Text && shows && !std::mem::replace(&mut self.is_headed, true) {
            text += &render::heading(self.names_nodes);
        }
        for record in records {
            text += &match output {
                Form::Text => render::text(record, self.names_nodes),
                Form::Json | Form::Pages => render::line(record)?,
                Form::Jsonpb => render::line(&palisade_flow::hubble(record))?,
            };
        }
        self.has_shown |= !records.is_empty();
        output::print_unless_closed(&text).context("can't write the flows")
    }

    /// Says if there was nothing.
    fn note_nothing(&self) {
        if !self.has_shown {
            output::note("no flows: nothing was dropped, or nothing that matches\n");
        }
    }
}

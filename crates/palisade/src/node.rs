//! `palisade node`: queries the agent of this node.

mod render;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use palisade_agent::socket::{Request, Response};

use crate::{
    agent_socket::{SocketArguments, ask},
    exit::Outcome,
    output::{self, Format},
};
pub(crate) use render::{plan_document, plan_text};

pub(crate) const HELP: &str = "\
The agent must run on this machine. Its socket accepts root and the agent's own user only. From elsewhere: `kubectl -n palisade-system exec POD -- palisade node`, or `palisade status` for the agents of all nodes.

Examples:
  palisade node                                     agent status
  palisade node pods                                pods of this node and their tables
  palisade node explain shop/frontend shop/backend:8080
  palisade node verify                              compare the kernel with the plan
  palisade node errors -o json

Exit codes: 0 yes (ready, allowed, equal), 1 no (not ready, denied, different), 2 error.";

/// Arguments of `node`.
#[derive(Debug, Args)]
pub(crate) struct Node {
    #[command(subcommand)]
    ask: Option<Question>,
    #[command(flatten)]
    socket: SocketArguments,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t, global = true)]
    output: Format,
}

/// The inner verbs.
#[derive(Debug, Subcommand)]
enum Question {
    /// Agent status: readiness, watches, number of objects (the default)
    #[command(
        after_help = "Examples:\n  palisade node status\n  palisade node status -o json\n\nExit codes: 0 ready, 1 not ready, 2 error."
    )]
    Status,
    /// Pods of this node, and the policy tables that apply to them
    #[command(after_help = "Examples:\n  palisade node pods\n\nExit codes: 0 shown, 2 error.")]
    Pods,
    /// Pods that are selected by the same policies, with these policies
    #[command(after_help = "Examples:\n  palisade node profiles\n\nExit codes: 0 shown, 2 error.")]
    Profiles,
    /// Policy tables: allowed traffic by peer set
    #[command(after_help = "Examples:\n  palisade node tables\n\nExit codes: 0 shown, 2 error.")]
    Tables,
    /// Peer sets and their members
    #[command(
        after_help = "Examples:\n  palisade node groups\n  palisade node groups -o json\n\nExit codes: 0 shown, 2 error."
    )]
    Groups,
    /// Recent errors, and problems of objects
    #[command(after_help = "Examples:\n  palisade node errors\n\nExit codes: 0 shown, 2 error.")]
    Errors,
    /// Check whether SRC may connect to DST, as this node's agent sees it
    #[command(after_help = "\
SRC and DST have the syntax of `palisade can`.

Examples:
  palisade node explain shop/frontend shop/backend:8080
  palisade node explain -n shop frontend 10.0.0.7:53/UDP

Exit codes: 0 allowed, 1 denied, 2 error.")]
    Explain {
        /// Source of the connection
        #[arg(value_name = "SRC")]
        source: String,
        /// Destination, with port and protocol (default: TCP)
        #[arg(value_name = "DST[:PORT[/PROTO]]")]
        destination: String,
        /// Namespace of names without one
        #[arg(short, long, value_name = "NAME", default_value = "default")]
        namespace: String,
    },
    /// Compare the kernel with the plan, element by element
    #[command(
        after_help = "Examples:\n  palisade node verify && echo equal\n\nExit codes: 0 equal, 1 different, 2 error."
    )]
    Verify,
}

impl Question {
    fn request(&self) -> Request {
        match self {
            Self::Status => Request::Status,
            Self::Pods => Request::Pods,
            Self::Profiles => Request::Profiles,
            Self::Tables => Request::Tables,
            Self::Groups => Request::Groups,
            Self::Errors => Request::Errors,
            Self::Explain { source, destination, namespace } => Request::Explain {
                source: source.clone(),
                destination: destination.clone(),
                namespace: namespace.clone(),
            },
            Self::Verify => Request::Verify,
        }
    }
}

/// Queries the agent and prints the reply.
pub(crate) fn run(arguments: &Node) -> Result<Outcome> {
    let question = arguments.ask.as_ref().map_or(Request::Status, Question::request);
    let reply = match ask(arguments.socket.path(), question)? {
        Response::Error(error) => bail!("{error}"),
        reply => reply,
    };
    let text = match arguments.output.encoding() {
        None => render::text(&reply)?,
        Some(encoding) => render::document(&reply, encoding)?,
    };
    output::print(&text).context("can't write the reply")?;
    Ok(match reply {
        Response::Status(status) => Outcome::of(status.ready),
        Response::Explained(explained) => Outcome::of(explained.allowed),
        Response::Verified(verified) => Outcome::of(verified.equal),
        _ => Outcome::Yes,
    })
}

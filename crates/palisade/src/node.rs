//! `palisade node`: queries the agent of this node.

mod render;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Subcommand};
use palisade_agent::{
    config::DEFAULT_SOCKET,
    socket::{RESPONSE_TIMEOUT, Request, RequestLine, Response, ResponseLine, VERSION},
};

use crate::{
    exit::Outcome,
    output::{self, Format},
};
pub(crate) use render::{plan_document, plan_text};

pub(crate) const HELP: &str = "\
The agent must run on this machine. Its socket accepts root and the agent's own user only.

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
    /// Path of the agent's socket
    #[arg(
        long,
        env = "PALISADE_SOCKET",
        value_name = "FILE",
        default_value = DEFAULT_SOCKET,
        hide_env_values = true,
        global = true
    )]
    socket: PathBuf,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t, global = true)]
    output: Format,
}

/// The inner verbs.
#[derive(Debug, Subcommand)]
enum Question {
    /// Agent status: readiness, watches, number of objects (the default)
    #[command(after_help = "Examples:\n  palisade node status\n  palisade node status -o json")]
    Status,
    /// Pods of this node, and the policy tables that apply to them
    #[command(after_help = "Examples:\n  palisade node pods")]
    Pods,
    /// Pods that are selected by the same policies, with these policies
    #[command(after_help = "Examples:\n  palisade node profiles")]
    Profiles,
    /// Policy tables: allowed traffic by peer set
    #[command(after_help = "Examples:\n  palisade node tables")]
    Tables,
    /// Peer sets and their members
    #[command(after_help = "Examples:\n  palisade node groups\n  palisade node groups -o json")]
    Groups,
    /// Recent errors, and problems of objects
    #[command(after_help = "Examples:\n  palisade node errors")]
    Errors,
    /// Check whether SRC may connect to DST, as this node's agent sees it
    #[command(after_help = "\
SRC and DST have the syntax of `palisade can`.

Examples:
  palisade node explain shop/frontend shop/backend:8080
  palisade node explain -n shop frontend 10.0.0.7:53/UDP")]
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
    #[command(after_help = "Examples:\n  palisade node verify && echo equal")]
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
    let reply = match ask(&arguments.socket, question)? {
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

/// Sends a request to the agent of this node.
///
/// # Errors
/// If no agent answers.
pub(crate) fn ask(socket: &Path, request: Request) -> Result<Response> {
    let at = socket.display();
    let mut stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            anyhow!(
                "no agent listens on {at}: check that it runs on this machine, and the path given by --socket"
            )
        }
        std::io::ErrorKind::PermissionDenied => {
            anyhow!("permission denied for {at}: run as root")
        }
        _ => anyhow::Error::new(error).context(format!("can't connect to {at}")),
    })?;
    // The agent reports its own timeout; this one is longer.
    stream.set_read_timeout(Some(RESPONSE_TIMEOUT + RESPONSE_TIMEOUT / 2)).context("can't set a timeout")?;
    let mut line = serde_json::to_vec(&RequestLine { version: VERSION, request })?;
    line.push(b'\n');
    stream.write_all(&line).with_context(|| format!("can't query the agent at {at}"))?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(LONGEST))
        .read_until(b'\n', &mut answer)
        .with_context(|| format!("no reply from the agent at {at}"))?;
    if answer.is_empty() {
        bail!(
            "the agent at {at} closed the connection without a reply: it accepts root and its own user only"
        );
    }
    let response: ResponseLine = serde_json::from_slice(&answer)
        .with_context(|| format!("the reply from {at} is not that of an agent of this version"))?;
    Ok(response.response)
}

/// The longest reply in bytes. The peer sets of the largest cluster take some megabytes.
const LONGEST: u64 = 256 << 20;

//! `palisade node`: what the agent of this node says.

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
pub(crate) use render::{plan_json, plan_text};

pub(crate) const HELP: &str = "\
The agent must run on this machine, and the socket is for its user alone: as a rule root.

Examples:
  palisade node                                     how the agent fares
  palisade node pods                                what decides each pod of this node
  palisade node explain shop/frontend shop/backend:8080
  palisade node verify                              whether the kernel holds the plan
  palisade node errors -o json

Exit codes: 0 yes (well, allowed, equal), 1 no (not ready, denied, different), 2 error.";

/// What `node` takes.
#[derive(Debug, Args)]
pub(crate) struct Node {
    #[command(subcommand)]
    ask: Option<Question>,
    /// The agent's socket
    #[arg(
        long,
        env = "PALISADE_SOCKET",
        value_name = "FILE",
        default_value = DEFAULT_SOCKET,
        hide_env_values = true,
        global = true
    )]
    socket: PathBuf,
    /// The form of the answer
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t, global = true)]
    output: Format,
}

/// What to ask.
#[derive(Debug, Subcommand)]
enum Question {
    /// How the agent fares: readiness, watches, what it knows (this is asked if nothing is)
    #[command(after_help = "Examples:\n  palisade node status\n  palisade node status -o json")]
    Status,
    /// The pods of this node, and the tables that decide them
    #[command(after_help = "Examples:\n  palisade node pods")]
    Pods,
    /// Pods that the same policies select, with the policies
    #[command(after_help = "Examples:\n  palisade node profiles")]
    Profiles,
    /// The tables: which group of peers may use what
    #[command(after_help = "Examples:\n  palisade node tables")]
    Tables,
    /// The groups of peers, and their members
    #[command(after_help = "Examples:\n  palisade node groups\n  palisade node groups -o json")]
    Groups,
    /// What went wrong lately, and what is wrong with objects now
    #[command(after_help = "Examples:\n  palisade node errors")]
    Errors,
    /// May SRC open a connection to DST, as this node sees it?
    #[command(after_help = "\
SRC and DST are spelt as for `palisade can`.

Examples:
  palisade node explain shop/frontend shop/backend:8080
  palisade node explain -n shop frontend 10.0.0.7:53/UDP")]
    Explain {
        /// Who opens the connection
        #[arg(value_name = "SRC")]
        source: String,
        /// Who is called, with port and protocol (TCP if not said)
        #[arg(value_name = "DST[:PORT[/PROTO]]")]
        destination: String,
        /// The namespace of names that have none
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

/// Asks.
pub(crate) fn run(arguments: &Node) -> Result<Outcome> {
    let question = arguments.ask.as_ref().map_or(Request::Status, Question::request);
    let reply = match ask(&arguments.socket, question)? {
        Response::Error(error) => bail!("{error}"),
        reply => reply,
    };
    let text = match arguments.output {
        Format::Text => render::text(&reply)?,
        Format::Json => render::json(&reply)?,
    };
    output::print(&text).context("can't write the answer")?;
    Ok(match reply {
        Response::Status(status) => Outcome::of(status.ready),
        Response::Explained(explained) => Outcome::of(explained.allowed),
        Response::Verified(verified) => Outcome::of(verified.equal),
        _ => Outcome::Yes,
    })
}

fn ask(socket: &Path, request: Request) -> Result<Response> {
    let at = socket.display();
    let mut stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            anyhow!(
                "no agent answers at {at}: does one run on this machine, and is its socket there (--socket)?"
            )
        }
        std::io::ErrorKind::PermissionDenied => {
            anyhow!("{at} is for the agent's user alone: ask as root")
        }
        _ => anyhow::Error::new(error).context(format!("can't connect to {at}")),
    })?;
    // The agent says so itself when it takes too long.
    stream
        .set_read_timeout(Some(RESPONSE_TIMEOUT + RESPONSE_TIMEOUT / 2))
        .context("can't set a time limit")?;
    let mut line = serde_json::to_vec(&RequestLine { version: VERSION, request })?;
    line.push(b'\n');
    stream.write_all(&line).with_context(|| format!("can't ask the agent at {at}"))?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(LONGEST))
        .read_until(b'\n', &mut answer)
        .with_context(|| format!("no answer from the agent at {at}"))?;
    if answer.is_empty() {
        bail!(
            "the agent at {at} closed the connection without an answer: it lets in root and its own user only"
        );
    }
    let response: ResponseLine = serde_json::from_slice(&answer)
        .with_context(|| format!("what answers at {at} is not an agent of this version"))?;
    Ok(response.response)
}

/// The longest answer: the groups of the largest cluster are some megabytes.
const LONGEST: u64 = 256 << 20;

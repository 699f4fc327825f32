//! The socket of the agent of this machine.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use palisade_agent::{
    config::DEFAULT_SOCKET,
    socket::{RESPONSE_TIMEOUT, Request, RequestLine, Response, ResponseLine, VERSION},
};

/// `--socket`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SocketArguments {
    /// Path of the agent's socket [default: /run/palisade/agent.sock]
    #[arg(long, env = "PALISADE_SOCKET", value_name = "FILE", hide_env_values = true, global = true)]
    socket: Option<PathBuf>,
}

impl SocketArguments {
    /// The socket's path.
    pub(crate) fn path(&self) -> &Path {
        self.socket.as_deref().unwrap_or(Path::new(DEFAULT_SOCKET))
    }

    /// Whether the user named a socket.
    pub(crate) fn is_named(&self) -> bool {
        self.socket.is_some()
    }
}

/// The longest reply in bytes. The peer sets of the largest cluster take some megabytes.
const LONGEST: u64 = 256 << 20;

/// No agent answers at this moment: it may be starting or stopping.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreachable(String);

/// Sends a request to the agent of this node.
///
/// # Errors
/// If no agent answers. [`Unreachable`] if one may answer later.
pub(crate) fn ask(socket: &Path, request: Request) -> Result<Response> {
    let at = socket.display();
    let mut stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            anyhow::Error::new(Unreachable(format!(
                "no agent listens on {at}: check that it runs on this machine, and the path given by --socket"
            )))
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
    stream.write_all(&line).with_context(|| Unreachable(format!("can't query the agent at {at}")))?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(LONGEST))
        .read_until(b'\n', &mut answer)
        .with_context(|| Unreachable(format!("no reply from the agent at {at}")))?;
    if answer.is_empty() {
        if nix::unistd::geteuid().is_root() {
            // It accepts root, so it is stopping.
            bail!(Unreachable(format!("the agent at {at} closed the connection without a reply")));
        }
        bail!(
            "the agent at {at} closed the connection without a reply: it accepts root and its own user only"
        );
    }
    let response: ResponseLine = serde_json::from_slice(&answer)
        .with_context(|| format!("the reply from {at} is not that of an agent of this version"))?;
    Ok(response.response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_that_of_the_agent() {
        let socket = SocketArguments { socket: None };
        assert!(!socket.is_named() && socket.path() == Path::new(DEFAULT_SOCKET));
        assert_eq!(DEFAULT_SOCKET, "/run/palisade/agent.sock", "as its help says");
    }
}

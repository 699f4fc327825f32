//! `agent`: whether an agent runs on this node.

use std::{io, os::unix::net::UnixStream};

use crate::{finding::Outcome, node::Node};

pub(super) fn check(node: &Node<'_>) -> Result<Outcome, Outcome> {
    let shown = node.socket.display();
    Ok(match UnixStream::connect(node.socket) {
        Ok(_) => Outcome::ok(format!("an agent listens on {shown}")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Outcome::ok("no agent runs on this node"),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Outcome::warn(
            format!(
                "the agent that listened on {shown} has exited: policy changes are not applied, and its last rules remain active"
            ),
            "start it again, or remove the rules with `palisade agent --remove`",
        ),
        Err(e) => Outcome::unknown(format!("{shown}: {e}"), node.cure_of_refusal()),
    })
}

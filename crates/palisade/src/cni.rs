//! `palisade cni`: the CNI plugin as a process. `palisade-cni` is a copy of the program.

use std::io::Read as _;

use anyhow::{Context as _, Result};
use palisade_agent::cni::{Environment, MAX_INPUT, run as execute};

use crate::{exit::Outcome, output};

pub(crate) const HELP: &str = "\
Container runtimes call it, as they call every CNI plugin (CNI specification 1.1): with the command in CNI_COMMAND and the configuration on standard input. It sets up no network, so it must follow a plugin that does. ADD asks this node's agent to program the pod, and returns the previous plugin's result when the kernel has committed.

Examples:
  echo '{\"cniVersion\":\"1.1.0\"}' | CNI_COMMAND=VERSION palisade cni

Exit codes: 0 done, 1 error, which is on standard output.";

/// Executes the command of the environment.
pub(crate) fn run() -> Result<Outcome> {
    let environment = Environment::read();
    let mut input = Vec::new();
    // A user who calls it by hand gets an answer instead of a wait for input.
    if environment.command.is_some() {
        // One byte more shows that there is more than may be.
        std::io::stdin()
            .take(MAX_INPUT as u64 + 1)
            .read_to_end(&mut input)
            .context("can't read standard input")?;
    }
    let reply = execute(&environment, &input);
    if let Some(note) = &reply.note {
        output::note(&format!("palisade: {note}\n"));
    }
    output::print(&reply.output).context("can't write")?;
    Ok(Outcome::of(reply.succeeded))
}

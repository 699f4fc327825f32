//! `palisade lab down`: stops a running lab.

use std::io::Read as _;

use anyhow::{Context as _, Result};
use clap::Args;

use super::control::{self, LabName, Request};
use crate::exit::Outcome;

pub(crate) const HELP: &str = "\
Examples:
  palisade lab down
  palisade lab down --name other

Exit codes: 0 stopped, 2 error.";

/// Arguments of `lab down`.
#[derive(Debug, Args)]
pub(crate) struct Down {
    #[command(flatten)]
    lab: LabName,
}

/// Stops the lab and waits until it is removed.
pub(crate) fn run(arguments: &Down) -> Result<Outcome> {
    let mut stream = control::connect(&arguments.lab.name)?;
    control::ask(&mut stream, &Request::Down)?;
    // The lab keeps the connection open until its process exits.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).context("lost the connection while waiting for the lab to stop")?;
    Ok(Outcome::Yes)
}

//! `palisade lab down`: end a running lab.

use std::io::Read as _;

use anyhow::{Context as _, Result};
use clap::Args;

use super::control::{self, LabName, Request};
use crate::exit::Outcome;

pub(crate) const HELP: &str = "\
Examples:
  palisade lab down
  palisade lab down --name other";

/// What `lab down` takes.
#[derive(Debug, Args)]
pub(crate) struct Down {
    #[command(flatten)]
    lab: LabName,
}

/// Does it.
pub(crate) fn run(arguments: &Down) -> Result<Outcome> {
    let mut stream = control::connect(&arguments.lab.name)?;
    control::ask(&mut stream, &Request::Down)?;
    // The lab holds the connection to the end of its process.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).context("lost the lab while waiting for its end")?;
    Ok(Outcome::Yes)
}

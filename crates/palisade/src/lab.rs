//! `palisade lab`: a cluster on this machine.
//!
//! The verbs that build one enter the sandbox first of all: a user namespace takes in a process with one thread only.

mod bench;
mod changes;
mod control;
mod down;
mod event;
mod exec;
mod fuzz;
mod layout_arguments;
mod matrix;
mod probe;
mod run;
mod serve;
mod soak;
mod up;
mod wording;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::exit::Outcome;

/// What `lab` takes.
#[derive(Debug, Args)]
pub(crate) struct Lab {
    #[command(subcommand)]
    pub(crate) verb: LabVerb,
}

/// What to do with a lab.
#[derive(Debug, Subcommand)]
pub(crate) enum LabVerb {
    /// Build a cluster, probe every pair on every port, and compare the kernel with the engine
    #[command(after_help = run::HELP)]
    Run(run::Run),
    /// Keep a cluster running, and enforce the manifests as they are edited
    #[command(after_help = up::HELP)]
    Up(up::Up),
    /// Run a program in the network of a pod or node of a running lab
    #[command(after_help = exec::HELP)]
    Exec(exec::Exec),
    /// Open one real connection in a running lab, and say what the engine says
    #[command(after_help = probe::HELP)]
    Probe(probe::Probe),
    /// Stop a running lab, and wait until it is gone
    #[command(after_help = down::HELP)]
    Down(down::Down),
    /// Random clusters: every pair probed, kernel against engine
    #[command(after_help = fuzz::HELP)]
    Fuzz(fuzz::Fuzz),
    /// A cluster that changes for minutes on end, probed meanwhile: kernel against engine
    #[command(after_help = soak::HELP)]
    Soak(soak::Soak),
    /// Connections and round trips per second, with and without policies
    #[command(after_help = bench::HELP)]
    Bench(bench::Bench),
}

/// Does it.
pub(crate) fn run(verb: &LabVerb) -> Result<Outcome> {
    match verb {
        LabVerb::Run(arguments) => run::run(arguments),
        LabVerb::Up(arguments) => up::run(arguments),
        LabVerb::Exec(arguments) => exec::run(arguments),
        LabVerb::Probe(arguments) => probe::run(arguments),
        LabVerb::Down(arguments) => down::run(arguments),
        LabVerb::Fuzz(arguments) => fuzz::run(arguments),
        LabVerb::Soak(arguments) => soak::run(arguments),
        LabVerb::Bench(arguments) => bench::run(arguments),
    }
}

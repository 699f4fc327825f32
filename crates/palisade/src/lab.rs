//! `palisade lab`: a cluster on this machine.
//!
//! Verbs that build a cluster enter the sandbox first: only a process with a single thread can enter a user namespace.

mod bench;
mod by_name;
mod changes;
mod connections;
mod control;
mod down;
mod event;
mod exec;
mod flow_file;
mod fuzz;
mod hosts;
mod layout_arguments;
mod matrix;
mod probe;
mod probe_by_name;
mod run;
mod serve;
mod soak;
mod up;
mod wording;
mod zones;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::exit::Outcome;
pub(crate) use layout_arguments::load_options;
pub(crate) use run::{passed, progress_bar};

/// Arguments of `lab`.
#[derive(Debug, Args)]
pub(crate) struct Lab {
    #[command(subcommand)]
    pub(crate) verb: LabVerb,
}

/// The inner verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum LabVerb {
    /// Build a cluster, probe every pair on every port, and compare the kernel with the engine
    #[command(after_help = run::HELP)]
    Run(run::Run),
    /// Keep a cluster running and enforce edits of its manifests
    #[command(after_help = up::HELP)]
    Up(up::Up),
    /// Run a program in the network of a pod or node of a running lab
    #[command(after_help = exec::HELP)]
    Exec(exec::Exec),
    /// Open a real connection in a running lab and compare it with the engine's verdict
    #[command(after_help = probe::HELP)]
    Probe(probe::Probe),
    /// Stop a running lab and wait until it is removed
    #[command(after_help = down::HELP)]
    Down(down::Down),
    /// Compare the kernel with the engine on random clusters
    #[command(after_help = fuzz::HELP)]
    Fuzz(fuzz::Fuzz),
    /// Compare the kernel with the engine on a cluster that changes continuously
    #[command(after_help = soak::HELP)]
    Soak(soak::Soak),
    /// Measure connections and round trips per second, with and without policies
    #[command(after_help = bench::HELP)]
    Bench(bench::Bench),
}

/// Performs an inner verb.
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

//! The command line.

use std::{
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf, absolute},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use palisade_cluster_tests::confined_with;

use crate::{
    Cluster, cgroups, node, programs, progress, progress::say, report, requirements, results, running, stage,
    starter, suites, upstream,
};

/// The name of the run's control groups, in the environment of its processes.
const CGROUPS: &str = "PALISADE_E2E_CGROUPS";
/// The hidden verb of the process that removes the control groups.
const SWEEP: &str = "sweep";

/// A real Kubernetes cluster of two nodes on one machine, with Palisade as shipped, and the suites that run in it.
///
/// Nothing of the machine is used or changed: the cluster is in namespaces of its own, and vanishes with this program.
#[derive(Debug, Parser)]
#[command(name = "palisade-e2e", max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a cluster, and keep it until Ctrl-C.
    Up {
        /// Don't install Palisade.
        #[arg(long)]
        without_palisade: bool,
    },
    /// Start a cluster, and run suites in it, one after the other.
    Run {
        /// Their names, as `list` prints them.
        #[arg(required = true, value_name = "SUITE")]
        suites: Vec<String>,
        /// Write what they have shown into this folder, with their logs and reports.
        #[arg(long, value_name = "FOLDER")]
        results: Option<PathBuf>,
    },
    /// List the suites.
    List,
    /// Print the results in a folder as a table. The exit code is 1 if something has failed, or there are none.
    Report {
        /// What `run --results` wrote.
        folder: PathBuf,
    },
    /// Run a command beside the control plane of a running cluster, as its administrator.
    #[command(trailing_var_arg = true)]
    Exec {
        /// The cluster, as `up` printed it. Not needed while one runs.
        #[arg(long, value_name = "ID", env = "PALISADE_E2E_CLUSTER")]
        cluster: Option<u32>,
        /// The command and its arguments.
        #[arg(required = true, allow_hyphen_values = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    #[command(name = node::VERB, hide = true)]
    Node { name: String },
    #[command(name = SWEEP, hide = true)]
    Sweep { name: String },
    #[command(name = starter::VERB, hide = true)]
    Starter { port: u16, patience_seconds: u64, targets: Vec<starter::Target> },
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::List => suites::list(),
        Verb::Exec { cluster, command } => return running::exec(cluster, &command).unwrap_or_else(refused),
        Verb::Report { folder } => return report(&folder).unwrap_or_else(refused),
        Verb::Node { name } => node::init(&name),
        Verb::Starter { port, patience_seconds, targets } => {
            starter::run(port, Duration::from_secs(patience_seconds), &targets)
        }
        Verb::Sweep { name } => {
            wait_for_end();
            cgroups::sweep(&name);
            Ok(())
        }
        Verb::Up { without_palisade } => {
            return in_cluster(|| Ok(Vec::new()), move |cluster| up(cluster, without_palisade));
        }
        Verb::Run { suites: names, results } => {
            return match suites::find(&names) {
                Ok(suites) => in_cluster(
                    || {
                        let mut environment = upstream::prepare(&names)?;
                        if let Some(folder) = results {
                            environment.push((results::FOLDER, absolute(folder)?.into()));
                        }
                        Ok(environment)
                    },
                    move |cluster| suites::run(cluster, &suites),
                ),
                Err(e) => refused(e),
            };
        }
    };
    result.map_or_else(refused, |()| ExitCode::SUCCESS)
}

/// Prints the table of results.
fn report(folder: &Path) -> Result<ExitCode> {
    let outcomes = results::read(folder, &suites::names())?;
    ensure!(!outcomes.is_empty(), "{} has no results", folder.display());
    std::io::stdout().write_all(report::render(&outcomes)?.as_bytes())?;
    let failed = outcomes.iter().any(|outcome| outcome.verdict().is_err());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Reports why nothing was done.
#[expect(clippy::needless_pass_by_value, reason = "passed by name to functions that hand over an error")]
fn refused(e: anyhow::Error) -> ExitCode {
    eprintln!("error: {e:#}");
    ExitCode::from(2)
}

/// Starts a cluster and calls `f` with it. What `more` makes on the machine itself is in the environment of the run.
fn in_cluster(
    more: impl FnOnce() -> Result<Vec<(&'static str, OsString)>>,
    f: impl FnOnce(&mut Cluster) -> Result<()>,
) -> ExitCode {
    let prepare = || {
        let mut environment = prepare()?;
        environment.extend(more()?);
        Ok(environment)
    };
    confined_with(prepare, |_sandbox| {
        let begun = stage::enter().and_then(|()| programs::bind());
        let cgroups = std::env::var(CGROUPS).context(CGROUPS);
        let cluster = begun.and(cgroups).and_then(|name| Cluster::start(&name));
        let result = cluster.and_then(|mut cluster| f(&mut cluster));
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("error: {e:#}");
                ExitCode::FAILURE
            }
        }
    })
}

/// What is done on the machine itself, before the run.
fn prepare() -> Result<Vec<(&'static str, OsString)>> {
    requirements::check()?;
    let mut environment = progress::part("programs", programs::find)?;
    cgroups::sweep_ended();
    let name = cgroups::name()?;
    let mut sweeper = Command::new(std::env::current_exe()?);
    sweeper.args([SWEEP, &name]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut sweeper = sweeper.spawn().context("cannot start this program again")?;
    // It ends when this process does: then the pipe is closed.
    std::mem::forget(sweeper.stdin.take());
    environment.push((CGROUPS, name.into()));
    environment.push((running::ID, std::process::id().to_string().into()));
    Ok(environment)
}

/// Returns when the other end of standard input is closed.
fn wait_for_end() {
    // A Ctrl-C is for the run, which takes this process along.
    let _ = nix::unistd::setsid();
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

fn up(cluster: &mut Cluster, without_palisade: bool) -> Result<()> {
    if !without_palisade {
        suites::install_palisade(cluster)?;
    }
    let mut out = std::io::stdout();
    writeln!(out, "{}", running::describe(cluster)?)?;
    out.flush()?;
    say("up; Ctrl-C removes it");
    loop {
        std::thread::park();
    }
}

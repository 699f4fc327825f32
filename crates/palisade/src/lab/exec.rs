//! `palisade lab exec`: runs a program in the network of a pod or node.

use std::{
    fs::File,
    io,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::sched::{CloneFlags, setns};

use super::control::{self, LabName, Reply, Request};
use crate::exit::Outcome;

pub(crate) const HELP: &str = "\
POD has the syntax of `palisade can`: a pod, a workload (its first pod), node/NAME, or `outside`. The program uses the files of this machine and the network of the pod.

Examples:
  palisade lab exec -n shop frontend -- curl -m 2 http://10.244.0.1:8080
  palisade lab exec node/node-1 -- nft list table inet palisade
  palisade lab exec -n shop backend -- sh

Exit codes: that of the program; 126 or 127 if it can't be run, 2 error.";

/// Arguments of `lab exec`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The pod or node whose network to use
    #[arg(value_name = "POD")]
    place: String,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "CMD")]
    command: Vec<std::ffi::OsString>,
    /// Namespace of names without one
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    namespace: String,
    #[command(flatten)]
    lab: LabName,
}

/// Runs the program. Returns only if that fails.
pub(crate) fn run(arguments: &Exec) -> Result<Outcome> {
    let request = Request::Locate { place: arguments.place.clone(), namespace: arguments.namespace.clone() };
    let Reply::Located { pid, fd, place } =
        control::ask(&mut control::connect(&arguments.lab.name)?, &request)?
    else {
        bail!("unexpected reply: the lab is of another version");
    };
    enter(pid, fd).with_context(|| format!("can't enter the network of {place}"))?;
    let (program, words) = arguments.command.split_first().context("no program given")?;
    let error = Command::new(program).args(words).env("PALISADE_LAB_PLACE", &place).exec();
    let program = program.to_string_lossy();
    crate::output::note(&format!("can't run {program}: {error}\n"));
    // The exit codes of env(1) and of shells.
    Ok(Outcome::Program(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }))
}

/// Moves this process into the namespaces. A user namespace requires a single thread.
fn enter(pid: u32, fd: i32) -> Result<()> {
    let open =
        |path: String| File::open(&path).with_context(|| format!("can't open {path}: has the lab stopped?"));
    // Opened before either is entered: inside, /proc/PID is different.
    let network = open(format!("/proc/{pid}/fd/{fd}"))?;
    let users = open(format!("/proc/{pid}/ns/user"))?;
    let own = open("/proc/self/ns/user".to_owned())?;
    if users.metadata()?.ino() != own.metadata()?.ino() {
        setns(&users, CloneFlags::CLONE_NEWUSER).context("can't enter its user namespace")?;
    }
    setns(&network, CloneFlags::CLONE_NEWNET).context("can't enter its network namespace")?;
    Ok(())
}

//! `palisade lab exec`: a program in the network of a pod.

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
POD is spelt as for `palisade can`: a pod, a workload (its first pod), node/NAME, or `outside`. The program sees the files of this machine and the network of the pod.

Examples:
  palisade lab exec -n shop frontend -- curl -m 2 http://10.244.0.1:8080
  palisade lab exec node/node-1 -- nft list table inet palisade
  palisade lab exec -n shop backend -- sh

Exit codes: those of the program; 126 or 127 if it can't be run, 2 error.";

/// What `lab exec` takes.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// In whose network
    #[arg(value_name = "POD")]
    place: String,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "CMD")]
    command: Vec<std::ffi::OsString>,
    /// The namespace of names that have none
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    namespace: String,
    #[command(flatten)]
    lab: LabName,
}

/// Does it. Returns only if the program can't be run.
pub(crate) fn run(arguments: &Exec) -> Result<Outcome> {
    let request = Request::Locate { place: arguments.place.clone(), namespace: arguments.namespace.clone() };
    let Reply::Located { pid, fd, place } =
        control::ask(&mut control::connect(&arguments.lab.name)?, &request)?
    else {
        bail!("the lab answered something else: it is of another version");
    };
    enter(pid, fd).with_context(|| format!("can't enter the network of {place}"))?;
    let (program, words) = arguments.command.split_first().context("no program given")?;
    let error = Command::new(program).args(words).env("PALISADE_LAB_PLACE", &place).exec();
    let program = program.to_string_lossy();
    crate::output::note(&format!("can't run {program}: {error}\n"));
    // The codes of env(1) and the shells.
    Ok(Outcome::Program(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }))
}

/// Moves this process into the namespaces. It has one thread, as a user namespace demands.
fn enter(pid: u32, fd: i32) -> Result<()> {
    let open =
        |path: String| File::open(&path).with_context(|| format!("can't open {path}: has the lab ended?"));
    // Opened before either is entered: /proc/PID looks different from inside.
    let network = open(format!("/proc/{pid}/fd/{fd}"))?;
    let users = open(format!("/proc/{pid}/ns/user"))?;
    let own = open("/proc/self/ns/user".to_owned())?;
    if users.metadata()?.ino() != own.metadata()?.ino() {
        setns(&users, CloneFlags::CLONE_NEWUSER).context("can't enter its user namespace")?;
    }
    setns(&network, CloneFlags::CLONE_NEWNET).context("can't enter its network namespace")?;
    Ok(())
}

//! `palisade lab exec`: runs a program in the network of a pod or node.

use std::{
    fs::{File, Permissions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

use super::control::{self, LabName, Reply, Request};
use crate::exit::Outcome;

pub(crate) const HELP: &str = "\
POD has the syntax of `palisade can`: a pod, a workload (its first pod), node/NAME, or `outside`. The program uses the files of this machine and the network of the pod. In a lab with --zones, /etc/resolv.conf has the lab's DNS servers.

Examples:
  palisade lab exec -n shop frontend -- curl -m 2 http://10.244.0.1:8080
  palisade lab exec node/node-1 -- nft list table inet palisade
  palisade lab exec -n shop backend -- sh
  palisade lab exec -n billing invoices -- getent ahosts api.payments.example        (with --zones)

Exit codes: that of the program; 126 or 127 if it can't be run, 2 error.";

/// Where resolvers read which servers to ask.
const RESOLV_CONF: &str = "/etc/resolv.conf";

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
    let Reply::Located { pid, fd, place, dns } =
        control::ask(&mut control::connect(&arguments.lab.name)?, &request)?
    else {
        bail!("unexpected reply: the lab is of another version");
    };
    enter(pid, fd).with_context(|| format!("can't enter the network of {place}"))?;
    if !dns.is_empty()
        && let Err(error) = use_servers(&dns)
    {
        crate::output::note(&format!("the program does not ask the lab's DNS servers: {error:#}\n"));
    }
    let (program, words) = arguments.command.split_first().context("no program given")?;
    let error = Command::new(program).args(words).env("PALISADE_LAB_PLACE", &place).exec();
    let program = program.to_string_lossy();
    crate::output::note(&format!("can't run {program}: {error}\n"));
    // The exit codes of env(1) and of shells.
    Ok(Outcome::Program(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }))
}

/// Gives this process a view of the files in which `/etc/resolv.conf` has these servers. The machine's file does not change, and nothing is left.
fn use_servers(dns: &[IpAddr]) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new()?;
    for address in dns {
        writeln!(file, "nameserver {address}")?;
    }
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    unshare(CloneFlags::CLONE_NEWNS).context("can't create a mount namespace")?;
    let none = None::<&Path>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("can't separate its mounts")?;
    mount(Some(file.path()), RESOLV_CONF, none, MsFlags::MS_BIND, none)
        .with_context(|| format!("can't mount {RESOLV_CONF}"))
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

//! The namespaces of another process, to start programs in them.

use std::{
    fs::File,
    io,
    process::{Child, Command},
    thread,
};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};
use palisade_netns::namespace::Namespace;

/// The kinds that a node has for itself, in the order in which they are entered.
const KINDS: [(&str, CloneFlags); 5] = [
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("net", CloneFlags::CLONE_NEWNET),
    ("pid", CloneFlags::CLONE_NEWPID),
    ("mnt", CloneFlags::CLONE_NEWNS),
];

/// All of `KINDS` at once, for a new node.
#[must_use]
pub fn all() -> CloneFlags {
    KINDS.iter().fold(CloneFlags::empty(), |flags, (_, flag)| flags | *flag)
}

/// Namespaces that are held open.
#[derive(Debug)]
pub struct Namespaces(Vec<(File, CloneFlags)>);

impl Namespaces {
    /// Those of a process.
    ///
    /// # Errors
    /// If it doesn't exist.
    pub fn of(process: u32) -> Result<Self> {
        let open = |(name, flag): (&str, CloneFlags)| {
            let path = format!("/proc/{process}/ns/{name}");
            Ok((File::open(&path).with_context(|| format!("cannot open {path}"))?, flag))
        };
        Ok(Self(KINDS.into_iter().map(open).collect::<Result<_>>()?))
    }

    /// The network namespace among them.
    ///
    /// # Errors
    /// If it can't be entered.
    pub fn network(&self) -> Result<Namespace> {
        let (file, flag) =
            self.0.iter().find(|(_, f)| *f == CloneFlags::CLONE_NEWNET).context("no network namespace")?;
        Ok(on_thread(|| {
            setns(file, *flag)?;
            Namespace::current()
        })?)
    }

    /// Starts a program in them. Its working directory is `/` unless the command has one.
    ///
    /// # Errors
    /// If the namespaces can't be entered, or the program can't be started.
    pub fn spawn(&self, command: Command) -> io::Result<Child> {
        self.run(command, |command| command.spawn())
    }

    /// Calls `start` with a command on a thread whose child processes are in these namespaces.
    ///
    /// # Errors
    /// If the namespaces can't be entered, and those of `start`.
    pub fn run<T: Send>(
        &self,
        mut command: Command,
        start: impl FnOnce(&mut Command) -> io::Result<T> + Send,
    ) -> io::Result<T> {
        on_thread(|| {
            // A thread can change its mounts only if it shares neither root nor working directory with others.
            unshare(CloneFlags::CLONE_FS)?;
            for (file, flag) in &self.0 {
                setns(file, *flag)?;
            }
            start(&mut command)
        })
    }
}

/// Runs `f` on a new thread and resumes its panic, if any.
///
/// # Errors
/// Those of `f`, and when the thread can't be started.
pub fn on_thread<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let handle = thread::Builder::new().spawn_scoped(scope, f)?;
        handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

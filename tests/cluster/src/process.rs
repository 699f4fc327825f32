//! Programs that run beside the tests, each in a network namespace and with a log file.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use palisade_lab::namespace::Namespace;

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    started: Instant,
}

impl Process {
    /// Starts `command` in `namespace`. Its output is appended to `NAME.log` in `logs`.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(name: &str, namespace: &Namespace, command: Command, logs: &Path) -> Result<Self> {
        Self::start_by(name, command, logs, |mut command| namespace.run(|| command.spawn())?)
    }

    /// Starts `command` by `spawn`, which decides where it runs. Its output is appended to `NAME.log` in `logs`.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start_by(
        name: &str,
        mut command: Command,
        logs: &Path,
        spawn: impl FnOnce(Command) -> io::Result<Child>,
    ) -> Result<Self> {
        let program = command.get_program().to_owned();
        let log = logs.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = spawn(command).with_context(|| format!("cannot start {name}: {}", program.display()))?;
        Ok(Self { name: name.to_owned(), child, log, started: Instant::now() })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// When it was started.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Its whole output.
    #[must_use]
    pub fn log(&self) -> String {
        // The log explains failures; being unable to read it is not one.
        fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(id, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Returns its exit status if it has ended.
    ///
    /// # Errors
    /// If the status can't be read.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// If it doesn't end in time, with the end of its log.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        crate::eventually(&format!("{} ends", self.name), within, || {
            Ok(self.child.try_wait()?.ok_or_else(|| last_lines(&self.log(), 10)))
        })
    }

    /// Kills it with SIGKILL and waits until it has ended.
    pub fn kill(&mut self) {
        // Both fail only if it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns the last `count` lines of a text.
#[must_use]
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

//! Programs that run beside the tests, each in a network namespace and with a log.

use std::{
    fs::{self, File},
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
    began: Instant,
}

impl Process {
    /// Starts `command` in `namespace`. Everything that it says goes to `NAME.log` in `logs`, after what is there.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(name: &str, namespace: &Namespace, mut command: Command, logs: &Path) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = namespace
            .run(|| command.spawn())?
            .with_context(|| format!("cannot start {name}: {:?}", command.get_program()))?;
        Ok(Self { name: name.to_owned(), child, log, began: Instant::now() })
    }

    /// What it is called.
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
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Everything that it has said.
    #[must_use]
    pub fn log(&self) -> String {
        // What can't be read is not worth failing for: this is what failures are explained with.
        fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(id, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the kernel won't say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it hasn't ended within that time, with the end of its log.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        crate::eventually(&format!("the end of {}", self.name), within, || {
            Ok(self.child.try_wait()?.ok_or_else(|| last_lines(&self.log(), 10)))
        })
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last `count` lines of a text.
#[must_use]
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

//! Runs a program of the user's, within limits.
//!
//! Its output is read from pipes without blocking. A program that it leaves behind can't write on: once the pipes are closed, it is
//! stopped by a signal. It blocks nothing either, since only what is there when the program ends is read.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::pipe::Pipe;
use crate::output;

/// After this time it is said what is being waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest pause between two looks at the program.
const PAUSE: Duration = Duration::from_millis(50);

/// The most that is shown of what a program writes to its standard error, in bytes.
const MESSAGES: usize = 64 << 10;

const NO_PIPE: &str = "the program has no pipe";

/// Limits of a program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The longest time that it may take.
    pub(super) time: Duration,
    /// The most bytes that it may write.
    pub(super) bytes: u64,
}

/// A program and its arguments. No shell is involved.
pub(super) struct Program {
    /// Its name, as the user calls it.
    name: &'static str,
    path: PathBuf,
    arguments: Vec<String>,
}

impl fmt::Display for Program {
    /// The command line, to be pasted into a shell.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {}", quoted(argument)))
    }
}

/// Quotes a word for a shell if it needs it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

impl Program {
    /// Returns the first of these programs that is in `PATH`, and its name.
    pub(super) fn find(names: &[&'static str]) -> Option<(&'static str, PathBuf)> {
        let path = env::var_os("PATH")?;
        names.iter().find_map(|name| {
            // A relative directory would be that of the repository whose files are read.
            let mut dirs = env::split_paths(&path).filter(|dir| dir.is_absolute());
            let file = dirs.find_map(|dir| {
                let file = dir.join(format!("{name}{}", env::consts::EXE_SUFFIX));
                is_executable(&file).then_some(file)
            })?;
            Some((*name, file))
        })
    }

    pub(super) fn new((name, path): (&'static str, PathBuf), arguments: Vec<String>) -> Self {
        Self { name, path, arguments }
    }

    /// Runs the program and returns its output. What it writes to its standard error is passed on.
    ///
    /// # Errors
    /// When it can't be run, fails, or exceeds a limit.
    pub(super) fn output(&self, limits: Limits) -> Result<Vec<u8>> {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("can't run `{self}`"))?;
        let mut out = Pipe::new(child.stdout.take().context(NO_PIPE)?)?;
        let mut messages = Pipe::new(child.stderr.take().context(NO_PIPE)?)?;
        let ended = self.wait(&mut child, &mut out, &mut messages, limits);
        if ended.is_err() {
            // It may have ended by itself in the meantime.
            _ = child.kill();
            _ = child.wait();
        }
        self.pass_on(&messages.read);
        let status = ended?;
        if !status.success() {
            bail!("`{self}` failed ({status})");
        }
        Ok(out.read)
    }

    /// Reads the output until the program ends or exceeds a limit.
    fn wait(
        &self,
        child: &mut Child,
        out: &mut Pipe,
        messages: &mut Pipe,
        limits: Limits,
    ) -> Result<ExitStatus> {
        let began = Instant::now();
        let (mut pause, mut said) = (Duration::from_millis(1), false);
        loop {
            // Asked before the pipes are read, so that all that it wrote is read after it ended.
            let ended = child.try_wait().with_context(|| format!("can't wait for `{self}`"))?;
            let context = || format!("can't read the output of `{self}`");
            let more = out.read(usize::MAX, ended.is_some()).with_context(context)?
                | messages.read(MESSAGES, ended.is_some()).with_context(context)?;
            if out.read.len() as u64 > limits.bytes {
                bail!("the output of `{self}` is larger than the limit of {} MiB", limits.bytes >> 20);
            }
            let taken = began.elapsed();
            if taken >= limits.time {
                bail!(
                    "`{self}` did not end within {} s and was stopped; --render-timeout allows more",
                    taken.as_secs()
                );
            }
            if taken >= PATIENCE && !said {
                output::note(&format!("waiting for `{self}` …\n"));
                said = true;
            }
            match ended {
                _ if more => pause = Duration::from_millis(1),
                Some(status) => return Ok(status),
                None => {
                    thread::sleep(pause);
                    pause = (pause * 2).min(PAUSE);
                }
            }
        }
    }

    fn pass_on(&self, messages: &[u8]) {
        let text = String::from_utf8_lossy(messages);
        text.lines().for_each(|line| output::note(&format!("{}: {line}\n", self.name)));
    }
}

fn is_executable(file: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    }
    #[cfg(not(unix))]
    file.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_can_be_pasted() {
        let program = Program::new(
            ("helm", PathBuf::from("/usr/bin/helm")),
            ["template", "my chart", "--set=a=b,c={d}", ""].map(str::to_owned).to_vec(),
        );
        assert_eq!(program.to_string(), "helm template 'my chart' '--set=a=b,c={d}' ''");
    }
}

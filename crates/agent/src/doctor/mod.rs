//! Whether this machine lets policies work, and what to do where it does not.
//!
//! [`examine`] looks at one node from inside its network namespace. It changes nothing there: what has to be tried is tried
//! in a temporary namespace. Each finding has a stable id, so that scripts and alerts can name it, and a cure.

mod features;
mod interfaces;
mod kernel;
mod network;
mod place;

use std::{fmt, io, path::Path, thread};

use nix::sched::{CloneFlags, unshare};

pub use interfaces::Bridge;

/// How good a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// As it should be.
    Ok,
    /// It can't be told from here.
    Unknown,
    /// Something works less well, or may surprise.
    Warn,
    /// Policies are not enforced, or not as they say.
    Fail,
}

impl Status {
    /// `ok`, `unknown`, `warn` or `fail`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at: a name that never changes.
    pub id: &'static str,
    /// How good it is.
    pub status: Status,
    /// What was found, in one sentence.
    pub found: String,
    /// What to do about it; none where nothing needs doing.
    pub cure: Option<String>,
}

impl Check {
    /// As it should be.
    #[must_use]
    pub fn ok(id: &'static str, found: impl Into<String>) -> Self {
        Self { id, status: Status::Ok, found: found.into(), cure: None }
    }

    /// Not as it should be, with the cure.
    #[must_use]
    pub fn of(id: &'static str, status: Status, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { id, status, found: found.into(), cure: Some(cure.into()) }
    }
}

/// What a look at the node says.
#[derive(Clone, Debug, Default)]
pub struct Examination {
    /// The findings, in the order in which they should be read.
    pub checks: Vec<Check>,
    /// The bridges that connect pods of this node.
    pub bridges: Vec<Bridge>,
    /// Whether the node forwards IPv4 and IPv6.
    pub forwards: [bool; 2],
}

/// Looks at the node in whose network namespace the calling thread is. `socket` is where its agent listens. Takes well
/// under a second.
#[must_use]
pub fn examine(socket: &Path) -> Examination {
    let mut checks = Vec::new();
    kernel::checks(&mut checks);
    features::checks(&mut checks);
    let forwards = kernel::forwarding(&mut checks);
    kernel::conntrack(&mut checks);
    let bridges = network::checks(&mut checks, forwards[1], socket);
    place::checks(socket, &mut checks);
    Examination { checks, bridges, forwards }
}

/// Runs `f` on a thread in a network namespace of its own, which is gone when it returns.
fn in_scratch_namespace<T: Send>(f: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let run = || -> io::Result<T> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(f())
        };
        let handle = thread::Builder::new().name("palisade-doctor".into()).spawn_scoped(scope, run)?;
        handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// An error with its causes, for a finding.
fn in_words(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        out.push_str(": ");
        out.push_str(&e.to_string());
        cause = e.source();
    }
    out
}

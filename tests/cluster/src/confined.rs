//! Ends all processes of the tests together with the test program.
//!
//! The program starts itself again as the first process of a process namespace. When that process ends, for whatever reason, the
//! kernel kills all others in the namespace: etcd, the API server, the agents. It is killed when the outer process ends.

use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitCode},
};

use anyhow::Result;
use nix::{
    sched::{CloneFlags, unshare},
    sys::{prctl, signal::Signal},
};
use palisade_lab::Sandbox;

/// In the environment of every process of a run.
pub const INNER: &str = "PALISADE_CLUSTER_TESTS_INNER";

/// Runs `inner` in its own network and process namespaces. Call it first in `main`, before any thread is started.
#[must_use]
pub fn confined(inner: impl FnOnce(Sandbox) -> ExitCode) -> ExitCode {
    confined_with(|| Ok(Vec::new()), inner)
}

/// Like [`confined()`], after `outer`, which runs once on the machine itself: with its network, and outside of every namespace. What it
/// returns is in the environment of `inner`. It must not leave a thread behind.
#[must_use]
pub fn confined_with(
    outer: impl FnOnce() -> Result<Vec<(&'static str, OsString)>>,
    inner: impl FnOnce(Sandbox) -> ExitCode,
) -> ExitCode {
    let mut environment = Vec::new();
    if std::env::var_os(INNER).is_none() {
        match outer() {
            Ok(pairs) => environment = pairs,
            Err(e) => return fail(&format!("{e:#}")),
        }
    }
    let sandbox = match Sandbox::enter() {
        Ok(sandbox) => sandbox,
        Err(e) => return fail(&format!("{:#}", anyhow::Error::new(e))),
    };
    if std::env::var_os(INNER).is_some() {
        // The signal is sent when the parent's thread ends. That is its only thread, so it ends with the parent.
        if let Err(e) = prctl::set_pdeathsig(Signal::SIGKILL) {
            return fail(&format!("cannot set the parent death signal: {e}"));
        }
        return inner(sandbox);
    }
    if let Err(e) = unshare(CloneFlags::CLONE_NEWPID) {
        return fail(&format!("cannot create a process namespace (CONFIG_PID_NS): {e}"));
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(e) => return fail(&format!("cannot find the path of this program: {e}")),
    };
    let mut again = Command::new(program);
    match again.args(std::env::args_os().skip(1)).envs(environment).env(INNER, "1").status() {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
            (None, signal) => fail(&format!("the tests were killed by signal {}", signal.unwrap_or(0))),
        },
        Err(e) => fail(&format!("cannot start this program again: {e}")),
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(2)
}

//! A process that takes everything with it when it ends.
//!
//! The program starts itself once more as the first process of a process namespace. When that one ends, however it ends, the
//! kernel kills all others in it: etcd, the API server, the agents. And it is killed when the outer one ends.

use std::{
    os::unix::process::ExitStatusExt,
    process::{Command, ExitCode},
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::{prctl, signal::Signal},
};
use palisade_lab::Sandbox;

const INNER: &str = "PALISADE_CLUSTER_TESTS_INNER";

/// Runs `inner` in a network of its own, in a process that takes everything with it. To be called first thing in `main`,
/// before any thread starts.
#[must_use]
pub fn confined(inner: impl FnOnce(Sandbox) -> ExitCode) -> ExitCode {
    let sandbox = match Sandbox::enter() {
        Ok(sandbox) => sandbox,
        Err(e) => return fail(&format!("{:#}", anyhow::Error::new(e))),
    };
    if std::env::var_os(INNER).is_some() {
        // The parent's only thread waits for this process: it ends with the parent itself.
        if let Err(e) = prctl::set_pdeathsig(Signal::SIGKILL) {
            return fail(&format!("cannot bind this process's life to its parent's: {e}"));
        }
        return inner(sandbox);
    }
    if let Err(e) = unshare(CloneFlags::CLONE_NEWPID) {
        return fail(&format!("cannot make a process namespace (CONFIG_PID_NS): {e}"));
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(e) => return fail(&format!("cannot find this program: {e}")),
    };
    match Command::new(program).args(std::env::args_os().skip(1)).env(INNER, "1").status() {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
            (None, signal) => fail(&format!("the tests were ended by signal {}", signal.unwrap_or(0))),
        },
        Err(e) => fail(&format!("cannot start this program again: {e}")),
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(2)
}

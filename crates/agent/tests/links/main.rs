//! The node's links in a real kernel: what following them costs, and that it finds what a full reading finds. Each test has a network
//! namespace of its own. Needs permission to create namespaces; without it the tests fail.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it counted"
)]

mod bridges;
mod cost;
mod followed;
mod node;

use std::{fs, thread};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getgid, getuid},
};

fn main() {
    // Before the first thread starts.
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .expect("these tests need user namespaces (check kernel.unprivileged_userns_clone)");
    fs::write("/proc/self/setgroups", "deny").expect("setgroups");
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).expect("uid_map");
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).expect("gid_map");
    let trials = cost::trials().into_iter().chain(followed::trials()).chain(bridges::trials()).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Returns a test that runs in a new network namespace.
fn trial(name: &'static str, test: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let run = move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace for the test");
            test();
        };
        thread::spawn(run).join().map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Failed::from(text.unwrap_or_else(|| "panicked".to_owned()))
        })
    })
}

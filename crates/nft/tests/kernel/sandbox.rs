//! Namespaces for the tests.

use std::{fs, thread};

use libtest_mimic::{Failed, Trial};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getgid, getuid},
};

/// Moves the process to a new user and network namespace. Must be called before the first thread starts.
pub(crate) fn enter() {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).expect(
        "these tests need user namespaces (check kernel.unprivileged_userns_clone, user.max_user_namespaces)",
    );
    fs::write("/proc/self/setgroups", "deny").expect("setgroups");
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).expect("uid_map");
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).expect("gid_map");
}

/// Returns a test that runs in a new network namespace.
pub(crate) fn trial(name: &'static str, test: fn()) -> Trial {
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

/// The kind of the tests that need the program `nft`.
pub(crate) const NFT: &str = "nft";

/// As [`trial`], for a test that needs the program `nft`.
pub(crate) fn trial_with_nft(name: &'static str, test: fn()) -> Trial {
    trial(name, test).with_kind(NFT)
}

//! Verbs that read a cluster, with a kubeconfig, against an API server on the loopback device.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

mod agents;
mod assertions;
mod diff;
mod errors;
mod exec_server;
mod overlay;
mod plugin;
mod probe;
mod rbac;
mod server;
mod snapshot;
#[path = "../support/mod.rs"]
mod support;
mod tls;
#[cfg(feature = "ui")]
mod ui;
#[cfg(feature = "ui")]
#[expect(dead_code, reason = "the tests of `ui` need more of it")]
#[path = "../ui/client.rs"]
mod ui_client;
mod verbs;

use std::{path::Path, process::Command};

use support::{palisade, run};

/// The program, with a kubeconfig.
pub(crate) fn asking(kubeconfig: &Path, words: &str) -> Command {
    let mut command = palisade(words);
    command.env("KUBECONFIG", kubeconfig);
    command
}

/// Exit code, standard output and standard error.
pub(crate) fn ask(kubeconfig: &Path, words: &str) -> (i32, String, String) {
    let (code, out, err) = run(&mut asking(kubeconfig, words));
    assert!(!err.contains("panicked"), "{words}: {err}");
    (code, out, err)
}

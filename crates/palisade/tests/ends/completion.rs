//! What shells complete.

use std::process::{Command, Stdio};

use crate::{SHOP, on_path::manifest};

/// The candidates for the last of these words.
fn complete(words: &[&str]) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    command.arg("__complete").args(words).stdin(Stdio::null()).env("KUBECONFIG", "/nonexistent");
    command.env_remove("KUBERNETES_SERVICE_HOST");
    let output = command.output().unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
    String::from_utf8(output.stdout).unwrap().lines().map(ToOwned::to_owned).collect()
}

#[test]
fn names_are_completed_from_manifests() {
    let dir = manifest(SHOP);
    let path = dir.path().to_str().unwrap();
    assert_eq!(complete(&["can", "-f", path, "shop/w"]), ["shop/web", ":4"]);
    assert_eq!(
        complete(&["can", "-f", path, "shop/web", "shop/s"]),
        ["shop/svc/elsewhere", "shop/svc/web", ":4"]
    );
    assert_eq!(complete(&["describe", "-n", "shop", "-f", path, "we"]), ["web", ":4"]);
    assert_eq!(complete(&["explain", &format!("--file={path}"), "-n", "st"]), ["staging", ":4"]);
    assert_eq!(complete(&["connections", "-f", path, "--to", "ns/s"]), ["ns/shop", "ns/staging", ":4"]);
    assert_eq!(complete(&["can", "-f", ""]), [":0"]);
    assert_eq!(complete(&["can", "-f", "/nonexistent", "sh"]), [":4"], "errors are silent");
    assert_eq!(complete(&["can", "sh"]), [":4"], "no cluster");
    assert!(complete(&["ca"])[0].starts_with("can\t"));
}

#[test]
fn completion_scripts_ask_the_program() {
    for shell in ["bash", "zsh", "fish"] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_palisade")).args(["completions", shell]).output().unwrap();
        assert!(String::from_utf8(output.stdout).unwrap().contains("palisade __complete"), "{shell}");
    }
}

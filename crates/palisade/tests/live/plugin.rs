//! The program as a plugin of kubectl.
#![cfg(unix)]

use std::{os::unix::fs::symlink, process::Command};

use tempfile::TempDir;

fn called(name: &str, words: &[&str]) -> (i32, String, String) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(name);
    symlink(env!("CARGO_BIN_EXE_palisade"), &path).unwrap();
    crate::support::run(Command::new(path).args(words))
}

#[test]
fn help_and_errors_say_kubectl_palisade() {
    let (code, out, _) = called("kubectl-palisade", &["can", "--help"]);
    assert_eq!(code, 0);
    assert!(out.contains("Usage: kubectl palisade can"), "{out}");
    assert!(out.contains("\n  kubectl palisade can frontend backend:8080"), "{out}");
    assert!(out.lines().all(|l| !l.trim_start().starts_with("palisade ")), "{out}");
    let (code, _, err) = called("kubectl_palisade", &["cann"]);
    assert_eq!(code, 2);
    assert!(err.contains("Usage: kubectl palisade"), "{err}");
    let (_, out, _) = called("palisade", &["can", "--help"]);
    assert!(out.contains("Usage: palisade can"), "{out}");
}

#[test]
fn kubectl_is_told_how_a_command_line_may_go_on() {
    let complete = |words: &[&str]| called("kubectl_complete-palisade", words).1;
    assert!(complete(&["conn"]).starts_with("connections\t"));
    assert!(complete(&[""]).ends_with(":4\n"));
    assert!(complete(&["can", "--cont"]).starts_with("--context\t"), "{}", complete(&["can", "--cont"]));
    assert!(complete(&["connections", "-o", "m"]).contains("mermaid"));
    assert_eq!(complete(&["connections", "-f", ""]), ":0\n");
    assert_eq!(complete(&["lab", "r"]).lines().next().unwrap().split('\t').next(), Some("run"));
    assert_eq!(complete(&[]).lines().last(), Some(":4"));
}

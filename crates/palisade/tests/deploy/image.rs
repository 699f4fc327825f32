//! The image, and that versions and paths agree everywhere.

use std::process::Command;

use serde_json::Value;

use crate::{file, objects, only, words};

/// The instructions of the Dockerfile: one line each, without comments.
fn instructions() -> Vec<String> {
    let text = file("Dockerfile");
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).collect();
    lines
        .join("\n")
        .replace("\\\n", " ")
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// The last argument of the instruction that begins with `start`, after the `stage`th FROM.
#[track_caller]
fn argument(start: &str) -> String {
    let all = instructions();
    let found = all.iter().rfind(|i| i.starts_with(start)).unwrap_or_else(|| panic!("no {start}"));
    found[start.len()..].trim().to_owned()
}

fn version() -> String {
    let manifest = file("Cargo.toml");
    let line = manifest.lines().find(|l| l.starts_with("version = ")).unwrap();
    line.split('"').nth(1).unwrap().to_owned()
}

#[test]
fn one_version_everywhere() {
    let chart: Value = serde_saphyr::from_str(&file("deploy/helm/palisade/Chart.yaml")).unwrap();
    assert_eq!(chart["version"].as_str(), Some(&*version()));
    assert_eq!(chart["appVersion"].as_str(), Some(&*version()));
    assert_eq!(argument("ARG VERSION="), version());
    let manifests = objects("deploy/manifests/palisade.yaml");
    let container = &only(&manifests, "DaemonSet")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], format!("palisade:{}", version()));
}

#[test]
fn the_image_is_built_with_the_pinned_toolchain() {
    let pinned = file("rust-toolchain.toml");
    let channel = pinned.lines().find(|l| l.starts_with("channel")).unwrap().split('"').nth(1).unwrap();
    let from = instructions().into_iter().find(|i| i.starts_with("FROM")).unwrap();
    assert!(from.starts_with(&format!("FROM rust:{channel}-")), "{from}, but the toolchain is {channel}");
    assert!(argument("ENV RUSTUP_TOOLCHAIN=").starts_with(channel));
}

/// The lab (service translation, random clusters) is not needed in a privileged container.
#[test]
fn the_image_is_built_without_the_lab() {
    let script = file("deploy/image/build.sh");
    assert!(script.contains("features=(--no-default-features --features agent)\n"));
    // The program, its SBOM, and the licenses of what is linked into it.
    for command in ["cargo build ", "packaging/sbom.sh ", "packaging/notices.sh "] {
        let line = script.lines().find(|line| line.trim_start().starts_with(command));
        let line = line.unwrap_or_else(|| panic!("nothing runs {command}"));
        assert!(line.contains("\"${features[@]}\""), "{line}");
    }
}

#[test]
fn the_image_holds_the_program_alone_and_runs_it_without_rights() {
    assert_eq!(argument("FROM"), "scratch");
    let last_stage: Vec<String> =
        instructions().into_iter().rev().take_while(|i| !i.starts_with("FROM")).collect();
    assert!(last_stage.iter().all(|i| !i.starts_with("RUN")), "{last_stage:?}");
    let user = argument("USER");
    assert!(user.split(':').all(|id| id.parse::<u32>().unwrap() > 0), "{user}");
    let entry: Vec<String> = serde_json::from_str(&argument("ENTRYPOINT")).unwrap();
    let manifests = objects("deploy/manifests/palisade.yaml");
    let container = &only(&manifests, "DaemonSet")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(words(&container["command"]), entry, "the DaemonSet runs what the image has");
    let script = file("deploy/image/build.sh");
    assert!(script.contains(&format!("\"$out{}\"", entry[0])), "the script puts it elsewhere");
}

/// Every file that the labels point at is made by the build.
#[test]
fn labels_point_into_the_image() {
    let labels = argument("LABEL");
    for key in ["title", "description", "licenses", "version", "revision"] {
        assert!(labels.contains(&format!("org.opencontainers.image.{key}=")), "{key}");
    }
    let script = file("deploy/image/build.sh");
    for path in labels.split('"').filter(|part| part.starts_with('/')) {
        let made = path.strip_prefix("/usr/share/palisade/").unwrap();
        assert!(script.contains(&format!("\"$share/{made}\"")), "nobody makes {path}");
    }
}

/// What the build copies is let through, and what is private is not.
#[test]
fn the_build_sees_only_sources() {
    let text = file(".dockerignore");
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
    assert_eq!(lines[0], "*", "everything is left out but what is named");
    let named: Vec<&str> = lines.iter().filter_map(|l| l.strip_prefix('!')).collect();
    let scripts = ["deploy/image", "packaging/notices.sh", "packaging/sbom.sh"];
    let tests = ["tests/cluster", "tests/e2e"];
    assert_eq!(named, [&["Cargo.lock", "Cargo.toml", "LICENSE", "crates"][..], &scripts, &tests].concat());
    assert!(lines.contains(&"**/target"));
}

/// With what the build sees, cargo finds every member of the workspace.
#[test]
fn the_build_sees_the_whole_workspace() {
    let text = file(".dockerignore");
    let named = text.lines().filter_map(|l| l.strip_prefix('!'));
    let context = tempfile::tempdir().unwrap();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let mut copy = Command::new("cp");
    let copied =
        copy.args(["-r", "--parents"]).args(named).arg(context.path()).current_dir(root).status().unwrap();
    assert!(copied.success());
    // Not `cargo metadata`, which wants the crates of all platforms: a machine that has built the tests has those of its own.
    let mut tree = Command::new(env!("CARGO"));
    let output = tree
        .args(["tree", "--workspace", "--locked", "--offline"])
        .current_dir(context.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

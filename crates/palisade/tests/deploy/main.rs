//! Checks what `deploy/` contains: capabilities, mounts, verbs, names of metrics. Whether the rendered files
//! are what the chart generates is checked by `deploy/test.sh`, which needs Helm; these tests don't.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

mod access;
mod agent;
mod image;
mod metrics;
mod reference;
mod workload;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// A file of the repository, as text.
#[track_caller]
fn file(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The objects of a file, in order.
#[track_caller]
fn objects(path: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&file(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every rendered file, with its objects: the plain manifests, and the chart with the values of each case.
fn rendered() -> Vec<(String, Vec<Value>)> {
    let plain = ["palisade.yaml", "palisade-from-boot.yaml", "remove.yaml"];
    let mut paths: Vec<String> = plain.iter().map(|file| format!("deploy/manifests/{file}")).collect();
    for case in fs::read_dir(root().join("deploy/tests")).unwrap() {
        let case = case.unwrap();
        if case.file_type().unwrap().is_dir() {
            paths.push(format!("deploy/tests/{}/expected.yaml", case.file_name().to_str().unwrap()));
        }
    }
    assert!(paths.len() > 3, "{paths:?}");
    paths.into_iter().map(|path| (path.clone(), objects(&path))).collect()
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// The only object of this kind.
#[track_caller]
fn only<'a>(objects: &'a [Value], wanted: &str) -> &'a Value {
    let found: Vec<&Value> = objects.iter().filter(|o| kind(o) == wanted).collect();
    assert_eq!(found.len(), 1, "{wanted}");
    found[0]
}

/// The words of a list.
fn words(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|word| word.as_str().unwrap()).collect()
}

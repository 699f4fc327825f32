//! Records of flows of a lab, as agents write them, and what `suggest` and `replay` make of them, on every example.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use serde_json::Value;
use tempfile::TempDir;

/// The most connections of a message.
const SHOWN: usize = 10;

fn examples() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut examples: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    examples.sort();
    examples
}

/// Runs the program, which must end with this exit code. Returns standard output and standard error.
#[track_caller]
fn run(arguments: &[&str], code: i32) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    let output = command.args(arguments).env_remove("CLICOLOR_FORCE").stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}{err}");
    assert!(!err.contains("panicked"), "{err}");
    (out, err)
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Copies the manifests that hold no policy.
fn without_policies(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let file = entry.unwrap().path();
        let is_manifest = file.extension().is_some_and(|e| e == "yaml");
        if is_manifest && !fs::read_to_string(&file).unwrap().contains("Policy\n") {
            fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
        }
    }
}

/// One connection: each end as a pod, or else as an address.
type Seen = (String, String, String, Option<u64>);

fn end(end: &Value, pod: &Value) -> String {
    match (pod["namespace"].as_str(), pod["name"].as_str()) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name} {}", family(end)),
        _ => end["address"].as_str().unwrap().to_owned(),
    }
}

fn family(end: &Value) -> &str {
    if end["address"].as_str().unwrap().contains(':') { "IPv6" } else { "IPv4" }
}

fn records(file: &Path) -> Vec<Value> {
    fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The connections that the nodes recorded as forwarded.
fn forwarded(records: &[Value]) -> BTreeSet<Seen> {
    let forwarded = records.iter().filter(|record| record["verdict"] == "forwarded");
    let seen = forwarded.map(|record| {
        let [source, destination] = ["source", "destination"].map(|at| end(&record[at], &record[at]["pod"]));
        (source, destination, record["protocol"].as_str().unwrap().to_owned(), record["port"].as_u64())
    });
    seen.collect()
}

/// The direct probes of `lab run -o json`, with whether they were answered.
fn probed(document: &str) -> Vec<(Seen, bool)> {
    let document: Value = serde_json::from_str(document).unwrap();
    let direct =
        document["probes"].as_array().unwrap().iter().filter(|p| p["destination"]["kind"] != "service");
    let of = |probe: &Value| {
        let [source, destination] = ["source", "destination"].map(|at| {
            let pod = if probe[at]["kind"] == "pod" { &probe[at] } else { &Value::Null };
            end(&probe[at], pod)
        });
        let port = probe["port"].as_u64().filter(|port| *port > 0);
        let outcome = probe["outcome"].as_str().unwrap();
        let answered = outcome.starts_with("answered") || outcome == "connected";
        ((source, destination, probe["protocol"].as_str().unwrap().to_owned(), port), answered)
    };
    direct.map(of).collect()
}

/// What passes on an example is recorded, breaks nothing when replayed, and passes under the policies that are suggested of it, alone and
/// beside those that are there.
#[test]
fn what_passes_on_every_example_is_recorded_replayed_and_suggested() {
    // Labs wait for packets most of the time.
    thread::scope(|scope| {
        for example in examples() {
            scope.spawn(move || check(&example));
        }
    });
}

fn check(example: &Path) {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("flows.jsonl");
    let hosts = example.join("hosts");
    let hosts = if hosts.exists() { vec!["--hosts", path(&hosts)] } else { Vec::new() };
    let lab = |paths: &[&str], more: &[&str]| {
        run(&[&["lab", "run", "-o", "json"], paths, &hosts, more].concat(), 0)
    };
    let (document, notes) = lab(&[path(example)], &["--flow-file", path(&file)]);
    assert!(notes.contains(" records to "), "{notes}");
    let records = records(&file);
    assert!(records.iter().all(|record| record["lost"].is_null()), "{example:?}: {notes}");
    let seen = forwarded(&records);
    // A pod that connects to its own address sends no packet to the node.
    let leaves = |(source, destination, ..): &Seen| source != destination;
    let passed = probed(&document).into_iter().filter(|(seen, answered)| *answered && leaves(seen));
    let answered: BTreeSet<Seen> = passed.map(|(seen, _)| seen).collect();
    let unrecorded: Vec<&Seen> = answered.difference(&seen).take(SHOWN).collect();
    assert!(unrecorded.is_empty(), "{example:?}: {unrecorded:?}");
    assert!(seen.len() > 20, "{example:?}: {}", seen.len());

    run(&["replay", "--flows", path(&file), "-f", path(example)], 0);

    let (suggested, _) = run(&["suggest", "--flows", path(&file), "-f", path(example)], 0);
    let policies = dir.path().join("suggested.yaml");
    fs::write(&policies, suggested).unwrap();
    run(&["replay", "--flows", path(&file), "-f", path(example), "--with", path(&policies)], 0);
    let bare = dir.path().join("bare");
    without_policies(example, &bare);
    for manifests in [&*bare, example] {
        let (document, _) = lab(&[path(manifests), path(&policies)], &[]);
        let now = probed(&document);
        let passed: BTreeSet<&Seen> = now.iter().filter(|(_, a)| *a).map(|(seen, _)| seen).collect();
        let broken: Vec<&Seen> = seen.iter().filter(|seen| !passed.contains(seen)).take(SHOWN).collect();
        assert!(broken.is_empty(), "{manifests:?}: {broken:?}");
    }
}

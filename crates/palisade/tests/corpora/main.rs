//! Cases in which tools for network policies differ. Each folder is one: manifests and `case.toml`, which says what the
//! specification demands, why tools differ, and what the program answers. A folder is added, nothing else.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

#[path = "../support/mod.rs"]
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use libtest_mimic::{Arguments, Failed, Trial};
use serde::Deserialize;

/// The folders of cases, in the crate.
const FOLDER: &str = "tests/corpora";

/// `case.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What the input looks like, and where such inputs come from.
    shape: String,
    /// The lines of docs/specification.md (`A48`) and rows of docs/semantics.md (`G-10`) that decide.
    by: Vec<String>,
    /// The answer, derived from these lines without the program.
    right: String,
    /// What other tools do, and why.
    differs: String,
    ask: Vec<Question>,
}

/// A command line and what comes of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    /// Arguments, run in the case's folder.
    run: String,
    exit: i32,
    /// Parts of standard output, of which line breaks and repeated spaces are one space each.
    #[serde(default)]
    out: Vec<String>,
    /// What standard output must not contain.
    #[serde(default)]
    not_out: Vec<String>,
    /// Parts of standard error. Without them it must be empty, so that no case hides a message.
    #[serde(default)]
    err: Vec<String>,
}

fn main() {
    let arguments = Arguments::from_args();
    let mut folders: Vec<PathBuf> = fs::read_dir(crate_root().join(FOLDER))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    assert!(!folders.is_empty(), "no cases in {FOLDER}");
    folders.sort();
    let trials = folders.into_iter().map(|folder| {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        Trial::test(name, move || check(&folder))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn crate_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Asks a case's questions, and reports every difference at once.
fn check(folder: &Path) -> Result<(), Failed> {
    let case: Case = toml::from_str(&fs::read_to_string(folder.join("case.toml"))?)?;
    let mut faults = incomplete(&case);
    for question in &case.ask {
        let mut command = support::program(question.run.split_whitespace());
        let (code, out, err) = support::run(command.current_dir(folder));
        let (flat_out, flat_err) = (flat(&out), flat(&err));
        let mut expect = |holds: bool, what: String| {
            if !holds {
                faults.push(format!("{}: {what}\n{out}{err}", question.run));
            }
        };
        expect(code == question.exit, format!("exit code {code}, not {}", question.exit));
        for part in &question.out {
            expect(flat_out.contains(part), format!("no {part:?} in standard output"));
        }
        for part in &question.not_out {
            expect(!flat_out.contains(part), format!("{part:?} in standard output"));
        }
        for part in &question.err {
            expect(flat_err.contains(part), format!("no {part:?} in standard error"));
        }
        let says = question.err.is_empty() == err.is_empty();
        expect(says, "what is on standard error is not what the case has".to_owned());
        expect(!question.out.is_empty() || out.is_empty(), "an answer that the case has not".to_owned());
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n").into()) }
}

/// A case without a reason proves only that the program does what it does.
fn incomplete(case: &Case) -> Vec<String> {
    let mut faults = Vec::new();
    for (field, text) in [("shape", &case.shape), ("right", &case.right), ("differs", &case.differs)] {
        if text.trim().is_empty() {
            faults.push(format!("{field} is empty"));
        }
    }
    let pages = ["specification", "semantics"]
        .map(|page| fs::read_to_string(support::root().join(format!("docs/{page}.md"))).unwrap());
    for line in &case.by {
        if !pages.iter().any(|page| {
            page.contains(&format!("* {line}. "))
                || page.contains(&format!("({line})"))
                || page.contains(&format!("### {line} "))
        }) {
            faults.push(format!("neither docs/specification.md nor docs/semantics.md has {line}"));
        }
    }
    faults.extend(case.by.is_empty().then(|| "by is empty".to_owned()));
    faults
}

/// A text with every run of white space as one space: answers are wrapped and aligned.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

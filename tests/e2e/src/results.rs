//! What the suites of a run have shown, as files: one per suite, in the folder that `--results` names.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The folder, in the environment of a run.
pub const FOLDER: &str = "PALISADE_E2E_RESULTS";
const EXTENSION: &str = "result.json";
/// The file that `tests/kernels/run` writes.
const KERNELS: &str = "kernels.json";

/// What one suite has shown.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The suite's name.
    pub suite: String,
    /// What it is, in one line.
    pub about: String,
    /// How many cases passed.
    pub passed: usize,
    /// The cases that failed. A suite that could not be run to its end has one of them that says so.
    pub failed: Vec<String>,
    /// The cases that were not run.
    pub skipped: Vec<Skipped>,
    /// How long it took.
    pub seconds: u64,
    /// Files beside this one that upstream's program wrote for others to read.
    pub reports: Vec<String>,
}

/// A case that was not run.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Skipped {
    /// Why.
    pub reason: String,
    /// Its name.
    pub case: String,
}

impl Outcome {
    /// Fails if a case has failed, or if there was none: what ran nothing has shown nothing.
    ///
    /// # Errors
    /// With the names of the cases.
    pub fn verdict(&self) -> Result<()> {
        ensure!(
            self.failed.is_empty(),
            "{} of {} failed:\n  {}",
            self.failed.len(),
            self.passed + self.failed.len(),
            self.failed.join("\n  ")
        );
        ensure!(self.passed > 0, "no case was run");
        Ok(())
    }

    /// Writes it into this folder.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(format!("{}.{EXTENSION}", self.suite));
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, serde_json::to_vec_pretty(self)?))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The folder of this run's results, if it has one.
#[must_use]
pub fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// Writes what is known of a suite that writes nothing itself: whether it passed.
///
/// # Errors
/// If the file can't be written.
pub fn complete(suite: &str, about: &str, took: Duration, result: &Result<()>) -> Result<()> {
    let Some(folder) = folder() else { return Ok(()) };
    if folder.join(format!("{suite}.{EXTENSION}")).exists() {
        return Ok(());
    }
    let failed = result.as_ref().err().map(|e| format!("{suite}: {e:#}")).into_iter().collect::<Vec<_>>();
    let outcome = Outcome {
        suite: suite.to_owned(),
        about: about.to_owned(),
        passed: usize::from(failed.is_empty()),
        failed,
        seconds: took.as_secs(),
        ..Outcome::default()
    };
    outcome.write(&folder)
}

/// Reads all results of a folder, in the order of these names, and then by name.
///
/// # Errors
/// If a file can't be read.
pub fn read(folder: &Path, order: &[&str]) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let read = || fs::read(&path).map_err(anyhow::Error::new);
        let name = path.to_string_lossy();
        if name.ends_with(&format!(".{EXTENSION}")) {
            let outcome = read().and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
            outcomes.push(outcome.with_context(|| format!("cannot read {name}"))?);
        } else if name.ends_with(KERNELS) {
            let kernels = read().and_then(|bytes| kernels(&serde_json::from_slice(&bytes)?));
            outcomes.extend(kernels.with_context(|| format!("cannot read {name}"))?);
        }
    }
    let place = |o: &Outcome| order.iter().position(|name| *name == o.suite).unwrap_or(order.len());
    outcomes.sort_by_key(|o| (place(o), o.suite.clone()));
    Ok(outcomes)
}

/// The results of `tests/kernels/run`: one suite per kernel, with its checks as cases.
fn kernels(file: &Value) -> Result<Vec<Outcome>> {
    ensure!(file["schema"] == "palisade.kernels/v1", "another schema than palisade.kernels/v1");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kernels = file["kernels"].as_array().context("no kernels")?;
    let outcomes = kernels.iter().map(|kernel| {
        let mut outcome = Outcome {
            suite: format!("kernel-{}", text(&kernel["name"])),
            seconds: kernel["seconds"].as_u64().unwrap_or_default(),
            ..Outcome::default()
        };
        let mut checks = Vec::new();
        for check in kernel["checks"].as_array().into_iter().flatten() {
            let name = text(&check["name"]);
            if check["outcome"] == "passed" {
                outcome.passed += 1;
            } else {
                outcome.failed.push(format!("{name}: {}", text(&check["outcome"])));
            }
            checks.push(name);
        }
        outcome.about = format!("Linux {}, in an emulator: {}", text(&kernel["release"]), checks.join(", "));
        // The kernel may have reported a fault although every check passed.
        if kernel["outcome"] != "passed" && outcome.failed.is_empty() {
            outcome.failed.push(format!("the kernel: {}", text(&kernel["outcome"])));
        }
        outcome
    });
    Ok(outcomes.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_run_and_one_failure_are_failures() {
        let mut outcome = Outcome::default();
        assert!(outcome.verdict().is_err_and(|e| e.to_string() == "no case was run"));
        outcome.passed = 2;
        assert!(outcome.verdict().is_ok());
        outcome.failed.push("a case".into());
        assert!(outcome.verdict().is_err_and(|e| e.to_string() == "1 of 3 failed:\n  a case"));
    }

    #[test]
    fn results_are_read_in_the_order_that_is_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        for suite in ["b", "a", "c"] {
            let skipped = vec![Skipped { reason: "r".into(), case: "c".into() }];
            let outcome = Outcome { suite: suite.into(), passed: 1, skipped, ..Outcome::default() };
            outcome.write(folder.path()).expect("a result");
        }
        fs::write(folder.path().join("netpol.log"), "text").expect("another file");
        let read = read(folder.path(), &["c"]).expect("the results");
        assert_eq!(read.iter().map(|o| o.suite.as_str()).collect::<Vec<_>>(), ["c", "a", "b"]);
        assert_eq!(read[0].skipped[0].case, "c");
    }

    #[test]
    fn a_kernel_is_a_suite_and_its_checks_are_cases() {
        let file = json!({"schema": "palisade.kernels/v1", "kernels": [
            {"name": "6.1", "release": "6.1.0-49", "outcome": "passed", "seconds": 200,
             "checks": [{"name": "doctor", "outcome": "passed"}, {"name": "fuzz", "outcome": "passed"}]},
            {"name": "5.10", "release": "5.10.0", "outcome": "failed", "seconds": 9,
             "checks": [{"name": "doctor", "outcome": "did not end"}]},
            {"name": "7.3", "release": "7.3", "outcome": "failed", "checks": [{"name": "doctor", "outcome": "passed"}]},
        ]});
        let outcomes = kernels(&file).expect("kernels");
        assert_eq!(outcomes[0].suite, "kernel-6.1");
        assert_eq!(outcomes[0].about, "Linux 6.1.0-49, in an emulator: doctor, fuzz");
        assert_eq!((outcomes[0].passed, outcomes[0].failed.len()), (2, 0));
        assert_eq!(outcomes[1].failed, ["doctor: did not end"]);
        assert_eq!(outcomes[2].failed, ["the kernel: failed"]);
        assert!(kernels(&json!({"schema": "v2"})).is_err());
    }
}

//! The conformance tests of the Network Policy API, one program for each release of it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use super::{folder, program, run_logged};
use crate::{
    Cluster, palisade,
    results::{self, Outcome, Skipped},
};

/// A release of the API.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// The name of the suite here, and of the program.
    pub suite: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// The parts of the API that its report is about.
    pub profiles: &'static str,
    /// How many tests there are.
    pub total: usize,
}

/// The releases that are tested.
pub const RELEASES: [Release; 3] = [
    Release {
        suite: "conformance-v0.1.7",
        about: "Network Policy API v0.1.7: AdminNetworkPolicy and BaselineAdminNetworkPolicy v1alpha1",
        profiles: "AdminNetworkPolicy,BaselineAdminNetworkPolicy",
        total: 24,
    },
    Release {
        suite: "conformance-v0.2.0",
        about: "Network Policy API v0.2.0: ClusterNetworkPolicy v1alpha2",
        profiles: "ClusterNetworkPolicy",
        total: 24,
    },
    Release {
        suite: "conformance-v0.3.0",
        about: "Network Policy API v0.3.0: ClusterNetworkPolicy v1beta1",
        profiles: "ClusterNetworkPolicy",
        total: 30,
    },
];

/// What the tests of every release run in.
const NAMESPACES: [&str; 5] = [
    "network-policy-conformance-forbidden-forrest",
    "network-policy-conformance-gryffindor",
    "network-policy-conformance-hufflepuff",
    "network-policy-conformance-ravenclaw",
    "network-policy-conformance-slytherin",
];

/// The test that runs all others and writes a report.
const TEST: &str = "TestConformance";

/// Runs all tests of a release, and records what they showed.
///
/// # Errors
/// If one has failed, or the program can't be run.
pub fn run(cluster: &Cluster, release: &Release) -> Result<()> {
    let start = Instant::now();
    let program = program(release.suite)?;
    let definitions = definitions(&program)?;
    for file in &definitions {
        cluster.kubectl(&["apply", "--server-side", "-f", &file.display().to_string()])?;
    }
    let result = with_definitions(cluster, release, &program, start);
    // The next release makes its own by the same names.
    cluster.delete_namespaces(&NAMESPACES)?;
    for file in &definitions {
        cluster.kubectl(&["delete", "--ignore-not-found", "-f", &file.display().to_string()])?;
    }
    result
}

fn with_definitions(cluster: &Cluster, release: &Release, program: &Path, start: Instant) -> Result<()> {
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
    // The first test creates a policy and expects it to be enforced within seconds.
    palisade::restart(cluster)?;
    let folder = folder(release.suite)?;
    let report = folder.join("report.yaml");
    let _ = fs::remove_file(&report);
    let version = env!("CARGO_PKG_VERSION");
    let arguments = [
        format!("-test.run=^{TEST}$"),
        "-test.v".into(),
        "-test.timeout=2h".into(),
        "-all-features".into(),
        format!("-conformance-profiles={}", release.profiles),
        "-organization=palisade".into(),
        "-project=palisade".into(),
        "-url=README.md".into(),
        format!("-version=v{version}"),
        "-contact=SECURITY.md".into(),
        "-additional-info=docs/conformance.md".into(),
        format!("-report-output={}", report.display()),
    ];
    let log = run_logged(cluster, &folder, program, &arguments)?;
    let mut outcome = outcome(release, &fs::read_to_string(&log)?);
    outcome.seconds = start.elapsed().as_secs();
    if let Some(results) = results::folder() {
        if report.exists() {
            let name = format!("{}.yaml", release.suite);
            fs::copy(&report, results.join(&name))?;
            outcome.reports.push(name);
        }
        outcome.write(&results)?;
    }
    outcome.verdict().with_context(|| format!("{} has the details", log.display()))
}

/// The CustomResourceDefinitions of the release, which `build.sh` puts beside the program.
fn definitions(program: &Path) -> Result<Vec<PathBuf>> {
    let folder = PathBuf::from(format!("{}.crds", program.display()));
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = entries.map(|e| Ok(e?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    ensure!(!files.is_empty(), "{} is empty", folder.display());
    Ok(files)
}

/// Reads the output of a test program of Go: the tests below [`TEST`] and not their own parts.
fn outcome(release: &Release, output: &str) -> Outcome {
    let mut outcome =
        Outcome { suite: release.suite.into(), about: release.about.into(), ..Outcome::default() };
    let mut whole = None;
    for line in output.lines().map(str::trim_start) {
        let Some((state, rest)) = line.strip_prefix("--- ").and_then(|l| l.split_once(": ")) else {
            continue;
        };
        let name = rest.split(' ').next().unwrap_or_default();
        if name == TEST {
            whole = Some(state == "PASS");
        }
        let Some(test) = name.strip_prefix(TEST).and_then(|n| n.strip_prefix('/')) else { continue };
        match (state, test.contains('/')) {
            ("PASS", false) => outcome.passed += 1,
            ("SKIP", false) => outcome
                .skipped
                .push(Skipped { reason: "a feature that was not asked for".into(), case: test.into() }),
            ("FAIL", _) => outcome.failed.push(test.to_owned()),
            _ => {}
        }
    }
    // A test with parts that failed is named by these.
    let parts = outcome.failed.clone();
    outcome.failed.retain(|test| !parts.iter().any(|part| part.starts_with(&format!("{test}/"))));
    let tests = parts.iter().filter(|t| !t.contains('/')).count() + outcome.passed + outcome.skipped.len();
    if tests != release.total {
        outcome.failed.push(format!("{} tests were expected, and there are {tests}", release.total));
    }
    if outcome.failed.is_empty() && whole != Some(true) {
        outcome.failed.push(format!("{TEST} did not end"));
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: Release = Release { suite: "c", about: "", profiles: "", total: 3 };

    #[test]
    fn tests_are_counted_without_their_parts() {
        let output = "=== RUN   TestConformance\n    --- PASS: TestConformance/One (1.00s)\n        \
                      --- PASS: TestConformance/One/Should_a (0.10s)\n    --- FAIL: TestConformance/Two (1.00s)\n        \
                      --- FAIL: TestConformance/Two/Should_b (0.10s)\n    --- SKIP: TestConformance/Three (0.00s)\n\
                      --- FAIL: TestConformance (3.00s)\nFAIL\n";
        let outcome = outcome(&RELEASE, output);
        assert_eq!((outcome.passed, outcome.skipped.len()), (1, 1));
        assert_eq!(outcome.failed, ["Two/Should_b"]);
    }

    #[test]
    fn a_program_that_ends_early_has_failed() {
        let outcome = outcome(&RELEASE, "--- FAIL: TestConformance (300.00s)\npanic: test timed out\n");
        assert_eq!(outcome.passed, 0);
        assert_eq!(outcome.failed, ["3 tests were expected, and there are 0"]);
        let passed = "--- PASS: TestConformance/A (1s)\n".repeat(3);
        assert_eq!(super::outcome(&RELEASE, &passed).failed, ["TestConformance did not end"]);
    }
}

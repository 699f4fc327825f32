//! Upstream's own suites, run against the cluster: their programs, unchanged, are the judges.
//!
//! ```text
//!  tests/e2e/build.sh suites ─► programs ─┬─► ginkgo.rs       Kubernetes' e2e suite
//!                                         └─► conformance.rs  the Network Policy API
//!                                               │
//!                                               └─► Outcome (results.rs)
//! ```

pub mod conformance;
pub mod ginkgo;

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    Cluster, results, stage,
    suites::{self, Suite},
};

macro_rules! conformance_suite {
    ($index:expr) => {
        Suite {
            name: conformance::RELEASES[$index].suite,
            about: conformance::RELEASES[$index].about,
            run: |cluster| with_palisade(cluster, |c| conformance::run(c, &conformance::RELEASES[$index])),
        }
    };
}

/// The folder that `tests/e2e/build.sh` prints, in the environment of a run.
pub const PROGRAMS: &str = "PALISADE_SUITE_PROGRAMS";

/// The suites, in the order of the table of results.
pub const SUITES: [Suite; 6] = [
    Suite {
        name: ginkgo::NETPOL.suite,
        about: ginkgo::NETPOL.about,
        run: |cluster| with_palisade(cluster, |c| ginkgo::run(c, &ginkgo::NETPOL)),
    },
    Suite {
        name: ginkgo::NETPOL_SMOKE.suite,
        about: ginkgo::NETPOL_SMOKE.about,
        run: |cluster| with_palisade(cluster, |c| ginkgo::run(c, &ginkgo::NETPOL_SMOKE)),
    },
    conformance_suite!(0),
    conformance_suite!(1),
    conformance_suite!(2),
    Suite {
        name: ginkgo::SERVICES.suite,
        about: ginkgo::SERVICES.about,
        run: |cluster| with_palisade(cluster, |c| ginkgo::run(c, &ginkgo::SERVICES)),
    },
];

/// Runs `suite` while Palisade is installed.
fn with_palisade(cluster: &mut Cluster, suite: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
    suites::install_palisade(cluster)?;
    suite(cluster)
}

/// Builds what suites of these names need, on the machine itself: the environment of the run.
///
/// # Errors
/// If something can't be built.
pub fn prepare(suites: &[String]) -> Result<Vec<(&'static str, OsString)>> {
    let needs = |groups: &[&str]| suites.iter().any(|suite| groups.iter().any(|g| suite.starts_with(g)));
    let group = match (needs(&["netpol", "services"]), needs(&["conformance"])) {
        (true, true) => "suites",
        (true, false) => "e2e",
        (false, true) => "conformance",
        (false, false) => return Ok(Vec::new()),
    };
    if env::var_os(PROGRAMS).is_some_and(|v| !v.is_empty()) {
        return Ok(Vec::new());
    }
    let script = palisade_cluster_tests::programs::root().join("tests/e2e/build.sh");
    let output = Command::new(&script)
        .arg(group)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", script.display()))?;
    ensure!(output.status.success(), "{} failed: {}", script.display(), output.status);
    Ok(vec![(PROGRAMS, OsString::from(String::from_utf8(output.stdout)?.trim()))])
}

/// A program of a suite.
fn program(name: &str) -> Result<PathBuf> {
    let folder = env::var_os(PROGRAMS).with_context(|| format!("{PROGRAMS} is not set"))?;
    let path = Path::new(&folder).join(name);
    ensure!(path.exists(), "{} is missing: {PROGRAMS} has to name a folder that holds it", path.display());
    Ok(path)
}

/// Where a suite writes: beside the results, or in the folder of the run.
fn folder(suite: &str) -> Result<PathBuf> {
    let folder = results::folder().unwrap_or_else(|| stage::folder("results")).join(suite);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// Runs a program beside the control plane, with its output in a file, and returns that file's path.
///
/// Whether it succeeded is not in question here: its reports say what failed.
fn run_logged(cluster: &Cluster, folder: &Path, program: &Path, arguments: &[String]) -> Result<PathBuf> {
    let log = folder.join("output.log");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", r#"log=$1; shift; exec "$@" >"$log" 2>&1 </dev/null"#, "sh"]);
    command.arg(&log).arg(program).args(arguments).current_dir(folder);
    let output = cluster.output(command, "")?;
    if !output.status.success() && fs::metadata(&log).map_or(0, |m| m.len()) == 0 {
        bail!("{}: {}: {}", program.display(), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(log)
}

//! The programs and files of a run: found on the machine before the run begins, and bound into its folder.
//!
//! In a run they are in [`stage::FOLDER`], whatever the machine's own folders are: nodes don't see those.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use palisade_cluster_tests::{
    Programs,
    programs::{CONTROL_PLANE, CRDS, PALISADE, root},
};

use crate::{node::NODE_PROGRAMS, stage};

/// A folder that holds [`NODE_PROGRAMS`], instead of one that `tests/e2e/build.sh` builds.
pub const NODE_FOLDER: &str = "PALISADE_NODE_PROGRAMS";

/// Where programs of the machine are that the nodes start.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Finds everything, and builds what is missing: the environment that [`bind`] reads.
///
/// # Errors
/// If something does not exist and can't be built, with what to do about it.
pub fn find() -> Result<Vec<(&'static str, OsString)>> {
    let nodes = match env::var_os(NODE_FOLDER).filter(|v| !v.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => built()?,
    };
    for name in NODE_PROGRAMS {
        let path = nodes.join(name);
        ensure!(
            path.exists(),
            "{} is missing: {NODE_FOLDER} has to name a folder that holds it",
            path.display()
        );
    }
    let programs = Programs::find()?;
    let crds = programs.crd("x");
    Ok(vec![
        (NODE_FOLDER, absolute(&nodes)?),
        (CONTROL_PLANE, absolute(parent(&programs.control_plane("etcd"))?)?),
        (PALISADE, absolute(programs.palisade())?),
        (CRDS, absolute(parent(&crds)?)?),
    ])
}

fn parent(path: &Path) -> Result<&Path> {
    path.parent().with_context(|| format!("{} is in no folder", path.display()))
}

fn absolute(path: &Path) -> Result<OsString> {
    Ok(fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))?.into_os_string())
}

fn built() -> Result<PathBuf> {
    let script = root().join("tests/e2e/build.sh");
    let output = Command::new(&script)
        .arg("nodes")
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", script.display()))?;
    if !output.status.success() {
        bail!("{} failed: {}", script.display(), output.status);
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// Makes the programs visible in the folder of the run.
///
/// # Errors
/// If the environment is not the one that [`find`] made.
pub fn bind() -> Result<()> {
    for (variable, name) in [(NODE_FOLDER, "node"), (CONTROL_PLANE, "control")] {
        let from = env::var_os(variable).with_context(|| format!("{variable} is not set"))?;
        let to = stage::folder("programs").join(name);
        fs::create_dir_all(&to)?;
        stage::bind(Path::new(&from), &to)?;
    }
    Ok(())
}

/// A program of the nodes, in a run.
#[must_use]
pub fn node_program(name: &str) -> PathBuf {
    stage::folder("programs").join("node").join(name)
}

/// A program of the control plane, in a run.
#[must_use]
pub fn control_program(name: &str) -> PathBuf {
    stage::folder("programs").join("control").join(name)
}

/// The `PATH` of programs in a run.
#[must_use]
pub fn path() -> String {
    let own = ["node", "control"].map(|n| stage::folder("programs").join(n).display().to_string());
    format!("{}:{SYSTEM_PATH}", own.join(":"))
}

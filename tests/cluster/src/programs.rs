//! The programs and files that the tests use: taken from the environment, or built.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

/// A folder that holds `etcd`, `kube-apiserver`, `kubectl` and `helm`.
pub const CONTROL_PLANE: &str = "PALISADE_CONTROL_PLANE";
/// A folder of CustomResourceDefinitions, as files `PLURAL.VERSION.CHANNEL.yaml`.
pub const CRDS: &str = "PALISADE_CRDS";
/// A `palisade` program, instead of one that is built from this checkout.
pub const PALISADE: &str = "PALISADE_BIN";

/// The programs and files that the tests use.
#[derive(Clone, Debug)]
pub struct Programs {
    control_plane: PathBuf,
    palisade: PathBuf,
    crds: PathBuf,
}

impl Programs {
    /// Finds everything and builds what is missing. That may take minutes; the progress is printed to stderr.
    ///
    /// # Errors
    /// If something does not exist and can't be built, with what to do about it.
    pub fn find() -> Result<Self> {
        Ok(Self { crds: crds()?, control_plane: control_plane()?, palisade: palisade()? })
    }

    /// A program of the control plane.
    #[must_use]
    pub fn control_plane(&self, name: &str) -> PathBuf {
        self.control_plane.join(name)
    }

    /// `palisade`.
    #[must_use]
    pub fn palisade(&self) -> &Path {
        &self.palisade
    }

    /// The file of a CustomResourceDefinition, such as `clusternetworkpolicies.v1alpha2.experimental`.
    #[must_use]
    pub fn crd(&self, name: &str) -> PathBuf {
        self.crds.join(format!("{name}.yaml"))
    }
}

/// The checkout.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn from_environment(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from)
}

fn crds() -> Result<PathBuf> {
    let beside = root().join("../shared/crds");
    let folder = from_environment(CRDS).unwrap_or_else(|| beside.clone());
    let first = folder.join("clusternetworkpolicies.v1alpha2.experimental.yaml");
    ensure!(
        first.exists(),
        "the cluster tests need the CustomResourceDefinitions of the Network Policy API, and there is no {}: set {CRDS} to a folder \
         that has them (see tests/cluster/README.md), or put it at {}",
        first.display(),
        beside.display(),
    );
    Ok(folder)
}

fn control_plane() -> Result<PathBuf> {
    let folder = match from_environment(CONTROL_PLANE) {
        Some(folder) => folder,
        None => PathBuf::from(output_of(&mut Command::new(root().join("tests/cluster/build.sh")))?.trim()),
    };
    for program in ["etcd", "kube-apiserver", "kubectl", "helm"] {
        let path = folder.join(program);
        ensure!(path.exists(), "{} is missing", path.display());
    }
    Ok(folder)
}

fn palisade() -> Result<PathBuf> {
    if let Some(program) = from_environment(PALISADE) {
        ensure!(program.exists(), "{PALISADE} names {}, which does not exist", program.display());
        return Ok(program);
    }
    // Cargo passes a test only the programs of its own package.
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(root()).args(["build", "--package=palisade", "--bin=palisade", "--locked"]);
    build.arg("--message-format=json-render-diagnostics");
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let messages = output_of(&mut build)?;
    let executable = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    };
    messages.lines().rev().find_map(executable).context("cargo does not report the path of palisade")
}

/// Returns the standard output of a program. Its standard error is passed through.
fn output_of(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} failed: {}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}

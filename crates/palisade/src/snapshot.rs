//! `palisade snapshot`: the objects of a cluster that policies depend on, as files for `-f`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use palisade_analysis::diff::changed_policies;
use palisade_api::{ClusterSnapshot, read::Object};
use palisade_manifest::{Input, LoadOptions, load, names};
use palisade_policy::Cluster;
use serde_json::{Map, Value};

use crate::{
    cluster::{self, Need},
    exit::Outcome,
    inputs::plural,
    output,
};

pub(crate) const HELP: &str = "\
The directory has one file per namespace and kind, and one per cluster-scoped kind; `-f DIR` reads it with the same results. Objects are sorted, and equal objects give equal bytes, so that a repository of snapshots shows what changed.

Only fields that verdicts and names depend on are written: labels, owners, addresses, ports, and the rules of policies and routes. Secrets and ConfigMaps are not read; environment variables, arguments, annotations other than Palisade's own, managedFields and keys are omitted. Names, labels and addresses are not anonymized.

The directory appears only after all files were written, read back and compared with the cluster. A non-empty directory is replaced only with --force, and only if it is a snapshot.

Examples:
  palisade snapshot cluster
  palisade snapshot cluster --force --context production
  palisade connections -f cluster
  palisade diff monday tuesday
  palisade lab run cluster

Exit codes: 0 done, 2 error.";

/// Marks a directory as a snapshot, which may be replaced. It is a hidden file, so it is not read as a manifest.
const MARKER: &str = ".palisade-snapshot";

/// Arguments of `snapshot`.
#[derive(Debug, Args)]
pub(crate) struct Snapshot {
    /// The directory to write
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Replace an older snapshot
    #[arg(long)]
    force: bool,
    /// Namespace to read if you may not list objects of all [default: the context's]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    cluster: cluster::ClusterArguments,
}

/// Writes the snapshot.
pub(crate) fn run(arguments: &Snapshot) -> Result<Outcome> {
    let dir = &arguments.dir;
    may_be_written(dir, arguments.force)?;
    let live = arguments.cluster.read(arguments.namespace.as_deref(), "a snapshot requires a cluster")?;
    cluster::warn(&live.missing, Need::Everything);
    if !cluster::needed(&live.missing, Need::Everything).is_empty() && !arguments.cluster.allow_incomplete {
        bail!(
            "nothing was written: an incomplete snapshot could give wrong answers (use --allow-incomplete to accept it)"
        );
    }
    let files = files(&live)?;
    // In the same parent directory, so that it can be renamed.
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("can't create {}", parent.display()))?;
    let new = tempfile::Builder::new()
        .prefix(".palisade-snapshot-")
        .tempdir_in(parent)
        .with_context(|| format!("can't write to {}", parent.display()))?;
    write(new.path(), &files).with_context(|| format!("can't write {}", new.path().display()))?;
    reads_back(&live, new.path())?;
    replace(new, dir).with_context(|| format!("can't move the snapshot to {}", dir.display()))?;
    let (objects, count) = (live.objects.len(), files.len());
    output::note(&format!(
        "wrote {objects} {} in {count} {} to {}\n",
        plural(objects, "object"),
        plural(count, "file"),
        dir.display()
    ));
    Ok(Outcome::Yes)
}

/// Fails unless the directory does not exist, is empty, or is a snapshot that may be replaced.
fn may_be_written(dir: &Path, force: bool) -> Result<()> {
    let mut entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("can't read {}", dir.display())),
    };
    if entries.next().is_none() {
        return Ok(());
    }
    if !dir.join(MARKER).is_file() {
        bail!("{} is neither empty nor a snapshot, and was not replaced", dir.display());
    }
    if !force {
        bail!("{} already has a snapshot; use --force to replace it", dir.display());
    }
    Ok(())
}

/// Returns the files by their paths in the directory.
fn files(live: &ClusterSnapshot) -> Result<BTreeMap<PathBuf, String>> {
    let mut files: BTreeMap<PathBuf, String> = BTreeMap::new();
    for object in &live.objects {
        let name = format!("{}.yaml", object.kind.plural());
        let path = match &*object.namespace {
            "" => PathBuf::from(name),
            namespace if names::dns_label(namespace).is_empty() => Path::new(namespace).join(name),
            other => bail!("the API server returned an invalid namespace name: {other:?}"),
        };
        let text = files.entry(path).or_default();
        if !text.is_empty() {
            text.push_str("---\n");
        }
        let yaml = yaml(object).with_context(|| format!("{} {}", object.kind, object.name))?;
        _ = write!(text, "{yaml}");
    }
    Ok(files)
}

fn yaml(object: &Object) -> Result<String> {
    let value: Value = serde_json::from_str(&object.json)?;
    let mut text = serde_saphyr::to_string(&sorted(value))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Sorts the keys of all mappings.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        Value::Object(fields) => {
            let fields: BTreeMap<String, Value> = fields.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            Value::Object(Map::from_iter(fields))
        }
        other => other,
    }
}

fn write(dir: &Path, files: &BTreeMap<PathBuf, String>) -> io::Result<()> {
    fs::write(
        dir.join(MARKER),
        "Written by `palisade snapshot`, which replaces this directory with --force.\n",
    )?;
    for (path, text) in files {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, text)?;
    }
    #[cfg(unix)]
    {
        // A temporary directory is readable by its owner only; a snapshot gets ordinary permissions.
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Reads the files back and compares them with the cluster.
fn reads_back(live: &ClusterSnapshot, dir: &Path) -> Result<()> {
    let options = LoadOptions::default();
    let inputs: Vec<Input> = live.inputs().collect();
    let there = load(&inputs, &options).cluster;
    let here = load(&[Input::Path(dir.to_owned())], &options);
    if let Some(problem) = here.diagnostics.iter().find(|d| d.severity == palisade_manifest::Severity::Error)
    {
        bail!("nothing was written: this version can't read back every object of the cluster: {problem}");
    }
    let policies = |c: &Cluster| Cluster { policies: c.policies.clone(), ..Cluster::default() };
    let others = |c: Cluster| Cluster { policies: BTreeMap::default(), ..c };
    // Only the origins of policies may differ.
    if let Some((policy, _)) = changed_policies(&policies(&there), &policies(&here.cluster)).first_key_value()
    {
        bail!(
            "nothing was written: {policy} would be read back as a different policy, because it has a field that this version \
             does not support"
        );
    }
    if others(there) != others(here.cluster) {
        bail!("nothing was written: the files would be read back as a different cluster; please report this");
    }
    Ok(())
}

/// Replaces the old directory by the new one.
fn replace(new: tempfile::TempDir, dir: &Path) -> io::Result<()> {
    if !dir.exists() {
        fs::rename(new.keep(), dir)?;
        return Ok(());
    }
    // The old directory is renamed first, and removed once the new one is in its place.
    let old = new.path().with_extension("old");
    fs::rename(dir, &old)?;
    if let Err(error) = fs::rename(new.path(), dir) {
        fs::rename(&old, dir)?;
        return Err(error);
    }
    _ = new.keep();
    fs::remove_dir_all(old)
}

//! `palisade snapshot`: what decides in a cluster, as files that `-f` reads.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use palisade_analysis::diff::diff;
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
The directory gets a file for each namespace and kind, and one for each kind that has no namespace; `-f DIR` reads it back to the same answers. Objects are sorted, and the same objects give the same bytes, so that a repository of snapshots shows what changed.

Only what decisions and names need is written: labels, owners, addresses, ports, and the rules of policies and routes. Secrets and ConfigMaps are not asked for; environments, arguments, annotations, managedFields and keys are left out. Names, labels and addresses are as they are.

The directory appears when everything is in it, and has been read back and compared with the cluster. One that is not empty is replaced only with --force, and only if it is a snapshot.

Examples:
  palisade snapshot cluster
  palisade snapshot cluster --force --context production
  palisade connections -f cluster
  palisade diff monday tuesday
  palisade lab run cluster

Exit codes: 0 written, 2 error.";

/// Marks a directory as one that may be replaced. Manifests are not looked for in hidden files.
const MARKER: &str = ".palisade-snapshot";

/// What `snapshot` takes.
#[derive(Debug, Args)]
pub(crate) struct Snapshot {
    /// The directory to write
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Replace an older snapshot
    #[arg(long)]
    force: bool,
    /// Your own namespace, where you may not list all; else that of the context
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    cluster: cluster::ClusterArguments,
}

/// Does it.
pub(crate) fn run(arguments: &Snapshot) -> Result<Outcome> {
    let dir = &arguments.dir;
    may_be_written(dir, arguments.force)?;
    let live = arguments.cluster.read(arguments.namespace.as_deref(), "a snapshot is one of a cluster")?;
    cluster::warn(&live.missing, Need::Everything);
    if !cluster::needed(&live.missing, Need::Everything).is_empty() && !arguments.cluster.allow_incomplete {
        bail!(
            "nothing is written: a snapshot without them would give other answers (--allow-incomplete takes it)"
        );
    }
    let files = files(&live)?;
    // Beside the directory, so that it can be renamed.
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("can't make {}", parent.display()))?;
    let new = tempfile::Builder::new()
        .prefix(".palisade-snapshot-")
        .tempdir_in(parent)
        .with_context(|| format!("can't write into {}", parent.display()))?;
    write(new.path(), &files).with_context(|| format!("can't write {}", new.path().display()))?;
    reads_back(&live, new.path())?;
    replace(new, dir).with_context(|| format!("can't put the snapshot at {}", dir.display()))?;
    let (objects, count) = (live.objects.len(), files.len());
    output::note(&format!(
        "wrote {objects} {} in {count} {} to {}\n",
        plural(objects, "object"),
        plural(count, "file"),
        dir.display()
    ));
    Ok(Outcome::Yes)
}

/// Whether the directory may be written: it isn't there, is empty, or is a snapshot and may be replaced.
fn may_be_written(dir: &Path, force: bool) -> Result<()> {
    let mut entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("can't look into {}", dir.display())),
    };
    if entries.next().is_none() {
        return Ok(());
    }
    if !dir.join(MARKER).is_file() {
        bail!("{} is not empty, and no snapshot: it is left alone", dir.display());
    }
    if !force {
        bail!("{} has a snapshot already; --force replaces it", dir.display());
    }
    Ok(())
}

/// The files by their paths in the directory.
fn files(live: &ClusterSnapshot) -> Result<BTreeMap<PathBuf, String>> {
    let mut files: BTreeMap<PathBuf, String> = BTreeMap::new();
    for object in &live.objects {
        let name = format!("{}.yaml", object.kind.plural());
        let path = match &*object.namespace {
            "" => PathBuf::from(name),
            namespace if names::dns_label(namespace).is_empty() => Path::new(namespace).join(name),
            other => bail!("the server names a namespace {other:?}, which can't be one"),
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

/// The same value with the keys of its mappings in order, whatever the order in which they came.
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
        "A snapshot by `palisade snapshot`, which may replace this directory with --force.\n",
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
        // A temporary directory is for its owner alone; a snapshot is a directory like any other.
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Reads the files back: they must say what the cluster says.
fn reads_back(live: &ClusterSnapshot, dir: &Path) -> Result<()> {
    let options = LoadOptions::default();
    let inputs: Vec<Input> = live.inputs().collect();
    let there = load(&inputs, &options).cluster;
    let here = load(&[Input::Path(dir.to_owned())], &options);
    if let Some(problem) = here.diagnostics.iter().find(|d| d.severity == palisade_manifest::Severity::Error)
    {
        bail!(
            "nothing is written, since this version does not read back all that the cluster has: {problem}"
        );
    }
    let policies = |c: &Cluster| Cluster { policies: c.policies.clone(), ..Cluster::default() };
    let others = |c: Cluster| Cluster { policies: BTreeMap::default(), ..c };
    // Where the policies stand is the one thing that may differ.
    if let Some((policy, _)) =
        diff(&policies(&there), &policies(&here.cluster), false).policies.first_key_value()
    {
        bail!(
            "nothing is written, since {policy} would be read back as another policy: it has something that this version does \
             not know"
        );
    }
    if others(there) != others(here.cluster) {
        bail!(
            "nothing is written, since the files would be read back as another cluster; please report this"
        );
    }
    Ok(())
}

/// Puts the new directory in the place of the old one.
fn replace(new: tempfile::TempDir, dir: &Path) -> io::Result<()> {
    if !dir.exists() {
        fs::rename(new.keep(), dir)?;
        return Ok(());
    }
    // What was there goes where the new one was, and away with it.
    let old = new.path().with_extension("old");
    fs::rename(dir, &old)?;
    if let Err(error) = fs::rename(new.path(), dir) {
        fs::rename(&old, dir)?;
        return Err(error);
    }
    _ = new.keep();
    fs::remove_dir_all(old)
}

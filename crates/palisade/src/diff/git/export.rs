//! Writes a commit to a temporary directory, where it can be rendered.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use palisade_manifest::Input;

use super::{Place, Render, tree};

/// The most files and bytes of a commit that are written.
const FILES: usize = 200_000;
const BYTES: usize = 2 << 30;

/// Renders what is at the place in a commit, and is called `shown` in messages. Empty if there is nothing.
///
/// The whole commit is written, since a kustomization may include others beside it. Symbolic links are left out: they
/// may point anywhere.
pub(super) fn rendered(place: &Place, commit: &str, shown: &str, render: Render<'_>) -> Result<Vec<Input>> {
    let prefix = place.read(&["rev-parse", "--show-prefix"])?;
    let prefix = String::from_utf8_lossy(&prefix).trim_end().to_owned();
    let mut entries = tree::entries(place, &["--full-tree", commit])?;
    entries.retain(|entry| !entry.link);
    if entries.len() > FILES {
        bail!(
            "{shown}: the revision has more than {FILES} files; render it elsewhere, and compare the results"
        );
    }
    let dir = tempfile::tempdir().context("can't make a temporary directory")?;
    let mut written = 0_usize;
    // More of a single file need not be held to know that it is too much.
    tree::blobs(place, &entries, BYTES as u64 + 1, |entry, bytes| {
        written = written.saturating_add(bytes.len());
        if written > BYTES {
            bail!("{shown}: the revision is larger than {} GiB; render it elsewhere", BYTES >> 30);
        }
        let path = Path::new(&entry.name);
        if !path.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
            bail!("{shown}: git returned an unusual path: {:?}", entry.name);
        }
        let path = dir.path().join(path);
        let parent = path.parent().unwrap_or(dir.path());
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, bytes))
            .with_context(|| format!("can't write {}", path.display()))
    })?;
    let inside = dir.path().join(prefix).join(place.inside.as_deref().unwrap_or_default());
    if !inside.exists() {
        return Ok(Vec::new());
    }
    Ok(vec![render(&inside.display().to_string(), shown)?])
}

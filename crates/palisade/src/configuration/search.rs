//! Finds `palisade.toml`.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::ArgMatches;

use super::FILE_ID;

/// The name of the file.
const NAME: &str = "palisade.toml";

/// Returns the file for a command line: the given one, or the next one upwards from the first input. `None` if there is
/// none, or the verb has no settings.
///
/// # Errors
/// When the current directory is not known.
pub(super) fn file(leaf: &ArgMatches) -> Result<Option<PathBuf>> {
    let Ok(given) = leaf.try_get_one::<PathBuf>(FILE_ID) else { return Ok(None) };
    if leaf.try_get_one::<bool>("no_config").ok().flatten().is_some_and(|no| *no) {
        return Ok(None);
    }
    if let Some(given) = given {
        return Ok(Some(given.clone()));
    }
    let inputs =
        ["files", "kustomize", "helm", "paths"].map(|id| leaf.try_get_many::<String>(id).ok().flatten());
    let first = inputs.into_iter().flatten().flatten().find(|input| *input != "-");
    let here = env::current_dir().context("the current directory is not known")?;
    let from = here.join(first.map_or("", String::as_str));
    let found = upwards(&from);
    Ok(found.map(|file| file.strip_prefix(&here).map(Path::to_owned).unwrap_or(file)))
}

/// Returns the next file upwards from a path, up to the root of its repository.
fn upwards(from: &Path) -> Option<PathBuf> {
    let existing = from.ancestors().find_map(|path| path.canonicalize().ok())?;
    for dir in existing.ancestors() {
        let file = dir.join(NAME);
        if file.is_file() {
            return Some(file);
        }
        if dir.join(".git").exists() {
            return None;
        }
    }
    None
}

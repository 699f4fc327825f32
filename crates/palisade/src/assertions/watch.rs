//! `--watch`: checks again whenever a file changes.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Result, bail};

use super::{Test, once};
use crate::{
    exit::Outcome,
    output::{self, Style, styled},
};

/// How often files are looked at.
const PERIOD: Duration = Duration::from_millis(300);

/// What tells whether a file changed.
type Stamp = Vec<(PathBuf, Option<SystemTime>, u64)>;

/// Checks until interrupted. An error doesn't end it: files are often broken while they are edited.
pub(super) fn run(arguments: &Test) -> Result<Outcome> {
    let sources = &arguments.sources;
    if sources.files.is_empty() || sources.files.iter().any(|file| file == "-") {
        bail!("--watch follows files: give the manifests with -f PATH");
    }
    let mut last = None;
    loop {
        let now = stamp(arguments);
        if last.as_ref() != Some(&now) {
            last = Some(now);
            if let Err(error) = once(arguments) {
                output::note(&format!("{} {error:#}\n", styled(Style::Bad, "error:")));
            }
            output::note("waiting for changes (Ctrl-C ends)\n");
        }
        thread::sleep(PERIOD);
    }
}

fn stamp(arguments: &Test) -> Stamp {
    let mut out = Stamp::new();
    let given = arguments.sources.files.iter().map(PathBuf::from);
    for path in arguments.paths.iter().cloned().chain(given) {
        collect(&path, &mut out);
    }
    out.sort();
    out
}

fn collect(path: &Path, out: &mut Stamp) {
    let Ok(metadata) = fs::metadata(path) else { return };
    if !metadata.is_dir() {
        out.push((path.to_owned(), metadata.modified().ok(), metadata.len()));
        return;
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    for entry in entries {
        // A link to a directory above would never end.
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if !is_link || entry.path().is_file() {
            collect(&entry.path(), out);
        }
    }
}

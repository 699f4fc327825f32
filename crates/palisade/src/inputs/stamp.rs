//! What tells whether files changed: their names, times and sizes.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// How often files are looked at by what follows them.
pub(crate) const PERIOD: Duration = Duration::from_millis(300);

/// The state of files and of those below directories at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(Vec<(PathBuf, Option<SystemTime>, u64)>);

impl Stamp {
    /// Looks at files and directories. Those that don't exist are left out. `O(files)`.
    pub(crate) fn of<'a>(paths: impl Iterator<Item = &'a Path>) -> Self {
        let mut out = Vec::new();
        for path in paths {
            collect(path, &mut out);
        }
        out.sort();
        Self(out)
    }
}

fn collect(path: &Path, out: &mut Vec<(PathBuf, Option<SystemTime>, u64)>) {
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

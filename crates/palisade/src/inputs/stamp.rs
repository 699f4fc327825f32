//! What tells whether files changed: their names, times and sizes.

use std::{
    fs::{self, Metadata},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// How often files are looked at by what follows them.
pub(crate) const PERIOD: Duration = Duration::from_millis(300);

/// The state of files and of those below directories at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(Vec<(PathBuf, FileState)>);

/// What tells a file from another one, and from itself with another content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileState {
    modified: Option<SystemTime>,
    size: u64,
    /// Where there are inodes: device, number, and when it changed last in seconds and nanoseconds. Programs that keep the time of
    /// modification can't set that one.
    inode: Option<(u64, u64, i64, i64)>,
}

impl FileState {
    fn of(metadata: &Metadata) -> Self {
        Self { modified: metadata.modified().ok(), size: metadata.len(), inode: inode(metadata) }
    }
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> Option<(u64, u64, i64, i64)> {
    use std::os::unix::fs::MetadataExt as _;
    Some((metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> Option<(u64, u64, i64, i64)> {
    None
}

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

fn collect(path: &Path, out: &mut Vec<(PathBuf, FileState)>) {
    let Ok(metadata) = fs::metadata(path) else { return };
    if !metadata.is_dir() {
        out.push((path.to_owned(), FileState::of(&metadata)));
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// `cp -p`, `rsync -t` and version control keep times.
    #[test]
    fn another_content_of_the_same_size_and_time_differs() {
        let dir = tempfile::TempDir::new().unwrap();
        let [file, other] = ["a.yaml", "b.yaml"].map(|name| dir.path().join(name));
        fs::write(&file, "port: 80").unwrap();
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        let stamp = || Stamp::of([file.as_path()].into_iter());
        let first = stamp();
        fs::write(&other, "port: 81").unwrap();
        fs::File::options().write(true).open(&other).unwrap().set_modified(time).unwrap();
        fs::rename(&other, &file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), time);
        assert_ne!(stamp(), first);
    }
}

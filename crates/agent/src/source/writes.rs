//! Whether files are complete or being written.
//!
//! A file that is written in place may be valid at every moment with different meanings, for instance a policy of which only
//! one of three rules is written. A file counts as complete if
//!
//! * according to inotify, it was closed after its last modification, or was renamed to its name;
//! * or, without such an event (as at the start), its inode has not changed for [`SETTLE_TIME`];
//! * and it is the same file, with the same size and times, before and after it was read.
//!
//! Not detected: a writer that stops in the middle, and one that opens the file again and again. Such writers should write to
//! another name and rename the file.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use notify::{
    Event, EventKind,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};

/// A file without events is complete if it has not changed for this long.
pub(crate) const SETTLE_TIME: Duration = Duration::from_secs(1);

/// The most files of each sort that are remembered before those that are gone or settled are forgotten.
const MAX_FILES: usize = 4096;

/// Identifies the content of a file by its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    fn id(&self) -> FileId {
        (self.device, self.inode)
    }

    /// Whether the inode has not changed for [`SETTLE_TIME`]. Programs can't set its change time. If it is in the future, the
    /// clock was set back.
    fn is_settled(&self, now: SystemTime) -> bool {
        let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(self.changed.0), u32::try_from(self.changed.1))
        else {
            return true;
        };
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        let age = now.duration_since(changed).unwrap_or_else(|e| e.duration());
        age >= SETTLE_TIME
    }
}

/// Device and inode: identifies a file independently of its name.
type FileId = (u64, u64);

/// Which files are open for writing, according to inotify.
#[derive(Debug, Default)]
pub(crate) struct Writes(Mutex<FileStates>);

#[derive(Debug, Default)]
struct FileStates {
    /// Paths of files that were modified and not closed since.
    open: HashSet<PathBuf>,
    /// Files that were closed or renamed to their names, as they were then.
    complete: HashMap<FileId, Fingerprint>,
}

impl Writes {
    /// Records an event of a watched directory. Events must come in order. `None` means that events were lost.
    pub(super) fn record(&self, event: Option<&Event>) {
        let mut states = self.lock();
        let Some(event) = event.filter(|event| !event.need_rescan()) else {
            *states = FileStates::default();
            return;
        };
        let Some(path) = event.paths.last() else { return };
        match event.kind {
            EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) => states.modified(path),
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Any)) => states.completed(path),
            // Follows the event that gives the file its new name. A writer may rename its file before it closes it.
            EventKind::Modify(ModifyKind::Name(RenameMode::Both))
                if event.paths.first().is_some_and(|old| states.open.remove(old)) =>
            {
                states.modified(path);
            }
            // The inode may have belonged to another file.
            EventKind::Create(_) => {
                if let Ok(file) = Fingerprint::of(path) {
                    states.complete.remove(&file.id());
                }
            }
            EventKind::Remove(_) => drop(states.open.remove(path)),
            _ => {}
        }
    }

    /// Returns the files that were modified and are still open.
    fn open(&self) -> HashSet<FileId> {
        let id = |path: &PathBuf| Fingerprint::of(path).ok().map(|file| file.id());
        self.lock().open.iter().filter_map(id).collect()
    }

    /// Whether a file that is not open is as it was when it was closed, or has settled.
    fn is_complete(&self, file: &Fingerprint, now: SystemTime) -> bool {
        self.lock().complete.get(&file.id()) == Some(file) || file.is_settled(now)
    }

    /// Ignores poisoning: at worst the state of a file is wrong until it changes again.
    fn lock(&self) -> MutexGuard<'_, FileStates> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileStates {
    fn modified(&mut self, path: &Path) {
        let file = Fingerprint::of(path).ok();
        // The same event again, from the watch that is about to end.
        if file.is_some_and(|file| self.complete.get(&file.id()) == Some(&file)) {
            return;
        }
        if self.open.len() >= MAX_FILES {
            self.open.retain(|path| path.exists());
        }
        self.open.insert(path.to_owned());
    }

    fn completed(&mut self, path: &Path) {
        self.open.remove(path);
        if self.complete.len() >= MAX_FILES {
            let now = SystemTime::now();
            self.complete.retain(|_, file| !file.is_settled(now));
        }
        if let Ok(file) = Fingerprint::of(path) {
            self.complete.insert(file.id(), file);
        }
    }
}

/// Files with their fingerprints at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot(Vec<(PathBuf, Option<Fingerprint>)>);

impl Snapshot {
    /// Takes the fingerprints of files, without reading their content. `O(files)`.
    pub(super) fn of(files: Vec<PathBuf>) -> Self {
        let with_fingerprint = |path: PathBuf| {
            let file = Fingerprint::of(&path).ok();
            (path, file)
        };
        Self(files.into_iter().map(with_fingerprint).collect())
    }

    /// Returns the first file that may be incomplete.
    pub(super) fn incomplete(&self, writes: &Writes, now: SystemTime) -> Option<&Path> {
        let open = writes.open();
        let is_incomplete = |(_, file): &&(PathBuf, Option<Fingerprint>)| {
            file.as_ref().is_some_and(|file| open.contains(&file.id()) || !writes.is_complete(file, now))
        };
        self.0.iter().find(is_incomplete).map(|(path, _)| &**path)
    }

    /// Returns the first file that differs between two snapshots or is in one only.
    pub(super) fn changed_since<'a>(&'a self, before: &'a Self) -> Option<&'a Path> {
        let differing = self.0.iter().zip(&before.0).find(|(now, then)| now != then);
        let beyond = self.0.get(before.0.len()).or_else(|| before.0.get(self.0.len()));
        differing.map(|(now, _)| now).or(beyond).map(|(path, _)| &**path)
    }
}

//! Whether files are whole, or somebody is writing them.
//!
//! A file that is written in place may be valid at every moment, and mean something else at each: a policy of three rules
//! that has one so far. Three things tell that it is whole:
//!
//! * the kernel's events: since its last modification its writer has closed it, or it was given its name by renaming;
//! * where there was no event, as at the start: its inode has been left alone for [`SETTLE`];
//! * and it is the same file, of the same size and times, before and after it was read.
//!
//! What nothing can tell is a file whose writer stopped half-way for good, or opens it again and again: write to another
//! name and rename.

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

/// A file of which no event told is whole when it was left alone for so long.
pub(crate) const SETTLE: Duration = Duration::from_secs(1);

/// As many files are remembered of each sort before those are forgotten that are gone or have settled.
const REMEMBERED: usize = 4096;

/// A file's content as far as its inode tells it.
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

    fn place(&self) -> Place {
        (self.device, self.inode)
    }

    /// Whether the inode was left alone for [`SETTLE`]. Its change time can't be set by programs; one that lies in the
    /// future comes of a clock that was set back.
    fn is_old(&self) -> bool {
        let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(self.changed.0), u32::try_from(self.changed.1))
        else {
            return true;
        };
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        let age = SystemTime::now().duration_since(changed).unwrap_or_else(|e| e.duration());
        age >= SETTLE
    }
}

/// A file, whatever it is called: device and inode.
type Place = (u64, u64);

/// What the kernel's events said about files.
#[derive(Debug, Default)]
pub(crate) struct Writes(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// Names of files that were modified and not closed since.
    open: HashSet<PathBuf>,
    /// Files that were closed or got their names by renaming, as they were then.
    whole: HashMap<Place, Fingerprint>,
}

impl Writes {
    /// Takes in an event of a watched directory, in their order. None means that events were lost.
    pub(super) fn hear(&self, event: Option<&Event>) {
        let mut told = self.lock();
        let Some(event) = event.filter(|event| !event.need_rescan()) else {
            *told = Told::default();
            return;
        };
        let Some(path) = event.paths.last() else { return };
        match event.kind {
            EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) => told.modified(path),
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Any)) => told.whole(path),
            // Comes after the event that gives the file its new name. A writer may rename its file before it closes it.
            EventKind::Modify(ModifyKind::Name(RenameMode::Both))
                if event.paths.first().is_some_and(|old| told.open.remove(old)) =>
            {
                told.modified(path);
            }
            // An inode may have been another file's.
            EventKind::Create(_) => {
                if let Ok(file) = Fingerprint::of(path) {
                    told.whole.remove(&file.place());
                }
            }
            EventKind::Remove(_) => drop(told.open.remove(path)),
            _ => {}
        }
    }

    /// The files that somebody has open and has modified.
    fn open(&self) -> HashSet<Place> {
        let open = |path: &PathBuf| Fingerprint::of(path).ok().map(|file| file.place());
        self.lock().open.iter().filter_map(open).collect()
    }

    /// Whether a file that nobody writes is as it was when it was closed, or old.
    fn is_whole(&self, file: &Fingerprint) -> bool {
        self.lock().whole.get(&file.place()) == Some(file) || file.is_old()
    }

    /// Whoever panicked while holding it left what may be wrong for a file or two until they change again.
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    fn modified(&mut self, path: &Path) {
        let file = Fingerprint::of(path).ok();
        // Told once more, by a watch that is about to end.
        if file.is_some_and(|file| self.whole.get(&file.place()) == Some(&file)) {
            return;
        }
        if self.open.len() >= REMEMBERED {
            self.open.retain(|path| path.exists());
        }
        self.open.insert(path.to_owned());
    }

    fn whole(&mut self, path: &Path) {
        self.open.remove(path);
        if self.whole.len() >= REMEMBERED {
            self.whole.retain(|_, file| !file.is_old());
        }
        if let Ok(file) = Fingerprint::of(path) {
            self.whole.insert(file.place(), file);
        }
    }
}

/// Files as they are at one moment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Look(Vec<(PathBuf, Option<Fingerprint>)>);

impl Look {
    /// `O(files)`; reads none.
    pub(super) fn at(files: Vec<PathBuf>) -> Self {
        let with = |path: PathBuf| {
            let file = Fingerprint::of(&path).ok();
            (path, file)
        };
        Self(files.into_iter().map(with).collect())
    }

    /// The first file that may not be whole.
    pub(super) fn unsettled(&self, writes: &Writes) -> Option<&Path> {
        let open = writes.open();
        let unsettled = |(_, file): &&(PathBuf, Option<Fingerprint>)| {
            file.as_ref().is_some_and(|file| open.contains(&file.place()) || !writes.is_whole(file))
        };
        self.0.iter().find(unsettled).map(|(path, _)| &**path)
    }

    /// The first file that is not as it was in another look, or not in both.
    pub(super) fn changed_since<'a>(&'a self, before: &'a Self) -> Option<&'a Path> {
        let differing = self.0.iter().zip(&before.0).find(|(now, then)| now != then);
        let beyond = self.0.get(before.0.len()).or_else(|| before.0.get(self.0.len()));
        differing.map(|(now, _)| now).or(beyond).map(|(path, _)| &**path)
    }
}

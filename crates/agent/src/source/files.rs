//! Waiting for manifests to change, wherever editors put them.

use std::{
    io,
    path::{Path, PathBuf, absolute},
    sync::Arc,
    time::{Duration, Instant},
};

use super::settled::Writes;
use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind},
};

/// Saving one file makes several events, and saving many files many: an edit is over when nothing has come for so long.
pub const QUIET: Duration = Duration::from_millis(15);
/// But edits that never end are enforced in between.
pub const LONGEST: Duration = Duration::from_millis(500);
/// How often a vanished path is to be looked for; its parent may be gone too, so no event would tell.
pub const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// Watches files and directories.
///
/// Editors replace files rather than write them, and a directory may be replaced as a whole: so each path's parent is
/// watched too, and [`Watch::follow`] begins anew, because what has a path's name now may not be what is watched.
pub struct Watch {
    paths: Vec<PathBuf>,
    heard: Arc<dyn Fn(Instant) + Send + Sync>,
    writes: Arc<Writes>,
    watcher: Option<RecommendedWatcher>,
    /// The one before, which may still have something to tell that happened before this one began.
    before: Option<RecommendedWatcher>,
}

/// Why files can't be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// A path has no meaning.
    #[error("cannot find {}", path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system has no watches at all.
    #[error("cannot watch files")]
    System(#[source] notify::Error),
    /// Or none left.
    #[error("cannot watch {}; is the sysctl fs.inotify.max_user_watches large enough?", path.display())]
    Refused {
        /// Which path.
        path: PathBuf,
        /// Why.
        #[source]
        source: notify::Error,
    },
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl Watch {
    /// Begins to watch; `heard` is called, on a thread of the watcher's, whenever something at or below the paths changed.
    ///
    /// # Errors
    /// When a path isn't there, or the system has no watches left.
    pub fn begin(
        paths: impl IntoIterator<Item = impl AsRef<Path>>,
        heard: impl Fn(Instant) + Send + Sync + 'static,
    ) -> Result<Self, WatchError> {
        let full =
            |path: &Path| absolute(path).map_err(|source| WatchError::Path { path: path.to_owned(), source });
        let paths = paths.into_iter().map(|p| full(p.as_ref())).collect::<Result<_, _>>()?;
        let mut watch =
            Self { paths, heard: Arc::new(heard), writes: Arc::default(), watcher: None, before: None };
        watch.arm()?;
        Ok(watch)
    }

    /// Watches what the paths are now. To be called after every event, before the files are read: whatever happens
    /// after that is heard.
    ///
    /// # Errors
    /// As [`Watch::begin`].
    pub fn follow(&mut self) -> Result<(), WatchError> {
        self.arm()
    }

    /// What is known about who writes the files.
    pub(crate) fn writes(&self) -> &Writes {
        &self.writes
    }

    /// The first path that is gone.
    #[must_use]
    pub fn missing(&self) -> Option<&Path> {
        self.paths.iter().find(|p| !p.exists()).map(PathBuf::as_path)
    }

    fn arm(&mut self) -> Result<(), WatchError> {
        let (paths, heard, writes) = (self.paths.clone(), Arc::clone(&self.heard), Arc::clone(&self.writes));
        let matters = move |event: notify::Result<notify::Event>| {
            writes.hear(event.as_ref().ok());
            // An error means that events may have been lost: look at the files.
            let matters = event
                .map_or(true, |e| changes_something(e.kind) && e.paths.iter().any(|p| is_below(&paths, p)));
            if matters {
                heard(Instant::now());
            }
        };
        let mut watcher = notify::recommended_watcher(matters).map_err(WatchError::System)?;
        let mut watch = |path: &Path, mode| {
            watcher.watch(path, mode).map_err(|source| WatchError::Refused { path: path.to_owned(), source })
        };
        for path in &self.paths {
            if let Some(parent) = path.parent() {
                watch(parent, RecursiveMode::NonRecursive)?;
            }
            if path.is_dir() {
                watch(path, RecursiveMode::Recursive)?;
            }
        }
        // The one before goes on until the next time, so nothing falls between.
        self.before = self.watcher.replace(watcher);
        Ok(())
    }
}

/// Reading is no change, and we do it ourselves. A file that is being written is read when it is closed, not while it is
/// empty.
fn changes_something(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Modify(modified) => matches!(modified, ModifyKind::Name(_)),
        _ => true,
    }
}

fn is_below(paths: &[PathBuf], changed: &Path) -> bool {
    paths.iter().any(|p| changed.starts_with(p))
}

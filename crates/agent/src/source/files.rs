//! Watches manifests for changes, however editors write them.

use std::{
    io,
    path::{Path, PathBuf, absolute},
    sync::Arc,
    time::{Duration, Instant},
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind},
};

use super::writes::Writes;

/// Saving a file causes several events. An edit has ended when no event has arrived for this long.
pub const QUIET: Duration = Duration::from_millis(15);
/// The longest edit: later events belong to the next one, so that constant edits are enforced too.
pub const LONGEST: Duration = Duration::from_millis(500);
/// How often to look for a path that doesn't exist. Its parent may not exist either, so that there is no event.
pub const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// Watches files and directories.
///
/// Editors replace files rather than write them, and whole directories may be replaced. So the parent of each path is watched
/// too, and [`Watch::follow`] creates new watches for what the paths refer to now.
pub struct Watch {
    paths: Vec<PathBuf>,
    notify: Arc<dyn Fn(Instant) + Send + Sync>,
    writes: Arc<Writes>,
    watcher: Option<RecommendedWatcher>,
    /// The previous watcher, which may still deliver events from before the current one was created.
    previous: Option<RecommendedWatcher>,
}

/// Why files can't be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// A path can't be made absolute.
    #[error("cannot find {}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The system supports no inotify watches.
    #[error("cannot watch files")]
    System(#[source] notify::Error),
    /// A watch was refused, usually because none is left.
    #[error("cannot watch {}; is the sysctl fs.inotify.max_user_watches large enough?", path.display())]
    Refused {
        /// The path.
        path: PathBuf,
        /// The cause.
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
    /// Watches paths. `notify` is called on a separate thread whenever something at or below the paths has changed.
    ///
    /// # Errors
    /// If a path doesn't exist, or the system has no inotify watches left.
    pub fn begin(
        paths: impl IntoIterator<Item = impl AsRef<Path>>,
        notify: impl Fn(Instant) + Send + Sync + 'static,
    ) -> Result<Self, WatchError> {
        let full =
            |path: &Path| absolute(path).map_err(|source| WatchError::Path { path: path.to_owned(), source });
        let paths = paths.into_iter().map(|p| full(p.as_ref())).collect::<Result<_, _>>()?;
        let mut watch =
            Self { paths, notify: Arc::new(notify), writes: Arc::default(), watcher: None, previous: None };
        watch.arm()?;
        Ok(watch)
    }

    /// Watches what the paths refer to now. Must be called after every event, before the files are read, so that later changes
    /// cause events.
    ///
    /// # Errors
    /// As [`Watch::begin`].
    pub fn follow(&mut self) -> Result<(), WatchError> {
        self.arm()
    }

    /// Which of the files are being written.
    pub(crate) fn writes(&self) -> &Writes {
        &self.writes
    }

    /// Returns the first path that doesn't exist.
    #[must_use]
    pub fn missing(&self) -> Option<&Path> {
        self.paths.iter().find(|p| !p.exists()).map(PathBuf::as_path)
    }

    fn arm(&mut self) -> Result<(), WatchError> {
        let (paths, notify, writes) =
            (self.paths.clone(), Arc::clone(&self.notify), Arc::clone(&self.writes));
        let handle = move |event: notify::Result<notify::Event>| {
            writes.record(event.as_ref().ok());
            if may_change(&event, |path| is_below(&paths, path)) {
                notify(Instant::now());
            }
        };
        let mut watcher = notify::recommended_watcher(handle).map_err(WatchError::System)?;
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
        // The previous watcher is kept until the next call, so that no event is lost.
        self.previous = self.watcher.replace(watcher);
        Ok(())
    }
}

/// Whether an event says that a file of interest may have changed. So does an error, and an event without paths that says that the queue of
/// inotify overflowed: others are lost.
pub(crate) fn may_change(
    event: &notify::Result<notify::Event>,
    is_of_interest: impl Fn(&Path) -> bool,
) -> bool {
    let Ok(event) = event else { return true };
    let concerns = || changes_something(event.kind) && event.paths.iter().any(|path| is_of_interest(path));
    event.need_rescan() || concerns()
}

/// Reading is not a change. A file that is being written counts as changed when it is closed.
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

#[cfg(test)]
mod tests {
    use notify::{Event, event::Flag};

    use super::*;

    #[test]
    fn lost_events_count_as_changes_and_readers_do_not() {
        let of = |kind| Event::new(kind).add_path("/dir/a.yaml".into());
        let of_interest = |path: &Path| path.starts_with("/dir");
        let changes = |event| may_change(&event, of_interest);
        assert!(changes(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan))), "the queue overflowed");
        assert!(changes(Err(notify::Error::generic("lost"))));
        assert!(changes(Ok(of(EventKind::Create(notify::event::CreateKind::File)))));
        assert!(changes(Ok(of(EventKind::Access(AccessKind::Close(AccessMode::Write))))));
        assert!(!changes(Ok(of(EventKind::Access(AccessKind::Open(AccessMode::Any))))));
        let elsewhere = Event::new(EventKind::Any).add_path("/other/a.yaml".into());
        assert!(!changes(Ok(elsewhere)));
    }
}

//! Waiting for manifests to change, wherever editors put them.

use std::{
    path::{Path, PathBuf, absolute},
    sync::mpsc::Sender,
    time::Instant,
};

use anyhow::{Context as _, Result};
use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind},
};

use super::up::Event;

/// Watches the paths of a lab.
///
/// Editors replace files rather than write them, and a directory may be replaced as a whole: so each path's parent is
/// watched too, and [`Watch::follow`] begins anew, because what has a path's name now may not be what is watched.
pub(crate) struct Watch {
    paths: Vec<PathBuf>,
    events: Sender<Event>,
    watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Begins to watch.
    ///
    /// # Errors
    /// When a path isn't there, or the system has no watches left.
    pub(crate) fn begin(paths: &[String], events: Sender<Event>) -> Result<Self> {
        let paths: Vec<PathBuf> = paths
            .iter()
            .map(|p| absolute(p).with_context(|| format!("can't find {p}")))
            .collect::<Result<_>>()?;
        let mut watch = Self { paths, events, watcher: None };
        watch.arm()?;
        Ok(watch)
    }

    /// Watches what the paths are now. To be called after every event, before the files are read: whatever happens
    /// after that is heard.
    ///
    /// # Errors
    /// As [`Watch::begin`].
    pub(crate) fn follow(&mut self) -> Result<()> {
        self.arm()
    }

    /// The first path that is gone.
    pub(crate) fn missing(&self) -> Option<&Path> {
        self.paths.iter().find(|p| !p.exists()).map(PathBuf::as_path)
    }

    fn arm(&mut self) -> Result<()> {
        let (paths, events) = (self.paths.clone(), self.events.clone());
        let heard = move |event: notify::Result<notify::Event>| {
            // An error means that events may have been lost: look at the files.
            let matters = event
                .map_or(true, |e| changes_something(e.kind) && e.paths.iter().any(|p| is_below(&paths, p)));
            if matters {
                // Nobody listens any more once the lab ends.
                _ = events.send(Event::Files(Instant::now()));
            }
        };
        let mut watcher = notify::recommended_watcher(heard).context("can't watch files")?;
        for path in &self.paths {
            if let Some(parent) = path.parent() {
                watcher.watch(parent, RecursiveMode::NonRecursive).with_context(|| watching(parent))?;
            }
            if path.is_dir() {
                watcher.watch(path, RecursiveMode::Recursive).with_context(|| watching(path))?;
            }
        }
        // The one before stops only now, so nothing falls between.
        self.watcher = Some(watcher);
        Ok(())
    }
}

fn watching(path: &Path) -> String {
    format!("can't watch {}; is the sysctl fs.inotify.max_user_watches large enough?", path.display())
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

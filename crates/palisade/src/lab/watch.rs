//! Waiting for manifests to change, wherever editors put them.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf, absolute},
    sync::mpsc::Sender,
    time::Instant,
};

use anyhow::{Context as _, Result};
use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};

use super::up::Event;

/// Watches the paths of a lab.
///
/// Editors replace files rather than write them, and a directory may be replaced as a whole: so each path's parent is
/// watched too, and [`Watch::follow`] begins again when a path isn't any more what it was.
pub(crate) struct Watch {
    paths: Vec<PathBuf>,
    events: Sender<Event>,
    identities: Vec<Option<(u64, u64)>>,
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
        let mut watch = Self { paths, events, identities: Vec::new(), watcher: None };
        watch.arm()?;
        Ok(watch)
    }

    /// Watches what the paths are now. To be called after every event.
    ///
    /// # Errors
    /// As [`Watch::begin`].
    pub(crate) fn follow(&mut self) -> Result<()> {
        if self.identities != self.identities_now() && self.missing().is_none() {
            self.arm()?;
        }
        Ok(())
    }

    /// The first path that is gone.
    pub(crate) fn missing(&self) -> Option<&Path> {
        self.paths.iter().find(|p| !p.exists()).map(PathBuf::as_path)
    }

    fn identities_now(&self) -> Vec<Option<(u64, u64)>> {
        self.paths.iter().map(|p| fs::metadata(p).ok().filter(fs::Metadata::is_dir).map(|m| (m.dev(), m.ino()))).collect()
    }

    fn arm(&mut self) -> Result<()> {
        let (paths, events) = (self.paths.clone(), self.events.clone());
        let heard = move |event: notify::Result<notify::Event>| {
            // An error means that events may have been lost: look at the files.
            let matters = event.map_or(true, |e| changes_something(e.kind) && e.paths.iter().any(|p| is_below(&paths, p)));
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
        self.watcher = Some(watcher);
        self.identities = self.identities_now();
        Ok(())
    }
}

fn watching(path: &Path) -> String {
    format!("can't watch {}; is the sysctl fs.inotify.max_user_watches large enough?", path.display())
}

/// Reading is no change, and we do it ourselves.
fn changes_something(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

fn is_below(paths: &[PathBuf], changed: &Path) -> bool {
    paths.iter().any(|p| changed.starts_with(p))
}

//! A directory of manifests as a source: for machines without a cluster.
//!
//! Every change reads the whole directory again and tells it as a new [`Event::Snapshot`]; the agent's reconciler finds what
//! differs from the one cluster that it keeps, so no second copy lives here. While a file is broken, or nothing is
//! there, the last good state stays in force, and the watches of all kinds are said to fail. The same holds while a file is
//! being written: what is taken in is one state of the directory, as a whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use palisade_api::{Event, Kind, ObjectRef, WatchState};
use palisade_manifest::{Diagnostic, Input, LoadOptions, Loaded, Severity};
use palisade_policy::Cluster;

use super::{
    Heard,
    files::{LONGEST, LOOK_AGAIN, QUIET, Watch, WatchError},
    settled::{Look, SETTLE, Writes},
};

/// How often files that may not be whole are looked at again.
const SETTLING: Duration = Duration::from_millis(50);
/// Files that are not whole for so long are named; and who reads once doesn't wait for longer.
const UNSETTLED: Duration = Duration::from_secs(3);
const _: () = assert!(UNSETTLED.as_millis() > 2 * SETTLE.as_millis());

/// A directory that can't be used at all.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It can't be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// What is in it can't be used.
    #[error("{0}")]
    Unusable(String),
    /// The system gives no thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// Reads the manifests once, when all of them are whole.
///
/// # Errors
/// When something is broken or being written, or nothing is there. What is merely doubtful is handed back beside the
/// cluster.
pub fn read(path: &Path) -> Result<(Cluster, Vec<Diagnostic>), DirectoryError> {
    let (begin, writes) = (Instant::now(), Writes::default());
    loop {
        match load(path, &writes) {
            Ok(loaded) => {
                return match unusable(path, &loaded) {
                    None => Ok((loaded.cluster, loaded.diagnostics)),
                    Some(why) => Err(DirectoryError::Unusable(why)),
                };
            }
            Err(unsettled) if begin.elapsed() >= UNSETTLED => {
                return Err(DirectoryError::Unusable(unsettled.to_string()));
            }
            Err(_) => thread::sleep(SETTLING),
        }
    }
}

/// Follows the manifests at `path` on a thread of its own, which ends when `tell` says that nobody listens any more.
///
/// # Errors
/// When the path can't be watched: it isn't there, or the system has no watches left.
pub fn follow(path: PathBuf, tell: impl Fn(Heard) -> bool + Send + 'static) -> Result<(), DirectoryError> {
    let (events, changed) = mpsc::channel();
    let heard = move |at| {
        // Nobody listens any more once the process ends.
        _ = events.send(at);
    };
    let watch = Watch::begin([&path], heard)?;
    let mut following = Following {
        path,
        watch,
        changed,
        said: BTreeSet::new(),
        state: None,
        broken: false,
        unsettled: None,
        armed: true,
        tell,
    };
    let run = move || following.run();
    thread::Builder::new().name("palisade-files".into()).spawn(run).map_err(DirectoryError::Thread)?;
    Ok(())
}

struct Following<T> {
    path: PathBuf,
    watch: Watch,
    changed: Receiver<Instant>,
    /// The objects of which findings were told.
    said: BTreeSet<ObjectRef>,
    state: Option<WatchState>,
    /// Whether the path was read, and what is in it can't be used.
    broken: bool,
    /// Since when files were not whole whenever they were looked at, and when the first of them changed.
    unsettled: Option<Unsettled>,
    /// Whether what is watched is what was read last.
    armed: bool,
    tell: T,
}

/// Nobody listens any more.
struct Deaf;

/// Files that have to be looked at again.
#[derive(Clone, Copy)]
struct Unsettled {
    since: Instant,
    changed: Option<Instant>,
}

/// A file that may not be whole.
#[derive(Debug, thiserror::Error)]
#[error("{} is being written", .0.display())]
struct NotWhole(PathBuf);

impl<T: Fn(Heard) -> bool> Following<T> {
    fn run(&mut self) {
        // An edit between the beginning of the watch and the first reading is heard and read twice: that does no harm.
        let mut first = Some(Instant::now());
        while self.reload(first.take()).is_ok() {
            let Some(at) = self.next() else { return };
            first = at;
        }
    }

    /// Waits for an edit to begin and to be over; gives its beginning, which is unknown for a path that came back.
    fn next(&mut self) -> Option<Option<Instant>> {
        let patience = match self.unsettled {
            Some(_) => SETTLING,
            None if self.is_up() => Duration::from_secs(3600),
            None => LOOK_AGAIN,
        };
        let first = match self.changed.recv_timeout(patience) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => {
                self.armed &= self.unsettled.is_some();
                return Some(self.unsettled.and_then(|unsettled| unsettled.changed));
            }
            Err(RecvTimeoutError::Disconnected) => return None,
        };
        self.armed = false;
        while first.elapsed() < LONGEST && self.changed.recv_timeout(QUIET).is_ok() {}
        Some(Some(first))
    }

    fn is_up(&self) -> bool {
        self.state == Some(WatchState::Watching)
    }

    fn reload(&mut self, changed: Option<Instant>) -> Result<(), Deaf> {
        if let Some(path) = self.watch.missing() {
            self.broken = false;
            self.unsettled = None;
            let why = format!("{} is gone: the last state stays in force until it returns", path.display());
            return self.turn(&WatchState::Failing { why });
        }
        // Read only what changed: a directory that stays broken is not read three times a second.
        if changed.is_none() && self.broken && self.unsettled.is_none() {
            return Ok(());
        }
        self.broken = false;
        let waiting = self.unsettled.take();
        let changed = waiting.and_then(|waiting| waiting.changed).or(changed);
        if !self.armed
            && let Err(error) = self.watch.follow()
        {
            return self.turn(&WatchState::Failing { why: crate::words::with_causes(&error) });
        }
        self.armed = true;
        let loaded = match load(&self.path, self.watch.writes()) {
            Ok(loaded) => loaded,
            Err(not_whole) => {
                let since = waiting.map_or_else(Instant::now, |waiting| waiting.since);
                self.unsettled = Some(Unsettled { since, changed });
                if since.elapsed() < UNSETTLED {
                    return Ok(());
                }
                let why = format!(
                    "{not_whole}: the last good state stays in force until the file is closed, or was left alone for {} s",
                    SETTLE.as_secs()
                );
                return self.turn(&WatchState::Failing { why });
            }
        };
        self.tell_findings(&loaded.diagnostics)?;
        if let Some(why) = unusable(&self.path, &loaded) {
            self.broken = true;
            return self
                .turn(&WatchState::Failing { why: format!("{why}; the last good state stays in force") });
        }
        let event = Event::Snapshot(Box::new(loaded.cluster));
        self.say(Heard { event, at: changed.unwrap_or_else(Instant::now) })?;
        self.turn(&WatchState::Watching)
    }

    fn turn(&mut self, state: &WatchState) -> Result<(), Deaf> {
        if self.state.as_ref() == Some(state) {
            return Ok(());
        }
        self.state = Some(state.clone());
        Kind::ALL.into_iter().try_for_each(|kind| self.hear(Event::Watch { kind, state: state.clone() }))
    }

    /// Tells what is wrong with which object now, and which are well again.
    fn tell_findings(&mut self, found: &[Diagnostic]) -> Result<(), Deaf> {
        let mut by_object: BTreeMap<ObjectRef, Vec<Diagnostic>> = BTreeMap::new();
        for diagnostic in found {
            if let Some(object) = object_of(diagnostic) {
                by_object.entry(object).or_default().push(diagnostic.clone());
            }
        }
        let now: BTreeSet<ObjectRef> = by_object.keys().cloned().collect();
        let well = self.said.difference(&now).cloned().map(|object| (object, Vec::new()));
        for (object, findings) in well.chain(by_object).collect::<Vec<_>>() {
            self.hear(Event::Findings { object, findings })?;
        }
        self.said = now;
        Ok(())
    }

    fn hear(&self, event: Event) -> Result<(), Deaf> {
        self.say(Heard::now(event))
    }

    fn say(&self, heard: Heard) -> Result<(), Deaf> {
        if (self.tell)(heard) { Ok(()) } else { Err(Deaf) }
    }
}

/// Reads the files, if they are whole and stay as they are meanwhile.
fn load(path: &Path, writes: &Writes) -> Result<Loaded, NotWhole> {
    // Pods have the addresses that their status says, and no others: made-up ones are nobody's.
    let options = LoadOptions { addresses: None, regular_files: true, ..LoadOptions::default() };
    let look = || Look::at(palisade_manifest::files(path, &options));
    let not_whole = |path: &Path| Err(NotWhole(path.to_owned()));
    let before = look();
    if let Some(path) = before.unsettled(writes) {
        return not_whole(path);
    }
    let loaded = palisade_manifest::load(&[Input::Path(path.to_owned())], &options);
    let after = look();
    match after.changed_since(&before).or_else(|| after.unsettled(writes)) {
        Some(path) => not_whole(path),
        None => Ok(loaded),
    }
}

/// Why what was read must not be enforced.
fn unusable(path: &Path, loaded: &Loaded) -> Option<String> {
    let (errors, _) = loaded.tally();
    if let Some(first) = loaded.diagnostics.iter().find(|d| d.severity == Severity::Error) {
        let more = if errors > 1 { format!(" (and {} more)", errors - 1) } else { String::new() };
        return Some(format!("{first}{more}"));
    }
    // An empty directory is more often a mount that failed than a wish for no policies.
    loaded.counts.objects.is_empty().then(|| format!("there are no manifests in {}", path.display()))
}

/// The object of a finding, from its words: `NetworkPolicy shop/p`.
fn object_of(diagnostic: &Diagnostic) -> Option<ObjectRef> {
    let (kind, name) = diagnostic.object.as_deref()?.split_once(' ')?;
    let kind = Kind::ALL.into_iter().find(|k| k.as_str() == kind)?;
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace.into()), name),
        None => (None, name),
    };
    Some(ObjectRef { kind, namespace, name: name.into(), uid: "".into(), generation: 0 })
}

#[cfg(test)]
mod tests;

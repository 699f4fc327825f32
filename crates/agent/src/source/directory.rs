//! A directory of manifests as a source, for machines without a cluster.
//!
//! Every change reads the whole directory again and delivers it as a new [`Event::Snapshot`]. The agent's reconciler finds the
//! difference to the cluster that it holds, so this module keeps no copy. While a file is invalid, or there are no
//! manifests, the last valid state stays in place and the watches of all kinds are reported as failing. The same applies while
//! a file is being written: a snapshot is one state of the directory as a whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use palisade_api::{Event, ObjectRef, ResourceKind, WatchState};
use palisade_manifest::{Diagnostic, Input, LoadOptions, Loaded, Severity};
use palisade_policy::Cluster;

use super::{
    Delivery,
    files::{LONGEST, LOOK_AGAIN, QUIET, Watch, WatchError},
    writes::{SETTLE_TIME, Snapshot, Writes},
};
use crate::error_chain;

/// How often files that may be incomplete are checked again.
const RECHECK: Duration = Duration::from_millis(50);
/// Files that are incomplete for this long are reported, and [`read`] fails.
const REPORT_AFTER: Duration = Duration::from_secs(3);
/// How often files are compared with those that were read last. Some changes cause no event: those of a file behind a symbolic link, and those on
/// network file systems.
const COMPARE_INTERVAL: Duration = Duration::from_secs(5);
const _: () = assert!(REPORT_AFTER.as_millis() > 2 * SETTLE_TIME.as_millis());

/// Why a directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It can't be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// Its content can't be used.
    #[error("{0}")]
    Unusable(String),
    /// The system refused a thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// The clock of a source. Tests replace it.
trait Clock {
    /// The time on a clock that never jumps.
    fn now(&self) -> Instant;
    /// The time with which inode times are compared.
    fn system_time(&self) -> SystemTime;
    fn sleep(&self, duration: Duration);
}

#[derive(Clone, Copy, Debug)]
struct RealClock;

impl Clock for RealClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn system_time(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&self, duration: Duration) {
        thread::sleep(duration);
    }
}

/// Reads the manifests once, as soon as all files are complete. Returns warnings beside the cluster.
///
/// # Errors
/// If a file is invalid or being written, or there are no manifests.
pub fn read(path: &Path) -> Result<(Cluster, Vec<Diagnostic>), DirectoryError> {
    read_with(path, &RealClock)
}

fn read_with(path: &Path, clock: &impl Clock) -> Result<(Cluster, Vec<Diagnostic>), DirectoryError> {
    let (begin, writes) = (clock.now(), Writes::default());
    loop {
        match load(path, &writes, clock.system_time()) {
            Ok((loaded, _)) => {
                return match unusable(path, &loaded) {
                    None => Ok((loaded.cluster, loaded.diagnostics)),
                    Some(why) => Err(DirectoryError::Unusable(why)),
                };
            }
            Err(incomplete) if clock.now().saturating_duration_since(begin) >= REPORT_AFTER => {
                return Err(DirectoryError::Unusable(incomplete.to_string()));
            }
            Err(_) => clock.sleep(RECHECK),
        }
    }
}

/// Follows the manifests at `path` on a separate thread, which ends when `deliver` returns false.
///
/// # Errors
/// If the path can't be watched: it doesn't exist, or the system has no inotify watches left.
pub fn follow(
    path: PathBuf,
    deliver: impl Fn(Delivery) -> bool + Send + 'static,
) -> Result<(), DirectoryError> {
    follow_with(path, deliver, RealClock)
}

fn follow_with(
    path: PathBuf,
    deliver: impl Fn(Delivery) -> bool + Send + 'static,
    clock: impl Clock + Send + 'static,
) -> Result<(), DirectoryError> {
    let mut follower = Follower::new(path, deliver, clock)?;
    let run = move || follower.run();
    thread::Builder::new().name("palisade-files".into()).spawn(run).map_err(DirectoryError::Thread)?;
    Ok(())
}

struct Follower<D, C> {
    path: PathBuf,
    watch: Watch,
    changed: Receiver<Instant>,
    /// The objects that have findings.
    objects_with_findings: BTreeSet<ObjectRef>,
    state: Option<WatchState>,
    /// Whether the directory was read and its content can't be used.
    is_unusable: bool,
    /// Set while files are incomplete.
    incomplete: Option<Incomplete>,
    /// Whether the inotify watches are those of the paths that were read last.
    is_armed: bool,
    /// The files as they were read last, and when they were compared with it.
    read: Snapshot,
    compared: Instant,
    deliver: D,
    clock: C,
}

/// The receiver of deliveries is gone.
struct Disconnected;

/// Files that may be incomplete have to be checked again.
#[derive(Clone, Copy)]
struct Incomplete {
    since: Instant,
    /// When the first of the changes happened that have not been read yet.
    changed: Option<Instant>,
}

/// A file that may be incomplete.
#[derive(Debug, thiserror::Error)]
#[error("{} is being written", .0.display())]
struct BeingWritten(PathBuf);

impl<D: Fn(Delivery) -> bool, C: Clock> Follower<D, C> {
    fn new(path: PathBuf, deliver: D, clock: C) -> Result<Self, DirectoryError> {
        let (events, changed) = mpsc::channel();
        let notify = move |at| {
            // The receiver is gone once the process ends.
            _ = events.send(at);
        };
        let watch = Watch::begin([&path], notify)?;
        Ok(Self {
            path,
            watch,
            changed,
            objects_with_findings: BTreeSet::new(),
            state: None,
            is_unusable: false,
            incomplete: None,
            is_armed: true,
            read: Snapshot::default(),
            compared: clock.now(),
            deliver,
            clock,
        })
    }

    fn run(&mut self) {
        // An edit between the start of the watch and the first reading is read twice, which is harmless.
        let mut first = Some(self.clock.now());
        while self.reload(first.take()).is_ok() {
            let Some(at) = self.next() else { return };
            first = at;
        }
    }

    /// Waits until an edit has begun and ended, or files must be checked again. Returns when the edit began: `None` for a path
    /// that exists again.
    fn next(&mut self) -> Option<Option<Instant>> {
        let timeout = match self.incomplete {
            Some(_) => RECHECK,
            None if self.is_up() => {
                COMPARE_INTERVAL.saturating_sub(self.clock.now().saturating_duration_since(self.compared))
            }
            None => LOOK_AGAIN,
        };
        let first = match self.changed.recv_timeout(timeout) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => {
                if self.incomplete.is_none() && self.differs() {
                    self.is_armed = false;
                    return Some(Some(self.clock.now()));
                }
                self.is_armed &= self.incomplete.is_some();
                return Some(self.incomplete.and_then(|incomplete| incomplete.changed));
            }
            Err(RecvTimeoutError::Disconnected) => return None,
        };
        self.is_armed = false;
        while first.elapsed() < LONGEST && self.changed.recv_timeout(QUIET).is_ok() {}
        Some(Some(first))
    }

    /// Compares the files with those that were read last, if that is due.
    fn differs(&mut self) -> bool {
        let now = self.clock.now();
        if now.saturating_duration_since(self.compared) < COMPARE_INTERVAL {
            return false;
        }
        self.compared = now;
        snapshot(&self.path).changed_since(&self.read).is_some()
    }

    fn is_up(&self) -> bool {
        self.state == Some(WatchState::Watching)
    }

    fn reload(&mut self, changed: Option<Instant>) -> Result<(), Disconnected> {
        if let Some(path) = self.watch.missing() {
            self.is_unusable = false;
            self.incomplete = None;
            let why = format!(
                "{} does not exist: the last valid state stays in place until it does",
                path.display()
            );
            return self.set_state(&WatchState::Failing { why });
        }
        // Without a change there is nothing to read again: a directory that stays as it is, valid or not, is not read three times a second.
        if changed.is_none() && (self.is_unusable || self.is_up()) && self.incomplete.is_none() {
            return Ok(());
        }
        self.is_unusable = false;
        let incomplete = self.incomplete.take();
        let changed = incomplete.and_then(|incomplete| incomplete.changed).or(changed);
        if !self.is_armed
            && let Err(error) = self.watch.follow()
        {
            return self.set_state(&WatchState::Failing { why: error_chain::with_causes(&error) });
        }
        self.is_armed = true;
        let now = self.clock.now();
        let loaded = match load(&self.path, self.watch.writes(), self.clock.system_time()) {
            Ok((loaded, read)) => {
                self.read = read;
                loaded
            }
            Err(being_written) => {
                let since = incomplete.map_or(now, |incomplete| incomplete.since);
                self.incomplete = Some(Incomplete { since, changed });
                if now.saturating_duration_since(since) < REPORT_AFTER {
                    return Ok(());
                }
                let why = format!(
                    "{being_written}: the last valid state stays in place until the file is closed, or has not changed for {} s",
                    SETTLE_TIME.as_secs()
                );
                return self.set_state(&WatchState::Failing { why });
            }
        };
        self.deliver_findings(&loaded.diagnostics)?;
        if let Some(why) = unusable(&self.path, &loaded) {
            self.is_unusable = true;
            let why = format!("{why}; the last valid state stays in place");
            return self.set_state(&WatchState::Failing { why });
        }
        let event = Event::Snapshot(Box::new(loaded.cluster));
        self.deliver(Delivery { event, received: changed.unwrap_or(now) })?;
        self.set_state(&WatchState::Watching)
    }

    fn set_state(&mut self, state: &WatchState) -> Result<(), Disconnected> {
        if self.state.as_ref() == Some(state) {
            return Ok(());
        }
        self.state = Some(state.clone());
        ResourceKind::for_verdicts()
            .try_for_each(|kind| self.deliver_now(Event::Watch { kind, state: state.clone() }))
    }

    /// Delivers the findings of each object, and that objects have none any longer.
    fn deliver_findings(&mut self, found: &[Diagnostic]) -> Result<(), Disconnected> {
        let mut by_object: BTreeMap<ObjectRef, Vec<Diagnostic>> = BTreeMap::new();
        for diagnostic in found {
            if let Some(object) = object_of(diagnostic) {
                by_object.entry(object).or_default().push(diagnostic.clone());
            }
        }
        let now: BTreeSet<ObjectRef> = by_object.keys().cloned().collect();
        let valid = self.objects_with_findings.difference(&now).cloned().map(|object| (object, Vec::new()));
        for (object, findings) in valid.chain(by_object).collect::<Vec<_>>() {
            self.deliver_now(Event::Findings { object, findings })?;
        }
        self.objects_with_findings = now;
        Ok(())
    }

    fn deliver_now(&self, event: Event) -> Result<(), Disconnected> {
        self.deliver(Delivery::now(event))
    }

    fn deliver(&self, delivery: Delivery) -> Result<(), Disconnected> {
        if (self.deliver)(delivery) { Ok(()) } else { Err(Disconnected) }
    }
}

/// How files are read.
fn options() -> LoadOptions {
    // Pods have only the addresses in their status. Generated ones would belong to no pod.
    LoadOptions { addresses: None, regular_files: true, only_manifests: true, ..LoadOptions::default() }
}

fn snapshot(path: &Path) -> Snapshot {
    Snapshot::of(palisade_manifest::files(path, &options()))
}

/// Reads the files if they are complete and don't change meanwhile. Returns how they were at that moment, too.
fn load(path: &Path, writes: &Writes, now: SystemTime) -> Result<(Loaded, Snapshot), BeingWritten> {
    let being_written = |path: &Path| Err(BeingWritten(path.to_owned()));
    let before = snapshot(path);
    if let Some(path) = before.incomplete(writes, now) {
        return being_written(path);
    }
    let loaded = palisade_manifest::load(&[Input::Path(path.to_owned())], &options());
    let after = snapshot(path);
    match after.changed_since(&before).or_else(|| after.incomplete(writes, now)) {
        Some(path) => being_written(path),
        None => Ok((loaded, after)),
    }
}

/// Why the manifests must not be enforced, if so.
fn unusable(path: &Path, loaded: &Loaded) -> Option<String> {
    let (errors, _) = loaded.tally();
    if let Some(first) = loaded.diagnostics.iter().find(|d| d.severity == Severity::Error) {
        let more = if errors > 1 { format!(" (and {} more)", errors - 1) } else { String::new() };
        let place = first.location().map(|place| format!("{place}: ")).unwrap_or_default();
        return Some(format!("{place}{}{more}", first.headline()));
    }
    // An empty directory is more often a failed mount than intended.
    loaded.counts.objects.is_empty().then(|| format!("there are no manifests in {}", path.display()))
}

/// Returns the object of a finding, parsed from its text: `NetworkPolicy shop/p`.
fn object_of(diagnostic: &Diagnostic) -> Option<ObjectRef> {
    let (kind, name) = diagnostic.object.as_deref()?.split_once(' ')?;
    let kind = ResourceKind::from_name(kind)?;
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace.into()), name),
        None => (None, name),
    };
    Some(ObjectRef { kind, namespace, name: name.into(), uid: "".into(), generation: 0 })
}

#[cfg(test)]
mod tests;

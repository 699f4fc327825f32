//! What `palisade node status` and `palisade node errors` show about failures: states of watches, recent errors, and findings
//! about objects. Changes are logged here.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Display,
    sync::Arc,
    time::{Instant, SystemTime},
};

use palisade_api::{ObjectRef, ResourceKind, WatchState};
use palisade_manifest::{Code, Diagnostic, Severity, collapse};
use palisade_policy::{Change, Name};

use crate::{
    metrics::{KindLabel, Metrics, StageLabel},
    socket::{ErrorView, Errors, ObjectError, WatchView},
};

/// The number of recent errors that are kept.
const MAX_ERRORS: usize = 100;

/// Kind, namespace and name: identifies an object across generations.
type ObjectId = (ResourceKind, Option<Name>, Name);

#[derive(Debug)]
pub(crate) struct ErrorLog {
    metrics: Arc<Metrics>,
    errors: VecDeque<ErrorView>,
    objects: BTreeMap<ObjectId, Vec<Diagnostic>>,
    watches: BTreeMap<ResourceKind, (WatchState, Instant)>,
}

impl ErrorLog {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, errors: VecDeque::new(), objects: BTreeMap::new(), watches: BTreeMap::new() }
    }

    /// Counts and keeps an error, which the caller has logged.
    pub(crate) fn record(&mut self, stage: &'static str, message: String) {
        self.metrics.errors.get_or_create(&StageLabel { stage }).inc();
        if self.errors.len() == MAX_ERRORS {
            self.errors.pop_front();
        }
        let time = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_secs());
        self.errors.push_back(ErrorView { time, stage: stage.to_owned(), message });
    }

    /// The number of kept errors of the last hour.
    pub(crate) fn in_last_hour(&self) -> usize {
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_secs());
        self.errors.iter().filter(|error| error.time + 3600 >= now).count()
    }

    /// Applies new states of watches. Kinds that share a new state share one log line: a lost API server affects all.
    pub(crate) fn set_watch_states(&mut self, states: Vec<(ResourceKind, WatchState)>) {
        let mut changed: Vec<(WatchState, Vec<ResourceKind>)> = Vec::new();
        for (kind, state) in states {
            let before = self.watches.insert(kind, (state.clone(), Instant::now())).map(|(state, _)| state);
            self.count_watch(kind, before.as_ref(), &state);
            if before.as_ref() == Some(&state) {
                continue;
            }
            if state == WatchState::NotServed && before == Some(WatchState::Disappeared) {
                tracing::info!(%kind, "definition was deleted, the policies of this kind are removed");
                continue;
            }
            let state = without_kind(state);
            match changed.iter_mut().find(|(other, _)| *other == state) {
                Some((_, kinds)) => kinds.push(kind),
                None => changed.push((state, vec![kind])),
            }
        }
        for (state, kinds) in changed {
            let kinds: Vec<&str> = kinds.into_iter().map(ResourceKind::as_str).collect();
            let kind = kinds.join(", ");
            match state {
                WatchState::Listing => tracing::debug!(kind, "listing objects"),
                WatchState::Watching => tracing::info!(kind, "watching objects"),
                WatchState::NotServed => tracing::info!(kind, "kind is not served by this cluster"),
                WatchState::Disappeared => {
                    tracing::info!(
                        kind,
                        "kind is no longer served, its policies stay in effect until that is confirmed"
                    );
                }
                WatchState::Failing { why: err } => {
                    tracing::error!(kind, err, "watch failed, retrying");
                    self.record("source", format!("{kind}: {err}"));
                }
            }
        }
    }

    fn count_watch(&self, kind: ResourceKind, before: Option<&WatchState>, now: &WatchState) {
        let label = KindLabel::from(kind);
        let up = &self.metrics.watch_up;
        match now {
            WatchState::NotServed => drop(up.remove(&label)),
            state => drop(up.get_or_create(&label).set(i64::from(*state == WatchState::Watching))),
        }
        let is_relist = *now == WatchState::Listing && before.is_some_and(|b| *b != WatchState::NotServed);
        if is_relist && before != Some(&WatchState::Listing) {
            self.metrics.watch_restarts.get_or_create(&label).inc();
        }
    }

    /// Replaces the findings about objects.
    pub(crate) fn set_findings(&mut self, findings: Vec<(ObjectRef, Vec<Diagnostic>)>) {
        for (object, found) in findings {
            // One object may have as many findings as it has bytes.
            let found = collapse(&found);
            let id = (object.kind, object.namespace.clone(), object.name.clone());
            if found.is_empty() {
                if self.objects.remove(&id).is_some() {
                    tracing::info!(%object, "object is valid again or was deleted");
                }
            } else if self.objects.get(&id) != Some(&found) {
                found.iter().for_each(|finding| log_finding(&object, finding));
                self.objects.insert(id, found);
            }
        }
        for kind in ResourceKind::for_verdicts() {
            let unusable = self.objects.iter().filter(|((k, ..), found)| *k == kind && is_unusable(found));
            let count = unusable.count() as i64;
            let label = KindLabel::from(kind);
            if count > 0 || self.metrics.unusable_objects.get(&label).is_some() {
                self.metrics.unusable_objects.get_or_create(&label).set(count);
            }
        }
    }

    /// Counts changes from the source, by kind.
    pub(crate) fn count_changes(&self, changes: &[Change]) {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for change in changes {
            *counts.entry(kind_of(change)).or_default() += 1;
        }
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0.0, |t| t.as_secs_f64());
        for (kind, count) in counts {
            let Some(kind) = ResourceKind::from_name(kind) else { continue };
            self.metrics.watch_events.get_or_create(&kind.into()).inc_by(count);
            self.metrics.watch_last_event.get_or_create(&kind.into()).set(now);
        }
    }

    /// The number of objects that can't be used as they are.
    pub(crate) fn unusable_objects(&self) -> usize {
        self.objects.values().filter(|found| is_unusable(found)).count()
    }

    pub(crate) fn watch_views(&self) -> Vec<WatchView> {
        let view = |(kind, (state, since)): (&ResourceKind, &(WatchState, Instant))| WatchView {
            kind: kind.to_string(),
            state: state_name(state).to_owned(),
            why: match state {
                WatchState::Failing { why } => Some(why.clone()),
                _ => None,
            },
            for_seconds: since.elapsed().as_secs(),
        };
        self.watches.iter().map(view).collect()
    }

    pub(crate) fn errors(&self) -> Errors {
        let object_errors = |((kind, namespace, name), found): (&ObjectId, &Vec<Diagnostic>)| {
            let object = match namespace {
                Some(namespace) => format!("{kind} {namespace}/{name}"),
                None => format!("{kind} {name}"),
            };
            let error = |finding: &Diagnostic| ObjectError {
                object: object.clone(),
                severity: finding.severity.to_string(),
                path: finding.path.clone(),
                message: finding.message.clone(),
            };
            found.iter().map(error).collect::<Vec<_>>()
        };
        Errors {
            events: self.errors.iter().cloned().collect(),
            objects: self.objects.iter().flat_map(object_errors).collect(),
        }
    }
}

/// Removes the kind from a failure's text. The log line lists the kinds, so that equal failures are grouped.
fn without_kind(state: WatchState) -> WatchState {
    match state {
        WatchState::Failing { why } => {
            let cause = why.strip_prefix("cannot watch ").and_then(|rest| rest.split_once(": "));
            WatchState::Failing { why: cause.map_or(why.clone(), |(_, cause)| cause.to_owned()) }
        }
        other => other,
    }
}

fn state_name(state: &WatchState) -> &'static str {
    match state {
        WatchState::Listing => "listing",
        WatchState::Watching => "watching",
        WatchState::NotServed => "not-served",
        WatchState::Disappeared => "disappeared",
        WatchState::Failing { .. } => "failing",
    }
}

/// Logs one finding about an object.
pub(super) fn log_finding(object: &dyn Display, finding: &Diagnostic) {
    let path = finding.path.as_deref().unwrap_or_default();
    let location = finding.location().unwrap_or_default();
    let err = &finding.message;
    match finding.severity {
        Severity::Error => tracing::error!(%object, path, location, err, "object cannot be used"),
        Severity::Warning => tracing::warn!(%object, path, location, err, "object may not work as intended"),
    }
}

/// Whether an object was rejected, or a part of it isn't enforced.
fn is_unusable(found: &[Diagnostic]) -> bool {
    let is = |finding: &Diagnostic| {
        finding.severity == Severity::Error || matches!(finding.code, Code::Unusable | Code::NotEnforced)
    };
    found.iter().any(is)
}

fn kind_of(change: &Change) -> &str {
    match change {
        Change::SetNamespace(_) | Change::RemoveNamespace(_) => "Namespace",
        Change::SetPod(_) | Change::RemovePod(_) => "Pod",
        Change::SetNode(_) | Change::RemoveNode(_) => "Node",
        Change::SetService(_) | Change::RemoveService(_) => "Service",
        Change::SetPolicy(policy) => &policy.key.kind,
        Change::RemovePolicy(key) => &key.kind,
        Change::SetLearned(_) | Change::RemoveLearned(_) => "domain name",
    }
}

//! What the agent remembers to tell an operator: watches, errors, and what is wrong with objects. Logs them as they come.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Instant, SystemTime},
};

use palisade_api::{Kind, ObjectRef, WatchState};
use palisade_manifest::{Code, Diagnostic, Severity, collapse};
use palisade_policy::{Change, Name};

use crate::{
    metrics::{KindLabel, Metrics, StageLabel},
    socket::{ErrorView, Errors, ObjectError, WatchView},
};

/// As many errors are kept.
const KEPT: usize = 100;

/// Kind, namespace and name: what an object is called, in whatever generation.
type Called = (Kind, Option<Name>, Name);

#[derive(Debug)]
pub(crate) struct Ledger {
    metrics: Arc<Metrics>,
    errors: VecDeque<ErrorView>,
    objects: BTreeMap<Called, Vec<Diagnostic>>,
    watches: BTreeMap<Kind, (WatchState, Instant)>,
}

impl Ledger {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, errors: VecDeque::new(), objects: BTreeMap::new(), watches: BTreeMap::new() }
    }

    /// Counts and keeps what went wrong. Whoever calls it has logged it.
    pub(crate) fn error(&mut self, stage: &'static str, message: String) {
        self.metrics.errors.get_or_create(&StageLabel { stage }).inc();
        if self.errors.len() == KEPT {
            self.errors.pop_front();
        }
        let time = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_secs());
        self.errors.push_back(ErrorView { time, stage: stage.to_owned(), message });
    }

    /// Takes in how watches fare. What many say at once is one line: an API server that is gone fails them all.
    pub(crate) fn watches(&mut self, states: Vec<(Kind, WatchState)>) {
        let mut told: Vec<(WatchState, Vec<Kind>)> = Vec::new();
        for (kind, state) in states {
            let before = self.watches.insert(kind, (state.clone(), Instant::now())).map(|(state, _)| state);
            self.count(kind, before.as_ref(), &state);
            if before.as_ref() == Some(&state) {
                continue;
            }
            let state = without_kind(state);
            match told.iter_mut().find(|(known, _)| *known == state) {
                Some((_, kinds)) => kinds.push(kind),
                None => told.push((state, vec![kind])),
            }
        }
        for (state, kinds) in told {
            let kinds: Vec<&str> = kinds.into_iter().map(Kind::as_str).collect();
            let kinds = kinds.join(", ");
            match state {
                WatchState::Listing => tracing::debug!(kinds, "listing"),
                WatchState::Watching => tracing::info!(kinds, "watching"),
                WatchState::NotServed => tracing::info!(kinds, "not served by this cluster"),
                WatchState::Failing { why } => {
                    tracing::error!(kinds, why, "the watch fails");
                    self.error("source", format!("{kinds}: {why}"));
                }
            }
        }
    }

    fn count(&self, kind: Kind, before: Option<&WatchState>, now: &WatchState) {
        let label = KindLabel::from(kind);
        let up = &self.metrics.watch_up;
        match now {
            WatchState::NotServed => drop(up.remove(&label)),
            state => drop(up.get_or_create(&label).set(i64::from(*state == WatchState::Watching))),
        }
        let again = *now == WatchState::Listing && before.is_some_and(|b| *b != WatchState::NotServed);
        if again && before != Some(&WatchState::Listing) {
            self.metrics.watch_restarts.get_or_create(&label).inc();
        }
    }

    /// Takes in what is wrong with objects now.
    pub(crate) fn findings(&mut self, findings: Vec<(ObjectRef, Vec<Diagnostic>)>) {
        for (object, found) in findings {
            // One object may have as many findings as it has bytes.
            let found = collapse(&found);
            let called = (object.kind, object.namespace.clone(), object.name.clone());
            if found.is_empty() {
                if self.objects.remove(&called).is_some() {
                    tracing::info!(%object, "is well again, or gone");
                }
            } else if self.objects.get(&called) != Some(&found) {
                found.iter().for_each(|finding| log(&object, finding));
                self.objects.insert(called, found);
            }
        }
        for kind in Kind::ALL {
            let unusable = self.objects.iter().filter(|((k, ..), found)| *k == kind && is_unusable(found));
            let count = unusable.count() as i64;
            let label = KindLabel::from(kind);
            if count > 0 || self.metrics.unusable_objects.get(&label).is_some() {
                self.metrics.unusable_objects.get_or_create(&label).set(count);
            }
        }
    }

    /// Counts what a source said.
    pub(crate) fn count_changes(&self, changes: &[Change]) {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for change in changes {
            *counts.entry(kind_of(change)).or_default() += 1;
        }
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0.0, |t| t.as_secs_f64());
        for (kind, count) in counts {
            let Some(kind) = Kind::ALL.into_iter().find(|k| k.as_str() == kind) else { continue };
            self.metrics.watch_events.get_or_create(&kind.into()).inc_by(count);
            self.metrics.watch_last_event.get_or_create(&kind.into()).set(now);
        }
    }

    /// How many objects can't be used as they are.
    pub(crate) fn unusable(&self) -> usize {
        self.objects.values().filter(|found| is_unusable(found)).count()
    }

    pub(crate) fn watch_views(&self) -> Vec<WatchView> {
        let view = |(kind, (state, since)): (&Kind, &(WatchState, Instant))| WatchView {
            kind: kind.to_string(),
            state: state_word(state).to_owned(),
            why: match state {
                WatchState::Failing { why } => Some(why.clone()),
                _ => None,
            },
            for_seconds: since.elapsed().as_secs(),
        };
        self.watches.iter().map(view).collect()
    }

    pub(crate) fn errors(&self) -> Errors {
        let of = |((kind, namespace, name), found): (&Called, &Vec<Diagnostic>)| {
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
            objects: self.objects.iter().flat_map(of).collect(),
        }
    }
}

/// A failure says which kind can't be watched. The line that tells it names the kinds, so that those which fail for the
/// same reason stand together.
fn without_kind(state: WatchState) -> WatchState {
    match state {
        WatchState::Failing { why } => {
            let cause = why.strip_prefix("cannot watch ").and_then(|rest| rest.split_once(": "));
            WatchState::Failing { why: cause.map_or(why.clone(), |(_, cause)| cause.to_owned()) }
        }
        other => other,
    }
}

fn state_word(state: &WatchState) -> &'static str {
    match state {
        WatchState::Listing => "listing",
        WatchState::Watching => "watching",
        WatchState::NotServed => "not-served",
        WatchState::Failing { .. } => "failing",
    }
}

fn log(object: &ObjectRef, finding: &Diagnostic) {
    let path = finding.path.as_deref().unwrap_or_default();
    let place = finding.location().unwrap_or_default();
    match finding.severity {
        Severity::Error => {
            tracing::error!(%object, path, place, cause = finding.message, "the object can't be used");
        }
        Severity::Warning => {
            tracing::warn!(%object, path, place, cause = finding.message, "the object may not mean what it seems to");
        }
    }
}

/// Whether an object was not taken in, or a part of it was put out of use.
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
    }
}

//! What is shown at the moment: the last world that could be read, and what is wrong with newer input.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use palisade_analysis::GroupBy;
use palisade_manifest::{Diagnostic, Severity};
use palisade_policy::Origin;
use serde::Serialize;
use tokio::sync::watch;

use super::{UiArguments, world::World};
use crate::escape;

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.ui.state/v1";

/// The most messages about documents.
pub(super) const MOST_MESSAGES: usize = 50;

/// What is shown.
#[derive(Clone)]
pub(super) struct Shown {
    /// Changes with everything that is shown.
    pub(super) number: u64,
    /// Changes with the world.
    pub(super) world_number: u64,
    pub(super) world: Arc<World>,
    pub(super) problem: Option<Arc<Problem>>,
}

/// Why newer input is not shown.
#[derive(PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) text: String,
    pub(super) messages: Vec<Diagnostic>,
}

/// Holds what is shown, and tells those who wait for a change.
pub(super) struct Board {
    shown: watch::Sender<Shown>,
    began: Instant,
    /// When a page last asked, in milliseconds since the start.
    asked: AtomicU64,
}

impl Board {
    pub(super) fn new(world: World) -> Self {
        let first = Shown { number: 1, world_number: 1, world: Arc::new(world), problem: None };
        Self { shown: watch::Sender::new(first), began: Instant::now(), asked: AtomicU64::new(0) }
    }

    /// Returns what is shown.
    pub(super) fn shown(&self) -> Shown {
        self.shown.borrow().clone()
    }

    /// Shows a new world.
    pub(super) fn replace(&self, world: World) {
        self.shown.send_modify(|shown| {
            *shown = Shown {
                number: shown.number + 1,
                world_number: shown.world_number + 1,
                world: Arc::new(world),
                problem: None,
            };
        });
    }

    /// Goes on showing the last world, and says why.
    pub(super) fn fail(&self, problem: Problem) {
        self.shown.send_if_modified(|shown| {
            if shown.problem.as_deref() == Some(&problem) {
                return false;
            }
            shown.number += 1;
            shown.problem = Some(Arc::new(problem));
            true
        });
    }

    /// Waits until what is shown has another number, but no longer than `most`.
    pub(super) async fn changed(&self, number: u64, most: Duration) -> Shown {
        let mut receiver = self.shown.subscribe();
        // On a timeout, nothing has changed.
        _ = tokio::time::timeout(most, receiver.wait_for(|shown| shown.number != number)).await;
        self.shown()
    }

    /// Notes that a page is open.
    pub(super) fn note_asked(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.asked.store(now, Ordering::Relaxed);
    }

    /// Returns how long ago a page last asked.
    pub(super) fn idle_time(&self) -> Duration {
        let asked = Duration::from_millis(self.asked.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(asked)
    }
}

#[derive(Serialize)]
pub(super) struct JsonState<'a> {
    schema: &'static str,
    /// The version of the program.
    version: &'static str,
    /// Changes with everything that is shown.
    number: u64,
    /// Changes with the objects.
    world: u64,
    /// When they were read, in seconds since 1970.
    read: u64,
    /// What was read, as on the command line.
    sources: Vec<String>,
    /// Whether a cluster was read.
    cluster: bool,
    /// What an end of the report is: `workload`, or `namespace` if there are too many.
    ends: &'static str,
    /// Warnings about the documents.
    warnings: Vec<JsonMessage<'a>>,
    /// Why newer input is not shown.
    problem: Option<JsonProblem<'a>>,
}

#[derive(Serialize)]
struct JsonProblem<'a> {
    text: String,
    errors: Vec<JsonMessage<'a>>,
}

/// A message about a document.
#[derive(Serialize)]
pub(super) struct JsonMessage<'a> {
    code: &'static str,
    text: String,
    file: Option<&'a str>,
    line: Option<u32>,
    column: Option<u32>,
    help: Option<&'a str>,
}

impl<'a> JsonState<'a> {
    pub(super) fn new(shown: &'a Shown, arguments: &UiArguments, cluster: bool) -> Self {
        let world = &shown.world;
        let loaded = &world.inputs.loaded;
        let warnings = loaded.diagnostics.iter().filter(|found| found.severity == Severity::Warning);
        let read = world.read.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let sources = &arguments.sources;
        let mut names = [sources.files.clone(), sources.render.names()].concat();
        if let Some(live) = &world.inputs.live {
            names.insert(0, live.server.clone());
        }
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            number: shown.number,
            world: shown.world_number,
            read: read.as_secs(),
            sources: names,
            cluster,
            ends: if world.group_by == GroupBy::Namespace { "namespace" } else { "workload" },
            warnings: warnings.take(MOST_MESSAGES).map(message).collect(),
            problem: shown.problem.as_deref().map(|problem| JsonProblem {
                text: escape::plain(&problem.text).into_owned(),
                errors: problem.messages.iter().take(MOST_MESSAGES).map(message).collect(),
            }),
        }
    }
}

/// Returns a message for a page.
pub(super) fn message(found: &Diagnostic) -> JsonMessage<'_> {
    let at = found.origin.as_ref();
    JsonMessage {
        code: found.code.as_str(),
        text: escape::plain(&found.headline()).into_owned(),
        file: at.map(|at| &*at.file),
        line: at.and_then(Origin::line),
        column: at.filter(|at| at.line().is_some()).map(|at| at.column),
        help: found.help.as_deref(),
    }
}

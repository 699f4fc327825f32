//! Records of flows in a lab: each node runs the agent with its own code for records, on the kernel's log and its announcements.

mod expected;

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use palisade_agent::{
    NftDataPlane, NodeAgent,
    recorder::{FlowRecorder, Losses, RecorderOptions},
};
use palisade_flow::Record;
use palisade_nft::{EnforcerOptions, conntrack::ConnectionEvents};
use palisade_policy::{Change, Cluster, Name};

pub use expected::{Disagreement, Expectations, FlowKey};
pub use palisade_agent::recorder::Wording;

use crate::{
    agent::enforced,
    enforce::{Enforce, EnforceError, MakeEnforcer},
    error::with_causes,
};

/// How often a node reads the kernel.
const READ_INTERVAL: Duration = Duration::from_millis(20);

/// How often a node counts what the kernel did not log.
const COUNT_INTERVAL: Duration = Duration::from_millis(500);

/// What nodes record.
#[derive(Clone)]
pub struct RecordingOptions {
    /// Puts reasons into words.
    pub wording: Wording,
    /// Whether connections that pass are recorded when they begin.
    pub connections: bool,
}

/// The records of all nodes of a lab.
#[derive(Default)]
pub struct Recordings(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    records: Vec<Record>,
    losses: BTreeMap<Name, Losses>,
    commits: Vec<Duration>,
    error: Option<String>,
}

impl std::fmt::Debug for Recordings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recordings").field("records", &self.lock().records.len()).finish_non_exhaustive()
    }
}

impl Recordings {
    /// Returns a constructor of enforcers that run Palisade's agent and add the records of their node here.
    #[must_use]
    pub fn enforcers(self: &Arc<Self>, options: RecordingOptions) -> MakeEnforcer {
        let recordings = Arc::clone(self);
        Arc::new(move |node: &Name| {
            let (node, options) = (node.clone(), options.clone());
            let recordings = Arc::clone(&recordings);
            Box::new(RecordingAgent { node, options, recordings, running: None, counted: None })
                as Box<dyn Enforce>
        })
    }

    /// Takes the records that were made since the last call, of each node oldest first.
    ///
    /// # Errors
    /// Returns why a node could not read the kernel.
    pub fn take(&self) -> Result<Vec<Record>, String> {
        let mut kept = self.lock();
        match kept.error.take() {
            Some(error) => Err(error),
            None => Ok(mem::take(&mut kept.records)),
        }
    }

    /// Takes how long changes took since the last call, from a node's agent to its kernel. A change that does not concern a node takes no time
    /// there.
    #[must_use]
    pub fn take_commits(&self) -> Vec<Duration> {
        mem::take(&mut self.lock().commits)
    }

    /// Returns how much has no record, of all nodes together.
    #[must_use]
    pub fn losses(&self) -> Losses {
        let kept = self.lock();
        kept.losses.values().fold(Losses::default(), |sum, of| Losses {
            packets: sum.packets + of.packets,
            connections: sum.connections + of.connections,
            evicted: sum.evicted + of.evicted,
        })
    }

    /// Ignores poisoning: records are added whole.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct RecordingAgent {
    node: Name,
    options: RecordingOptions,
    recordings: Arc<Recordings>,
    running: Option<(NodeAgent<NftDataPlane>, FlowRecorder)>,
    /// When packets that the kernel did not log were last counted.
    counted: Option<Instant>,
}

impl Enforce for RecordingAgent {
    fn start(&mut self, cluster: &Cluster) -> Result<(), EnforceError> {
        // Opened here because sockets belong to the namespace of the thread that opens them.
        let options = EnforcerOptions::default();
        let group = options.log_group.ok_or("denied packets are not logged")?;
        let plane = NftDataPlane::open_with(options)?;
        let RecordingOptions { wording, connections } = self.options.clone();
        let recorder =
            FlowRecorder::open(RecorderOptions { node: self.node.clone(), group, connections, wording })?;
        let agent = NodeAgent::in_mode(self.node.clone(), plane, cluster.mode).denying_by(cluster.deny);
        let (agent, recorder) = self.running.insert((agent, recorder));
        let report = recorder.snapshot(agent, cluster.clone());
        enforced(agent, report)?;
        // The rules track connections, without which the kernel has no such setting.
        if connections {
            ConnectionEvents::are_enabled()
                .map_err(|why| format!("the kernel does not announce connections: {why}"))?;
        }
        Ok(())
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), EnforceError> {
        let (agent, recorder) = self.running.as_mut().ok_or("the agent was not started")?;
        let began = Instant::now();
        let report = recorder.apply(agent, changes.to_vec())?;
        let committed = report.committed.map(|at| at.saturating_duration_since(began));
        self.recordings.lock().commits.extend(committed);
        enforced(agent, report)
    }

    fn refresh_links(&mut self) -> Result<(), EnforceError> {
        let (agent, _) = self.running.as_mut().ok_or("the agent was not started")?;
        Ok(agent.data_plane().refresh_links_now().map(drop)?)
    }

    fn idle(&mut self) -> Option<Duration> {
        let (agent, recorder) = self.running.as_mut()?;
        let read = recorder.read(agent);
        if self.counted.is_none_or(|at| at.elapsed() >= COUNT_INTERVAL) {
            self.counted = Some(Instant::now());
            recorder.count_losses(agent);
        }
        let mut kept = self.recordings.lock();
        kept.records.extend(recorder.take());
        kept.losses.insert(self.node.clone(), recorder.losses());
        if let Err(error) = read {
            kept.error = Some(format!("node {}: {}", self.node, with_causes(&error)));
            return None;
        }
        Some(READ_INTERVAL)
    }
}

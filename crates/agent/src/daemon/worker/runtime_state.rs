//! What the worker knows from the container runtime, and the pods that wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_policy::Name;

use super::closed::Closed;
use crate::{
    config::{Config, PodStart},
    daemon::{conntrack_cleanup::ConntrackCleanup, inbox::Inbox, runtime_event::Start},
    runtime_pods::{RuntimePod, RuntimePods},
};

/// How often it is looked whether a container has begun to wait for the deletion of older connections.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What the worker knows from the container runtime.
#[derive(Debug)]
pub(super) struct RuntimeState {
    pub(super) pods: RuntimePods,
    pub(super) pod_start: PodStart,
    /// When pods no longer wait for the first snapshot.
    pub(super) snapshot_until: Instant,
    /// Pods that wait, in the order of their arrival.
    pub(super) waiting: Vec<Waiting>,
    /// Pods that wait for the deletion of connections that are older than they are.
    pub(super) cleaning: Vec<Start>,
    /// Pods whose containers are refused, and when the deletion is tried again.
    pub(super) refused: Vec<(Instant, Start)>,
    /// Whether older connections of a pod were deleted since the last answers.
    pub(super) is_cleaned: bool,
    pub(super) cleanup: ConntrackCleanup,
    /// Pods that have started closed, by sandbox.
    pub(super) closed: BTreeMap<String, Closed>,
    /// Pods that were listed without labels, before the first snapshot.
    pub(super) listed_without_labels: Vec<RuntimePod>,
    /// Namespaces for which a pod has waited in vain.
    pub(super) unknown_namespaces: BTreeSet<Name>,
}

impl RuntimeState {
    pub(super) fn new(config: &Config, node: &Name, inbox: &Arc<Inbox>) -> Self {
        Self {
            pods: RuntimePods::new(node.clone()),
            pod_start: config.pod_start,
            snapshot_until: Instant::now() + Duration::from_millis(config.pod_start_timeout),
            waiting: Vec::new(),
            cleaning: Vec::new(),
            refused: Vec::new(),
            is_cleaned: false,
            cleanup: ConntrackCleanup::new(inbox),
            closed: BTreeMap::new(),
            listed_without_labels: Vec::new(),
            unknown_namespaces: BTreeSet::new(),
        }
    }

    /// When the next pod has waited long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().map(|waiting| &waiting.start).chain(&self.cleaning);
        let deadlines =
            waiting.map(|start| start.deadline().unwrap_or_else(|| Instant::now() + LOOK_INTERVAL));
        deadlines.chain(self.refused.iter().map(|(at, _)| *at)).min()
    }

    /// Whether connections that are older than the pod of a sandbox are still to be deleted.
    pub(super) fn is_uncleaned(&self, id: &str) -> bool {
        let waiting = self.waiting.iter().filter(|waiting| waiting.is_new).map(|waiting| &waiting.start);
        waiting.chain(self.uncleaned()).any(|start| start.pod.id == id)
    }

    pub(super) fn uncleaned(&self) -> impl Iterator<Item = &Start> {
        self.cleaning.iter().chain(self.refused.iter().map(|(_, start)| start))
    }

    /// Takes the starts of pods out that wait for the deletion of older connections.
    pub(super) fn take_uncleaned(&mut self, which: impl Fn(&Start) -> bool) -> Vec<Start> {
        let refused = self.refused.extract_if(.., |(_, start)| which(start)).map(|(_, start)| start);
        self.cleaning.extract_if(.., |start| which(start)).chain(refused).collect()
    }
}

/// A pod that waits for its policies.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) start: Start,
    /// Whether connections with its addresses are still to be deleted: they are not its own, because it has no process yet.
    pub(super) is_new: bool,
}

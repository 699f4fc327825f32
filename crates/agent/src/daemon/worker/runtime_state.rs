//! What the worker knows from the container runtime, and the pods that wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_policy::Name;

use super::{cleanup::NewPod, closed::Closed};
use crate::{
    config::{Config, PodStart},
    daemon::{conntrack_cleanup::ConntrackCleanup, inbox::Inbox, runtime_event::Start},
    runtime_pods::{RuntimePod, RuntimePods},
};

/// What the worker knows from the container runtime.
#[derive(Debug)]
pub(super) struct RuntimeState {
    pub(super) pods: RuntimePods,
    pub(super) pod_start: PodStart,
    /// When pods no longer wait for the first snapshot.
    pub(super) snapshot_until: Instant,
    /// Pods that wait, in the order of their arrival.
    pub(super) waiting: Vec<Waiting>,
    /// Pods that have started, and whose older connections are not deleted yet.
    pub(super) new_pods: Vec<NewPod>,
    /// Why the kernel refused the last time to let connections of pods pass that are not new any longer.
    pub(super) release_refused: Option<String>,
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
            new_pods: Vec::new(),
            release_refused: None,
            is_cleaned: false,
            cleanup: ConntrackCleanup::new(inbox),
            closed: BTreeMap::new(),
            listed_without_labels: Vec::new(),
            unknown_namespaces: BTreeSet::new(),
        }
    }

    /// When the next pod has waited long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        let deadlines = self.waiting.iter().map(|waiting| waiting.start.deadline());
        deadlines.chain(self.new_pods.iter().filter_map(NewPod::due)).min()
    }

    /// Whether connections that are older than the pod of a sandbox are still to be deleted.
    pub(super) fn has_older_connections(&self, id: &str) -> bool {
        self.waiting.iter().any(|waiting| waiting.is_new && waiting.start.pod.id == id)
            || self.new_pods.iter().any(|new| new.is_of(id))
    }
}

/// A pod that waits for its policies.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) start: Start,
    /// Whether connections with its addresses are still to be deleted: they are not its own, because it has no process yet.
    pub(super) is_new: bool,
}

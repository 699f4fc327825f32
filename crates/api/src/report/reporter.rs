//! The agent's handle: takes what is to be reported, without waiting.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use palisade_manifest::Diagnostic;
use palisade_policy::Name;
use tokio::time::Instant;

use super::queue::{Enforcement, ReportQueue};
use crate::event::ObjectRef;

/// Takes what is to be reported. Never waits and never fails: what can't be written is retried, and only the latest state is kept.
/// Reporting ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Reporter {
    shared: Arc<Shared>,
    max_event_delay: Duration,
}

/// The queue that the [`Reporter`]s fill and the writer empties.
#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<ReportQueue>,
}

impl Shared {
    pub(super) fn queue(&self) -> MutexGuard<'_, ReportQueue> {
        // The queue is consistent between any two statements that could panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reporter {
    pub(super) fn new(node: Name, max_event_delay: Duration) -> Self {
        let queue = Mutex::new(ReportQueue::new(node, Instant::now()));
        Self { shared: Arc::new(Shared { queue }), max_event_delay }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Reports the findings of an object, as [`crate::Event::Findings`] has them. Call it when the changes before that event have been
    /// programmed, and [`Reporter::programmed`] after it: that covers all objects reported so far.
    pub fn findings(&self, object: ObjectRef, findings: Vec<Diagnostic>) {
        self.shared.queue().findings(object, findings, Instant::now());
    }

    /// Reports that the kernel accepted everything so far, or why it refused the latest transaction. Call it after each transaction.
    pub fn programmed(&self, result: Result<(), String>) {
        self.set_enforcement(match result {
            Ok(()) => Enforcement::Programmed,
            Err(why) => Enforcement::Refused(why),
        });
    }

    /// Reports that the kernel does not enforce what was programmed, or that this is unknown, and why. No policy counts as programmed on
    /// this node.
    pub fn not_enforced(&self, why: String) {
        self.set_enforcement(Enforcement::NotEnforced(why));
    }

    /// Reports all policies that exceed the node's budget, each with the consequence as text. Each is an Event about the policy while it
    /// is among them. The uid of a policy may be empty.
    pub fn over_budget(&self, policies: Vec<(ObjectRef, String)>) {
        self.shared.queue().over_budget(policies, Instant::now(), self.delay());
    }

    /// Reports all pods of this node that may not use the sources that they ask for, each with the reason, as an Event about the pod while it is
    /// among them. Only the first 20 get one.
    pub fn refused_sources(&self, pods: Vec<(ObjectRef, String)>) {
        self.shared.queue().refused_sources(pods);
    }

    /// Reports that a pod of this node started before its policies were programmed, or closed, once, as an Event about the pod.
    pub fn pod_start(&self, pod: ObjectRef, note: String) {
        self.shared.queue().pod_start(pod, note, Instant::now());
    }

    fn set_enforcement(&self, enforcement: Enforcement) {
        self.shared.queue().set_enforcement(enforcement, Instant::now(), self.delay());
    }

    fn delay(&self) -> Duration {
        self.max_event_delay.mul_f64(fastrand::f64())
    }
}

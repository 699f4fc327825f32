//! Pods that start have no connections of their own: what connection tracking holds for their addresses is deleted before they do.
//!
//! These are the connections of an earlier owner of an address, echoes that the kernel has answered before the pod was programmed, and
//! packets from before that time. The rules would let them pass as established. Packets that the node still keeps for the pod's addresses are
//! dropped: they have passed the rules already. A runtime that asks again before it starts a container goes on with the sandbox meanwhile.
//!
//! A sandbox that is announced again, or listed by a runtime to which the agent connects, keeps its connections.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Worker, closed::Closed, runtime_state::Waiting};
use crate::{
    daemon::{runtime_event::Start, start_outcome::StartOutcome},
    runtime_pods::RuntimePod,
};

/// After how long the deletion is tried again if the kernel refuses it and to close the pod, so that its containers are refused.
const RETRY: Duration = Duration::from_secs(10);

impl Worker {
    /// Whether policies apply to a pod: otherwise no connection passes that they deny.
    pub(super) fn is_selected(&self, pod: &RuntimePod) -> bool {
        let plan = self.agent.plan();
        let has = |address: &IpAddr| {
            plan.ingress.contains_key(address)
                || plan.egress.contains_key(address)
                || plan.hairpin.contains_key(address)
        };
        pod.addresses.iter().any(has)
    }

    /// Begins to delete the connections of a pod whose policies are programmed.
    pub(super) fn clean(&mut self, mut start: Start) {
        self.agent.data_plane().drop_waiting_packets(&start.pod.addresses);
        match self.runtime.cleanup.begin(&start) {
            Ok(()) => {
                start.answer_for_sandbox();
                self.runtime.cleaning.push(start);
            }
            Err(err) => self.start_uncleaned(start, &err),
        }
    }

    /// Lets pods start whose connections are deleted. Those that have waited too long have started closed.
    pub(super) fn cleaned(&mut self, starts: &BTreeSet<u64>, result: &Result<usize, String>) {
        let cleaned = self.runtime.take_uncleaned(|start| starts.contains(&start.number));
        if let Ok(connections @ 1..) = result {
            tracing::debug!(connections, "deleted connections that are older than the pods that start");
        }
        for start in cleaned {
            if let Err(err) = result {
                self.start_uncleaned(start, err);
                continue;
            }
            // If an earlier announcement of it has started it closed, it is open.
            self.runtime.closed.remove(&start.pod.id);
            if start.holds_containers_only() {
                // They may run already. What became of its policies meanwhile is handled as that of a pod that runs.
                start.answer(StartOutcome::Programmed);
                self.runtime.is_cleaned = true;
            } else {
                // What became of its policies meanwhile is looked at again.
                self.runtime.waiting.push(Waiting { start, is_new: false });
            }
        }
    }

    /// Starts a pod closed that may have older connections, until these are reviewed, or as it is if that is wanted.
    pub(super) fn start_uncleaned(&mut self, start: Start, err: &str) {
        let reason = format!("connections that are older than the pod could not be deleted: {err}");
        let closed = Closed { programmed: Some(Instant::now()), ..Closed::new(&start.pod) };
        let outcome = self.start_closed(closed, &reason);
        if start.holds_containers_only() && matches!(outcome, StartOutcome::Refused(_)) {
            // The kubelet tries to start the containers again, and makes no other sandbox for that.
            start.refuse_containers(outcome);
            self.runtime.refused.push((Instant::now() + RETRY, start));
            return;
        }
        start.answer(outcome);
        self.review_due = self.agent.hurry_review();
    }
}

//! Pods that start have no connections of their own: what connection tracking holds for their addresses is deleted before they do.
//!
//! These are the connections of an earlier owner of an address, echoes that the kernel has answered before the pod was programmed, and
//! packets from before that time. The rules would let them pass as established. Packets that the node still keeps for the pod's addresses are
//! dropped: they have passed the rules already. A sandbox that is announced again, or listed by a runtime to
//! which the agent connects, keeps its connections.

use std::{net::IpAddr, time::Instant};

use super::{Worker, closed::Closed, runtime::Waiting};
use crate::{daemon::runtime_event::Start, runtime_pods::RuntimePod};

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
    pub(super) fn clean(&mut self, start: Start) {
        self.agent.data_plane().drop_waiting_packets(&start.pod.addresses);
        match self.runtime.cleanup.begin(&start.pod) {
            Ok(()) => self.runtime.cleaning.push(start),
            Err(err) => self.start_uncleaned(start, &err),
        }
    }

    /// Lets pods start whose connections are deleted. Those that have waited too long have started closed.
    pub(super) fn cleaned(&mut self, sandboxes: &[String], result: &Result<usize, String>) {
        let cleaning = &mut self.runtime.cleaning;
        let starts: Vec<Start> = cleaning.extract_if(.., |start| sandboxes.contains(&start.pod.id)).collect();
        if let Ok(connections @ 1..) = result {
            tracing::debug!(connections, "deleted connections that are older than the pods that start");
        }
        for start in starts {
            match result {
                // What became of its policies meanwhile is looked at again. If an earlier announcement of it has started it closed, it is open.
                Ok(_) => {
                    self.runtime.closed.remove(&start.pod.id);
                    self.runtime.waiting.push(Waiting { start, is_new: false });
                }
                Err(err) => self.start_uncleaned(start, err),
            }
        }
    }

    /// Starts a pod closed that may have older connections, until these are reviewed, or as it is if that is wanted.
    pub(super) fn start_uncleaned(&mut self, start: Start, err: &str) {
        let reason = format!("connections that are older than the pod could not be deleted: {err}");
        let closed = Closed { programmed: Some(Instant::now()), ..Closed::new(&start.pod) };
        let outcome = self.start_closed(closed, &reason);
        _ = start.respond.send(outcome);
        self.review_due = self.agent.hurry_review();
    }
}

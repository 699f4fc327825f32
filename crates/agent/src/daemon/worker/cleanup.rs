//! Pods that start have no connections of their own: what connection tracking holds for their addresses is older than they are.
//!
//! These are the connections of an earlier owner of an address, echoes that the kernel has answered before the pod was programmed, and
//! packets from before that time. The rules would let them pass as established. So the kernel drops the packets of all connections but those that
//! begin from now on ([`palisade_nft::new_pods`]), the pod starts, and the older ones are deleted meanwhile. Packets that the node still keeps
//! for the pod's addresses are dropped before it starts: they have passed the rules already.
//!
//! A sandbox that is announced again, or listed by a runtime to which the agent connects, keeps its connections.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use palisade_nft::new_pods::TIMEOUT;

use super::{Worker, closed::Closed};
use crate::{
    daemon::{runtime_event::Start, start_outcome::StartOutcome},
    error_chain,
    runtime_pods::RuntimePod,
};

/// After how long the deletion is tried again if the kernel refuses it.
const RETRY: Duration = Duration::from_secs(10);

/// A pod that has started, and whose older connections are not deleted yet.
#[derive(Debug)]
pub(super) struct NewPod {
    /// The number of its start.
    number: u64,
    /// `None` if an earlier run has started it.
    pod: Option<RuntimePod>,
    addresses: Vec<IpAddr>,
    started: Instant,
    /// When the deletion is tried again. `None` while it goes on.
    retry: Option<Instant>,
}

impl NewPod {
    /// When something is to be done for it.
    pub(super) fn due(&self) -> Option<Instant> {
        self.retry
    }

    /// Its sandbox, if this run has started it.
    pub(super) fn sandbox(&self) -> Option<&str> {
        self.pod.as_ref().map(|pod| &*pod.id)
    }

    pub(super) fn is_of(&self, sandbox: &str) -> bool {
        self.sandbox() == Some(sandbox)
    }
}

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

    /// Starts a pod whose policies are programmed, and begins to delete its older connections.
    pub(super) fn start_new(&mut self, start: Start) {
        let plane = self.agent.data_plane();
        match plane.add_new_pod(&start.pod.id, &start.pod.addresses) {
            Ok(true) => {}
            Ok(false) => {
                self.start_closed_to_older(start, "another pod had one of its addresses a moment ago");
                return;
            }
            Err(error) => {
                self.start_closed_to_older(start, &error_chain::with_causes(&error));
                return;
            }
        }
        // After that: a packet of an older connection that arrives meanwhile would wait, too.
        plane.drop_waiting_packets(&start.pod.addresses);
        // If an earlier announcement of it has started it closed, it is open.
        self.runtime.closed.remove(&start.pod.id);
        self.runtime.new_pods.retain(|new| !new.is_of(&start.pod.id));
        let (number, pod) = (start.number, start.pod.clone());
        start.answer(StartOutcome::Programmed);
        self.delete_older(number, Some(pod.clone()), pod.addresses);
    }

    /// Deletes the older connections of pods that an earlier run has started. Costs nothing if there are none.
    pub(super) fn take_over_new_pods(&mut self) {
        let left: Vec<IpAddr> = self.agent.data_plane().take_left_new_pods().into_iter().collect();
        if !left.is_empty() {
            // No start has this number.
            self.delete_older(u64::MAX, None, left);
        }
    }

    fn delete_older(&mut self, number: u64, pod: Option<RuntimePod>, addresses: Vec<IpAddr>) {
        let now = Instant::now();
        let retry = self.runtime.cleanup.begin(number, &addresses).err().map(|_| now + RETRY);
        self.runtime.new_pods.push(NewPod { number, pod, addresses, started: now, retry });
    }

    /// Releases the pods whose older connections are deleted.
    pub(super) fn cleaned(&mut self, starts: &BTreeSet<u64>, result: &Result<usize, String>) {
        match result {
            Ok(connections) => {
                if *connections > 0 {
                    tracing::debug!(
                        connections,
                        "deleted connections that are older than the pods that start"
                    );
                }
                self.runtime.new_pods.retain(|new| !starts.contains(&new.number));
                self.release_new_pods();
                self.runtime.is_cleaned = true;
            }
            Err(err) => {
                tracing::warn!(
                    err,
                    "cannot delete connections that are older than the pods that start, retrying; packets of these connections are dropped"
                );
                self.errors.record("runtime", format!("deleting connections older than new pods: {err}"));
                let retry = Some(Instant::now() + RETRY);
                let failed = self.runtime.new_pods.iter_mut().filter(|new| starts.contains(&new.number));
                failed.for_each(|new| new.retry = retry);
            }
        }
    }

    /// Tries again to delete older connections. What takes longer than the kernel distinguishes them is reported.
    pub(super) fn retry_cleanup(&mut self) {
        let now = Instant::now();
        let is_over = |new: &mut NewPod| now.saturating_duration_since(new.started) >= TIMEOUT;
        let over: Vec<NewPod> = self.runtime.new_pods.extract_if(.., is_over).collect();
        for new in over {
            if let Some(pod) = &new.pod {
                self.left_with_older(pod);
            }
            self.runtime.is_cleaned = true;
        }
        self.release_new_pods();
        let cleanup = &mut self.runtime.cleanup;
        for new in self.runtime.new_pods.iter_mut().filter(|new| new.retry.is_some_and(|at| now >= at)) {
            new.retry = cleanup.begin(new.number, &new.addresses).err().map(|_| now + RETRY);
        }
    }

    /// Forgets the older connections of a pod that is gone.
    pub(super) fn forget_new_pod(&mut self, sandbox: &str) {
        self.runtime.new_pods.retain(|new| !new.is_of(sandbox));
        self.release_new_pods();
    }

    /// Lets all connections pass of addresses of which no pod has just started. Called again and again, so that what the kernel refuses is retried.
    fn release_new_pods(&mut self) {
        let new_pods = &self.runtime.new_pods;
        let is_new = |address: &IpAddr| new_pods.iter().any(|new| new.addresses.contains(address));
        let refused = self.agent.data_plane().retain_new_pods(is_new).err();
        let refused = refused.map(|error| error_chain::with_causes(&error));
        if let Some(err) = refused.as_ref().filter(|_| self.runtime.release_refused != refused) {
            tracing::warn!(
                err,
                "cannot unblock older connections of pods, they stay blocked for up to a minute"
            );
            self.errors.record("runtime", err.clone());
        }
        self.runtime.release_refused = refused;
    }

    /// Removes the table for pods that start if it is not needed any longer.
    pub(super) fn tidy_new_pods(&mut self) {
        if let Err(error) = self.agent.data_plane().tidy_new_pods() {
            let err = error_chain::with_causes(&error);
            tracing::debug!(err, "cannot remove table inet palisade_new_pods");
        }
    }

    /// Starts a pod closed whose older connections the kernel doesn't distinguish, until these are reviewed, or as it is if that is wanted.
    fn start_closed_to_older(&mut self, start: Start, err: &str) {
        let reason = format!("connections that are older than the pod could not be blocked: {err}");
        let closed = Closed { programmed: Some(Instant::now()), ..Closed::new(&start.pod) };
        let outcome = self.start_closed(closed, &reason);
        start.answer(outcome);
        self.review_due = self.agent.hurry_review();
    }
}

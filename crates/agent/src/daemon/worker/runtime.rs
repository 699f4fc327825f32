//! Programs pods that the container runtime announces, and tells how they start.

use std::{collections::BTreeSet, net::IpAddr, time::Instant};

use palisade_api::{ObjectRef, ResourceKind};
use palisade_policy::{Change, Cluster, Direction, Name, ObjectKey, Policy, Tier};

use super::{
    Worker,
    cleanup::NewPod,
    closed::{Closed, Opening},
    runtime_state::Waiting,
};
use crate::{
    DataPlane as _,
    config::PodStart,
    daemon::{
        runtime_event::{RuntimeEvent, Start},
        start_outcome::StartOutcome,
    },
    error_chain,
    links::NamedNamespace,
    runtime_pods::RuntimePod,
};

/// Namespaces that the API server did not report in time, of which pods don't wait again.
const MAX_UNKNOWN_NAMESPACES: usize = 1000;

impl Worker {
    /// Applies what the runtime has reported, and answers for the pods that wait.
    pub(super) fn process_runtime(&mut self, events: Vec<RuntimeEvent>) {
        let (mut changes, mut received) = (Changes::default(), None);
        for event in events {
            match event {
                RuntimeEvent::Synchronized(mut list) => {
                    let own = self.agent.data_plane().host_addresses().unwrap_or_default();
                    list.retain(|pod| !pod.addresses.iter().any(|address| own.contains(address)));
                    self.flush(&mut changes, received.take());
                    list.iter().for_each(|pod| self.name_namespace(pod));
                    let unlabelled = list.iter().filter(|pod| pod.labels.is_none()).cloned();
                    self.runtime.listed_without_labels.extend(unlabelled);
                    let (found, result) =
                        self.runtime.pods.synchronize(list, self.agent.reconciler().cluster());
                    changes.extend(found);
                    if let Err(error) = result {
                        self.too_many(&error.to_string());
                    }
                    self.forget_unlisted_new_pods();
                    self.forget_namespaces();
                }
                RuntimeEvent::Started(start) if self.is_of_node(&start.pod) => {
                    start.answer(StartOutcome::Programmed);
                }
                RuntimeEvent::Started(start) => {
                    if changes.concern(&start.pod.key) {
                        self.flush(&mut changes, received.take());
                    }
                    received.get_or_insert(start.arrived);
                    let runtime = &self.runtime;
                    let is_new = !runtime.pods.has_started(&start.pod)
                        || runtime.closed.contains_key(&start.pod.id)
                        || runtime.has_older_connections(&start.pod.id);
                    match self.runtime.pods.start(start.pod.clone(), self.agent.reconciler().cluster()) {
                        Ok(found) => {
                            self.name_namespace(&start.pod);
                            changes.extend(found);
                            self.runtime.waiting.push(Waiting { start, is_new });
                        }
                        Err(error) => {
                            self.too_many(&error.to_string());
                            start.answer(StartOutcome::Open(error.to_string()));
                        }
                    }
                }
                RuntimeEvent::Stopped(id) => {
                    received.get_or_insert_with(Instant::now);
                    self.withdraw(&id);
                    self.runtime.closed.remove(&id);
                    changes.extend(self.runtime.pods.stop(&id));
                    self.forget_namespaces();
                }
                RuntimeEvent::Disconnected => changes.extend(self.runtime.pods.disconnect()),
                RuntimeEvent::Cleaned { starts, result } => self.cleaned(&starts, &result),
            }
        }
        self.flush(&mut changes, received);
    }

    /// Whether the node itself has an address of the pod: it is on the host network.
    fn is_of_node(&mut self, pod: &RuntimePod) -> bool {
        self.agent.data_plane().node_has_any(&pod.addresses).unwrap_or_default()
    }

    /// Tells the data plane which network namespace is the pod's: its interface is the one that leads there.
    fn name_namespace(&mut self, pod: &RuntimePod) {
        let Some(path) = pod.network_namespace.clone() else { return };
        let addresses: BTreeSet<IpAddr> = pod.addresses.iter().copied().collect();
        if addresses.is_empty() {
            // Of a list without addresses. What was said of the pod before still holds.
            return;
        }
        let namespace = NamedNamespace { path, pod: pod.key.clone(), addresses };
        self.agent.data_plane().name_namespace(&pod.id, namespace);
    }

    /// Forgets the network namespaces of sandboxes that are gone.
    fn forget_namespaces(&mut self) {
        let pods = &self.runtime.pods;
        self.agent.data_plane().retain_namespaces(|id| pods.has(id));
    }

    /// Answers for a pod whose sandbox is stopped while it waits.
    fn withdraw(&mut self, id: &str) {
        let stopped = self.runtime.waiting.extract_if(.., |waiting| waiting.start.pod.id == id);
        for Waiting { start, .. } in stopped {
            let reason = "its sandbox was stopped meanwhile".to_owned();
            start.answer(StartOutcome::Refused(reason));
        }
        self.forget_new_pod(id);
        self.runtime.listed_without_labels.retain(|pod| pod.id != id);
    }

    /// Forgets pods that the runtime no longer lists: their ends were not announced.
    fn forget_unlisted_new_pods(&mut self) {
        let sandboxes = self.runtime.new_pods.iter().filter_map(NewPod::sandbox);
        let gone = sandboxes.filter(|id| !self.runtime.pods.has(id));
        let gone: Vec<String> = gone.map(str::to_owned).collect();
        gone.iter().for_each(|id| self.forget_new_pod(id));
    }

    fn too_many(&mut self, err: &str) {
        tracing::error!(err, "too many pods, further ones are isolated once the API server reports them");
        self.errors.record("runtime", err.to_owned());
    }

    /// Programs the changes. Before the first snapshot, which has them too, there is nothing to program.
    fn flush(&mut self, changes: &mut Changes, received: Option<Instant>) {
        let changes = std::mem::take(changes).list;
        if changes.is_empty() || self.agent.reconciler().is_waiting() {
            return;
        }
        let interner = self.agent.interner();
        let shared = changes.into_iter().map(|change| match change {
            Change::SetPod(pod) => Change::SetPod(interner.pod(pod)),
            other => other,
        });
        let changes: Vec<Change> = shared.collect();
        let changed = self.forget_flows_of(&changes);
        let for_names = self.names.is_some().then(|| changes.clone());
        if self.runtime.waiting.iter().any(|waiting| waiting.is_new && self.is_known(&waiting.start.pod)) {
            // It would walk the kernel's table beside the deletion of older connections: two walks at a time take twice as long each.
            self.agent.hold_review();
        }
        let report = self.agent.apply(changes);
        self.follow_local_pods(&changed);
        self.apply_report(report, received);
        if let Some(changes) = for_names {
            self.follow_names(Some(&changes));
        }
    }

    /// Answers for the pods whose policies are programmed or that have waited long enough, and opens those whose policies are known now.
    pub(super) fn answer_starts(&mut self) {
        let now = Instant::now();
        let mut is_answered = std::mem::take(&mut self.runtime.is_cleaned);
        let waiting = std::mem::take(&mut self.runtime.waiting);
        for Waiting { start, is_new } in waiting {
            match self.wait_of(&start, now) {
                Wait::Over(StartOutcome::Programmed) if is_new && self.is_selected(&start.pod) => {
                    self.start_new(start);
                }
                Wait::Over(outcome) => {
                    start.answer(outcome);
                    is_answered = true;
                }
                Wait::Goes => self.runtime.waiting.push(Waiting { start, is_new }),
                Wait::TooLong => {
                    let outcome = self.without_policies(&start.pod);
                    start.answer(outcome);
                }
            }
        }
        if is_answered && self.runtime.new_pods.is_empty() {
            // A packet that was under way when the rules were committed is in no earlier listing.
            self.review_due = self.agent.hurry_review();
        }
        self.take_over_new_pods();
        self.retry_cleanup();
        self.close_listed();
        self.open_closed();
    }

    /// Closes pods that were listed without labels, and that the API server doesn't know. Until the first snapshot, what an earlier agent
    /// has programmed for them is in place.
    fn close_listed(&mut self) {
        if self.runtime.listed_without_labels.is_empty() || self.agent.reconciler().is_waiting() {
            return;
        }
        for pod in std::mem::take(&mut self.runtime.listed_without_labels) {
            if self.runtime.pods.has(&pod.id) && !self.is_known(&pod) {
                self.runtime.closed.insert(pod.id.clone(), Closed::new(&pod));
            }
        }
    }

    fn wait_of(&self, start: &Start, now: Instant) -> Wait {
        if self.is_known(&start.pod) {
            return Wait::Over(self.outcome(&start.pod));
        }
        let in_vain = match self.agent.reconciler().is_waiting() {
            true => now >= self.runtime.snapshot_until,
            false => self.runtime.unknown_namespaces.contains(&start.pod.key.namespace),
        };
        if in_vain || now >= start.deadline() { Wait::TooLong } else { Wait::Goes }
    }

    /// Whether all that decides which policies select a pod is known.
    fn is_known(&self, pod: &RuntimePod) -> bool {
        self.policies_are_known(&pod.key.namespace)
            && (self.runtime.pods.has_labels(&pod.id) || !self.may_be_selected(pod))
    }

    /// Whether policies may select a pod whose labels are not known.
    fn may_be_selected(&self, pod: &RuntimePod) -> bool {
        let cluster = self.agent.reconciler().cluster();
        let of_namespace = |policy: &&Policy| *policy.key.namespace == *pod.key.namespace;
        cluster_wide(cluster).next().is_some()
            || cluster.policies.values().map(|policy| &**policy).any(|policy| of_namespace(&policy))
    }

    /// Whether all policies that may select pods of a namespace can be evaluated.
    fn policies_are_known(&self, namespace: &Name) -> bool {
        let reconciler = self.agent.reconciler();
        !reconciler.is_waiting()
            && (reconciler.cluster().namespaces.contains_key(namespace)
                || cluster_wide(reconciler.cluster()).next().is_none())
    }

    /// How a pod starts whose policies are known, as the kernel has them.
    fn outcome(&self, pod: &RuntimePod) -> StartOutcome {
        let is_among =
            |of: &[(Direction, IpAddr)]| of.iter().any(|(_, address)| pod.addresses.contains(address));
        let shortfall = &self.shortfall;
        if is_among(&shortfall.not_enforced) {
            let reason = shortfall.rejection.clone().unwrap_or_default();
            return match self.runtime.pod_start {
                PodStart::Closed => StartOutcome::Refused(reason),
                PodStart::Open => StartOutcome::Open(reason),
            };
        }
        if is_among(&shortfall.cut_off) {
            return StartOutcome::Closed("its policies could not be programmed".to_owned());
        }
        StartOutcome::Programmed
    }

    /// Closes a pod whose policies are not known in time, or lets it start as it is.
    fn without_policies(&mut self, pod: &RuntimePod) -> StartOutcome {
        let reason = if self.agent.reconciler().is_waiting() {
            "the agent has not read the policies yet".to_owned()
        } else if self.policies_are_known(&pod.key.namespace) {
            "the API server has not reported the pod yet".to_owned()
        } else {
            let namespaces = &mut self.runtime.unknown_namespaces;
            if namespaces.len() >= MAX_UNKNOWN_NAMESPACES {
                namespaces.clear();
            }
            namespaces.insert(pod.key.namespace.clone());
            format!("the API server has not reported namespace {} yet", pod.key.namespace)
        };
        self.start_closed(Closed::new(pod), &reason)
    }

    /// Starts a pod closed, or as it is if that is wanted.
    pub(super) fn start_closed(&mut self, closed: Closed, reason: &str) -> StartOutcome {
        let (pod, is_programmed) = (closed.pod.clone(), closed.programmed.is_some());
        self.errors.record("runtime", format!("{}: {reason}", pod.key));
        let outcome = match self.runtime.pod_start {
            PodStart::Open => StartOutcome::Open(reason.to_owned()),
            PodStart::Closed => {
                self.runtime.closed.insert(pod.id.clone(), closed);
                match self.close() {
                    Ok(()) => {
                        self.agent.data_plane().drop_waiting_packets(&pod.addresses);
                        StartOutcome::Closed(reason.to_owned())
                    }
                    Err(err) => {
                        self.runtime.closed.remove(&pod.id);
                        StartOutcome::Refused(err)
                    }
                }
            }
        };
        self.report_start(&pod, &outcome, reason, is_programmed);
        outcome
    }

    /// Makes the kernel drop the traffic of the closed pods.
    fn close(&mut self) -> Result<(), String> {
        let mut closed = std::mem::take(&mut self.runtime.closed);
        for one in closed.values_mut().filter(|one| one.programmed.is_none()) {
            one.directions = self.unknown_directions(&one.pod);
        }
        let addresses = closed.values().flat_map(|one| {
            one.pod.addresses.iter().flat_map(|address| one.directions.iter().map(|d| (*d, *address)))
        });
        let addresses: BTreeSet<(Direction, IpAddr)> = addresses.collect();
        self.runtime.closed = closed;
        self.agent.close_unknown(addresses).map_err(|error| {
            let err = error_chain::with_causes(&error);
            tracing::error!(err, "cannot close pods whose policies are not known");
            self.errors.record("runtime", err.clone());
            err
        })
    }

    /// The directions in which policies may select a pod that isn't known. Without labels it also may be a peer that other pods' policies
    /// exclude, so that neither direction is open.
    fn unknown_directions(&self, pod: &RuntimePod) -> Vec<Direction> {
        let reconciler = self.agent.reconciler();
        let is_without_labels = !self.runtime.pods.has_labels(&pod.id) && self.may_be_selected(pod);
        let both = Direction::BOTH.into_iter();
        both.filter(|direction| {
            reconciler.is_waiting()
                || is_without_labels
                || cluster_wide(reconciler.cluster()).any(|policy| has_rules(policy, *direction))
        })
        .collect()
    }

    /// Opens closed pods whose policies are programmed, once the connections that are older than these are reviewed, or after a while if
    /// reviews fail.
    pub(super) fn open_closed(&mut self) {
        if self.runtime.closed.is_empty() && !self.agent.has_closed_unknown() {
            return;
        }
        let (now, before) = (Instant::now(), self.runtime.closed.len());
        let mut closed = std::mem::take(&mut self.runtime.closed);
        for one in closed.values_mut() {
            if one.programmed.is_none() && self.is_known(&one.pod) {
                one.programmed = Some(now);
                self.review_due = self.agent.hurry_review();
            }
        }
        let unreviewed_for = self.agent.review_state().unreviewed_for;
        let opening = |one: &Closed| one.opening(unreviewed_for, now);
        let unreviewed: Vec<RuntimePod> = closed
            .values()
            .filter(|one| opening(one) == Opening::Unreviewed)
            .map(|one| one.pod.clone())
            .collect();
        closed.retain(|_, one| opening(one) == Opening::Waits);
        self.runtime.closed = closed;
        let unknown = std::mem::take(&mut self.runtime.unknown_namespaces);
        let unknown = unknown.into_iter().filter(|name| !self.policies_are_known(name)).collect();
        self.runtime.unknown_namespaces = unknown;
        let opened = before - self.runtime.closed.len();
        // What the kernel refuses is logged, and tried again with the next call.
        if self.close().is_ok() && opened > 0 {
            tracing::info!(pods = opened, "policies of pods that started closed are programmed");
            unreviewed.iter().for_each(|pod| self.opened_unreviewed(pod));
        }
    }

    /// Says that a pod was opened although connections that are older than its policies may go on.
    fn opened_unreviewed(&self, pod: &RuntimePod) {
        let err = self.reviews.failure().unwrap_or("the review takes too long");
        tracing::warn!(
            pod = %pod.key,
            err,
            "opened a pod that started closed, connections that are older than its policies may continue"
        );
        self.metrics.pods_opened_unreviewed.inc();
        let what = "the pod started closed, and is opened: its policies are in force for new connections, but connections \
            that are older could not be re-evaluated";
        self.report_to(pod, format!("on node {}, {what}: {err}", self.node));
    }

    /// Says that connections that are older than a pod may go on, because they could not be deleted.
    pub(super) fn left_with_older(&self, pod: &RuntimePod) {
        tracing::warn!(pod = %pod.key, "connections that are older than the pod could not be deleted, they may continue");
        self.metrics.pods_opened_unreviewed.inc();
        let what = "the pod's policies are in force for new connections, but connections that are older than the pod could not be deleted";
        self.report_to(pod, format!("on node {}, {what}", self.node));
    }

    /// Reports to the cluster that a pod started without its policies, or with older connections.
    fn report_start(&self, pod: &RuntimePod, outcome: &StartOutcome, reason: &str, is_programmed: bool) {
        let node = &self.node;
        let how = match (outcome, is_programmed) {
            (StartOutcome::Closed(_), false) => {
                "starts closed: its traffic is dropped until its policies are in force"
            }
            (StartOutcome::Closed(_), true) => {
                "starts closed: its traffic is dropped until these connections are re-evaluated"
            }
            (StartOutcome::Refused(_), _) => "is not started",
            (_, false) => "starts before its policies are programmed",
            (_, true) => "starts, and these connections may continue until they are re-evaluated",
        };
        self.report_to(pod, format!("on node {node}, {reason}; the pod {how}"));
    }

    /// Reports an Event about a pod.
    fn report_to(&self, pod: &RuntimePod, note: String) {
        let Some(reporter) = self.reporter.get() else { return };
        let object = ObjectRef {
            kind: ResourceKind::Pod,
            namespace: Some(pod.key.namespace.clone()),
            name: pod.key.name.clone(),
            uid: pod.uid.to_string().into(),
            generation: 0,
        };
        reporter.pod_start(object, note);
    }
}

/// Whether a pod has to wait on.
enum Wait {
    Over(StartOutcome),
    Goes,
    TooLong,
}

/// Changes that are to be programmed together.
#[derive(Default)]
struct Changes {
    list: Vec<Change>,
    keys: BTreeSet<ObjectKey>,
}

impl Changes {
    fn extend(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.keys.extend(match &change {
                Change::SetPod(pod) => Some(pod.key.clone()),
                Change::RemovePod(key) => Some(key.clone()),
                _ => None,
            });
            self.list.push(change);
        }
    }

    /// Whether one of them is about this pod.
    fn concern(&self, key: &ObjectKey) -> bool {
        self.keys.contains(key)
    }
}

/// The policies that select pods by the labels of their namespaces.
fn cluster_wide(cluster: &Cluster) -> impl Iterator<Item = &Policy> {
    cluster.policies.values().map(|policy| &**policy).filter(|policy| policy.tier != Tier::Developer)
}

fn has_rules(policy: &Policy, direction: Direction) -> bool {
    let rules = match direction {
        Direction::Ingress => &policy.ingress,
        Direction::Egress => &policy.egress,
    };
    rules.as_ref().is_some_and(|rules| !rules.is_empty())
}

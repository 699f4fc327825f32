//! Programs pods that the container runtime announces, and tells how they start.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use palisade_api::{ObjectRef, ResourceKind};
use palisade_policy::{Change, Cluster, Direction, Name, ObjectKey, Policy, Tier};

use super::Worker;
use crate::{
    DataPlane as _,
    config::{Config, PodStart},
    daemon::runtime_event::{RuntimeEvent, Start, StartOutcome},
    error_chain,
    runtime_pods::{RuntimePod, RuntimePods},
};

/// Namespaces that the API server did not report in time, of which pods don't wait again.
const MAX_UNKNOWN_NAMESPACES: usize = 1000;

/// What the worker knows from the container runtime.
#[derive(Debug)]
pub(super) struct RuntimeState {
    pub(super) pods: RuntimePods,
    pod_start: PodStart,
    /// When pods no longer wait for the first snapshot.
    snapshot_until: Instant,
    /// Pods that wait, in the order of their arrival.
    waiting: Vec<Start>,
    /// Pods that have started closed, by sandbox.
    closed: BTreeMap<String, RuntimePod>,
    /// Namespaces for which a pod has waited in vain.
    unknown_namespaces: BTreeSet<Name>,
}

impl RuntimeState {
    pub(super) fn new(config: &Config, node: &Name) -> Self {
        Self {
            pods: RuntimePods::new(node.clone()),
            pod_start: config.pod_start,
            snapshot_until: Instant::now() + Duration::from_millis(config.pod_start_timeout),
            waiting: Vec::new(),
            closed: BTreeMap::new(),
            unknown_namespaces: BTreeSet::new(),
        }
    }

    /// When the next pod has waited long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.iter().map(|start| start.deadline).min()
    }
}

impl Worker {
    /// Applies what the runtime has reported, and answers for the pods that wait.
    pub(super) fn process_runtime(&mut self, events: Vec<RuntimeEvent>) {
        let (mut changes, mut received) = (Changes::default(), None);
        let own = self.agent.data_plane().host_addresses().unwrap_or_default();
        for event in events {
            match event {
                RuntimeEvent::Synchronized(mut list) => {
                    list.retain(|pod| !pod.addresses.iter().any(|address| own.contains(address)));
                    self.flush(&mut changes, received.take());
                    let (found, result) =
                        self.runtime.pods.synchronize(list, self.agent.reconciler().cluster());
                    changes.extend(found);
                    if let Err(error) = result {
                        self.too_many(&error.to_string());
                    }
                }
                RuntimeEvent::Started(start) if start.pod.addresses.iter().any(|a| own.contains(a)) => {
                    _ = start.respond.send(StartOutcome::Programmed);
                }
                RuntimeEvent::Started(start) => {
                    if changes.concern(&start.pod.key) {
                        self.flush(&mut changes, received.take());
                    }
                    received.get_or_insert(start.arrived);
                    match self.runtime.pods.start(start.pod.clone(), self.agent.reconciler().cluster()) {
                        Ok(found) => {
                            changes.extend(found);
                            self.runtime.waiting.push(start);
                        }
                        Err(error) => {
                            self.too_many(&error.to_string());
                            _ = start.respond.send(StartOutcome::Open(error.to_string()));
                        }
                    }
                }
                RuntimeEvent::Stopped(id) => {
                    received.get_or_insert_with(Instant::now);
                    self.runtime.waiting.retain(|start| start.pod.id != id);
                    self.runtime.closed.remove(&id);
                    changes.extend(self.runtime.pods.stop(&id));
                }
                RuntimeEvent::Disconnected => changes.extend(self.runtime.pods.disconnect()),
            }
        }
        self.flush(&mut changes, received);
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
        let changes = shared.collect();
        let report = self.agent.apply(changes);
        self.apply_report(report, received);
    }

    /// Answers for the pods whose policies are programmed or that have waited long enough, and opens those whose policies are known now.
    pub(super) fn answer_starts(&mut self) {
        let now = Instant::now();
        let waiting = std::mem::take(&mut self.runtime.waiting);
        for start in waiting {
            match self.wait_of(&start, now) {
                Wait::Over(outcome) => _ = start.respond.send(outcome),
                Wait::Goes => self.runtime.waiting.push(start),
                Wait::TooLong => {
                    let outcome = self.without_policies(&start.pod);
                    _ = start.respond.send(outcome);
                }
            }
        }
        self.open_closed();
    }

    fn wait_of(&self, start: &Start, now: Instant) -> Wait {
        let is_known = self.policies_are_known(&start.pod.key.namespace);
        if is_known {
            return Wait::Over(self.outcome(&start.pod));
        }
        let in_vain = match self.agent.reconciler().is_waiting() {
            true => now >= self.runtime.snapshot_until,
            false => self.runtime.unknown_namespaces.contains(&start.pod.key.namespace),
        };
        if in_vain || now >= start.deadline { Wait::TooLong } else { Wait::Goes }
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
        if is_among(&shortfall.cut_off) { StartOutcome::Closed } else { StartOutcome::Programmed }
    }

    /// Closes a pod whose policies are not known in time, or lets it start as it is.
    fn without_policies(&mut self, pod: &RuntimePod) -> StartOutcome {
        let reason = if self.agent.reconciler().is_waiting() {
            "the agent has not read the policies yet".to_owned()
        } else {
            let namespaces = &mut self.runtime.unknown_namespaces;
            if namespaces.len() >= MAX_UNKNOWN_NAMESPACES {
                namespaces.clear();
            }
            namespaces.insert(pod.key.namespace.clone());
            format!("the API server has not reported namespace {} yet", pod.key.namespace)
        };
        self.errors.record("runtime", format!("{}: {reason}", pod.key));
        let outcome = match self.runtime.pod_start {
            PodStart::Open => StartOutcome::Open(reason.clone()),
            PodStart::Closed => {
                self.runtime.closed.insert(pod.id.clone(), pod.clone());
                match self.close() {
                    Ok(()) => StartOutcome::Closed,
                    Err(err) => {
                        self.runtime.closed.remove(&pod.id);
                        StartOutcome::Refused(err)
                    }
                }
            }
        };
        self.report_start(pod, &outcome, &reason);
        outcome
    }

    /// Makes the kernel drop the traffic of the closed pods.
    fn close(&mut self) -> Result<(), String> {
        let reconciler = self.agent.reconciler();
        let directions: Vec<Direction> = Direction::BOTH
            .into_iter()
            .filter(|direction| {
                reconciler.is_waiting()
                    || cluster_wide(reconciler.cluster()).any(|policy| has_rules(policy, *direction))
            })
            .collect();
        let addresses = self.runtime.closed.values().flat_map(|pod| &pod.addresses);
        let addresses: BTreeSet<(Direction, IpAddr)> =
            addresses.flat_map(|address| directions.iter().map(|direction| (*direction, *address))).collect();
        self.agent.close_unknown(addresses).map_err(|error| {
            let err = error_chain::with_causes(&error);
            tracing::error!(err, "cannot close pods whose policies are not known");
            self.errors.record("runtime", err.clone());
            err
        })
    }

    /// Opens closed pods whose policies are programmed now.
    fn open_closed(&mut self) {
        if self.runtime.closed.is_empty() && !self.agent.has_closed_unknown() {
            return;
        }
        let known: BTreeSet<Name> = {
            let namespaces = self.runtime.closed.values().map(|pod| &pod.key.namespace);
            namespaces.filter(|name| self.policies_are_known(name)).cloned().collect()
        };
        let before = self.runtime.closed.len();
        self.runtime.closed.retain(|_, pod| !known.contains(&pod.key.namespace));
        self.runtime.unknown_namespaces.retain(|name| !known.contains(name));
        let opened = before - self.runtime.closed.len();
        // What the kernel refuses is logged, and tried again with the next call.
        if self.close().is_ok() && opened > 0 {
            tracing::info!(pods = opened, "policies of pods that started closed are programmed");
        }
    }

    /// Reports to the cluster that a pod started without its policies.
    fn report_start(&self, pod: &RuntimePod, outcome: &StartOutcome, reason: &str) {
        let Some(reporter) = self.reporter.get() else { return };
        let object = ObjectRef {
            kind: ResourceKind::Pod,
            namespace: Some(pod.key.namespace.clone()),
            name: pod.key.name.clone(),
            uid: pod.uid.to_string().into(),
            generation: 0,
        };
        let node = &self.node;
        let how = match outcome {
            StartOutcome::Closed => "starts closed: its traffic is dropped until its policies are programmed",
            StartOutcome::Refused(_) => "is not started",
            StartOutcome::Open(_) | StartOutcome::Programmed => "starts before its policies are programmed",
        };
        reporter.pod_start(object, format!("on node {node}, {reason}; the pod {how}"));
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

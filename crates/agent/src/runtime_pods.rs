//! Pods as the container runtime and the API server describe them, merged into one view. Pure: no I/O, no clock.
//!
//! ```text
//!   API server ── snapshot, changes ──► api_snapshot, api_change ─┐
//!                                                                 ├─► the same Changes that a watch delivers
//!   container runtime ─ start, stop, ─► start, stop, synchronize ─┘
//!                       list
//! ```
//!
//! What is known of one pod name is merged by these rules. Two descriptions are of the same pod if their UIDs are equal. The mirror of a
//! static pod has the runtime's UID as an annotation, which `palisade_manifest` reads as its UID. A pod without a UID that can be read is
//! matched by its name.
//!
//! 1. **A pod that the runtime has announced** (its sandbox *started*) exists, on this node, with the addresses of its sandbox, until that
//!    sandbox is stopped. No other pod has these addresses, whatever the API server says; of two sandboxes the one that started last has
//!    them.
//! 2. **Everything else about it**, labels above all, is what the API server says of that pod; as long as it does not know the pod, what
//!    the runtime says; and once it has deleted the pod, or has another pod of that name, what it said last. An older pod of the same name
//!    therefore never lends its labels to a new one.
//! 3. **A pod that has finished** (Succeeded, Failed) or shares the node's network according to the API server is as the API server says.
//! 4. **A pod that the runtime has only listed**, at the beginning of a connection, may be gone: a list has stopped sandboxes too. So the API
//!    server's addresses count, and those of the list only if the API server has none. They yield to any other pod that has them.
//! 5. **A stopped sandbox** frees its addresses at once: the pod that it belonged to, as the API server still describes it, is without
//!    them until the API server deletes or replaces it, or the pod gets another sandbox. The deletion then changes nothing.
//! 6. **While there is no connection to the runtime**, sandboxes are kept, since their pods keep running. What was freed by rule 5 is again
//!    as the API server says: a start could be missed. The list of the next connection decides which sandboxes are left.
//! 7. **A pod whose labels are not known yet** counts as a pod without labels. The caller asks [`RuntimePods::has_labels`] and closes such a
//!    pod.
//! 8. **A sandbox without addresses** (of a host-network pod, or of a runtime that doesn't report them) is not merged at all. In a list it says
//!    that a sandbox that is held exists.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use palisade_policy::{Change, Cluster, Labels, Name, ObjectKey, Phase, Pod, Uid};

/// The most sandboxes that are held. A node runs some hundred pods.
const MAX_SANDBOXES: usize = 4096;
/// The most names with a stopped sandbox that the API server still has to catch up with.
const MAX_STOPPED: usize = 4096;
/// Pods that the runtime has started are newer than all that are known from the API server, in the order of their start: the newest pod
/// owns an address (SEMANTICS G-10).
const FIRST_START: i64 = i64::MAX >> 1;

/// A pod's sandbox as the runtime describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuntimePod {
    /// The sandbox's id.
    pub(crate) id: String,
    /// Namespace and name of the pod.
    pub(crate) key: ObjectKey,
    /// Unknown if a tool other than the kubelet made the sandbox.
    pub(crate) uid: Uid,
    /// The pod's labels when the sandbox was made. `None` if they are not known: a CNI plugin is not told labels.
    pub(crate) labels: Option<Labels>,
    /// Empty only in a list: the runtime doesn't report addresses. Such a pod is not added, but one that is held stays.
    pub(crate) addresses: Vec<IpAddr>,
    /// The path of its network namespace on the node, if it is known.
    pub(crate) network_namespace: Option<PathBuf>,
}

/// A sandbox is not held because there are too many.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the container runtime has more than {MAX_SANDBOXES} pods")]
pub(crate) struct TooManySandboxes;

/// What is known of the pods that the runtime has.
#[derive(Debug)]
pub(crate) struct RuntimePods {
    node: Name,
    held: BTreeMap<ObjectKey, Held>,
    /// The pods' names, by sandbox.
    keys: BTreeMap<String, ObjectKey>,
    /// How many sandboxes have started.
    starts: i64,
    /// How many names have a stopped sandbox.
    stopped: usize,
}

/// What is known of one name.
#[derive(Debug, Default)]
struct Held {
    /// Its sandboxes: those that were listed, then those that started, in this order.
    sandboxes: Vec<Sandbox>,
    /// The sandbox that was stopped last, if there is no other.
    stopped: Option<RuntimePod>,
    /// What the API server says.
    api: Option<Pod>,
    /// What the API server said last of the pod that the newest sandbox belongs to.
    last: Option<Pod>,
}

#[derive(Debug)]
struct Sandbox {
    pod: RuntimePod,
    /// When it started, as a number. `None`: it was only listed.
    started: Option<i64>,
}

impl RuntimePods {
    pub(crate) fn new(node: Name) -> Self {
        Self { node, held: BTreeMap::new(), keys: BTreeMap::new(), starts: 0, stopped: 0 }
    }

    /// Replaces a change of the API server by that of the merged pod. `O(log pods)`.
    pub(crate) fn api_change(&mut self, change: Change) -> Change {
        let (key, api) = match change {
            Change::SetPod(pod) if self.held.contains_key(&pod.key) => (pod.key.clone(), Some(pod)),
            Change::RemovePod(key) if self.held.contains_key(&key) => (key, None),
            other => return other,
        };
        self.edit(key, |held| held.set_api(api))
    }

    /// Merges the held pods into a snapshot of the API server.
    pub(crate) fn api_snapshot(&mut self, cluster: &mut Cluster) {
        let keys: Vec<ObjectKey> = self.held.keys().cloned().collect();
        for key in keys {
            let api = cluster.pods.get(&key).cloned();
            cluster.apply(self.edit(key, |held| held.set_api(api)));
        }
    }

    /// Adds a sandbox that has started. `cluster` is what the API server has said so far, merged. `O(log pods)`.
    ///
    /// # Errors
    /// If there are too many.
    pub(crate) fn start(
        &mut self,
        pod: RuntimePod,
        cluster: &Cluster,
    ) -> Result<Vec<Change>, TooManySandboxes> {
        let key = pod.key.clone();
        // Ids are unique. One that is used for another pod is no longer the first one's.
        let is_anothers = self.keys.get(&pod.id).is_some_and(|other| *other != key);
        let mut changes: Vec<Change> =
            is_anothers.then(|| self.stop(&pod.id)).flatten().into_iter().collect();
        self.starts += 1;
        let started = Some(self.starts);
        self.add(Sandbox { pod, started }, cluster)?;
        changes.push(self.edit(key, |_| ()));
        Ok(changes)
    }

    /// Removes a sandbox. Returns `None` if it isn't known. `O(log pods)`.
    pub(crate) fn stop(&mut self, id: &str) -> Option<Change> {
        let key = self.keys.remove(id)?;
        let may_mark = self.stopped < MAX_STOPPED;
        Some(self.edit(key, |held| held.stop(id, may_mark)))
    }

    /// Replaces the sandboxes by a list of those that exist. `cluster` is as for [`RuntimePods::start`]. `O(sandboxes · log pods)`.
    ///
    /// # Errors
    /// If there are too many: the others are held.
    pub(crate) fn synchronize(
        &mut self,
        list: Vec<RuntimePod>,
        cluster: &Cluster,
    ) -> (Vec<Change>, Result<(), TooManySandboxes>) {
        let listed: BTreeSet<&str> = list.iter().map(|pod| &*pod.id).collect();
        let gone = self.keys.keys().filter(|id| !listed.contains(&***id));
        let gone: Vec<String> = gone.cloned().collect();
        // Additions first: a name that is held all the time is not looked up in the cluster, which has no change of this call yet.
        let (mut changes, mut result) = (Vec::new(), Ok(()));
        for pod in list {
            let key = pod.key.clone();
            if self.keys.contains_key(&pod.id) {
                changes.extend(self.add_labels(pod).then(|| self.edit(key, |_| ())));
                continue;
            }
            if pod.addresses.is_empty() {
                continue;
            }
            match self.add(Sandbox { pod, started: None }, cluster) {
                Ok(()) => changes.push(self.edit(key, |_| ())),
                Err(error) => result = Err(error),
            }
        }
        changes.extend(gone.iter().filter_map(|id| self.stop(id)));
        (changes, result)
    }

    /// Whether the labels of a sandbox's pod are known, from the announcement or from the API server.
    pub(crate) fn has_labels(&self, id: &str) -> bool {
        let held = self.keys.get(id).and_then(|key| self.held.get(key));
        held.is_some_and(|held| held.has_labels(id))
    }

    /// Whether a sandbox is held.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.keys.contains_key(id)
    }

    /// Whether this sandbox has started before with these addresses: it is announced again.
    pub(crate) fn has_started(&self, pod: &RuntimePod) -> bool {
        let held = self.keys.get(&pod.id).and_then(|key| self.held.get(key));
        let known = held.and_then(|held| held.sandboxes.iter().find(|known| known.pod.id == pod.id));
        known.is_some_and(|known| {
            known.started.is_some()
                && pod.addresses.iter().all(|address| known.pod.addresses.contains(address))
        })
    }

    /// Adds labels to a sandbox that was announced without. Returns whether it did.
    fn add_labels(&mut self, pod: RuntimePod) -> bool {
        let held = self.held.get_mut(&pod.key);
        let known = held.and_then(|held| held.sandboxes.iter_mut().find(|known| known.pod.id == pod.id));
        let Some(known) = known.filter(|known| known.pod.labels.is_none() && pod.labels.is_some()) else {
            return false;
        };
        known.pod.labels = pod.labels;
        true
    }

    /// Forgets which sandboxes were stopped: starts may be missed from now on.
    pub(crate) fn disconnect(&mut self) -> Vec<Change> {
        let stopped = self.held.iter().filter(|(_, held)| held.stopped.is_some());
        let keys: Vec<ObjectKey> = stopped.map(|(key, _)| key.clone()).collect();
        keys.into_iter().map(|key| self.edit(key, |held| held.stopped = None)).collect()
    }

    fn add(&mut self, sandbox: Sandbox, cluster: &Cluster) -> Result<(), TooManySandboxes> {
        let (id, key) = (sandbox.pod.id.clone(), sandbox.pod.key.clone());
        if self.keys.len() >= MAX_SANDBOXES && !self.keys.contains_key(&id) {
            return Err(TooManySandboxes);
        }
        self.keys.insert(id, key.clone());
        // A name that isn't held is in the cluster as the API server has it.
        let fresh = || Held { api: cluster.pods.get(&key).cloned(), ..Held::default() };
        let held = self.held.entry(key.clone()).or_insert_with(fresh);
        self.stopped -= usize::from(held.stopped.take().is_some());
        held.add(sandbox);
        Ok(())
    }

    /// Edits what is held of a name, and returns the change that follows.
    fn edit(&mut self, key: ObjectKey, edit: impl FnOnce(&mut Held)) -> Change {
        let Some(held) = self.held.get_mut(&key) else { return Change::RemovePod(key) };
        let before = held.stopped.is_some();
        edit(held);
        self.stopped = self.stopped + usize::from(held.stopped.is_some()) - usize::from(before);
        let merged = held.merged(&self.node);
        if held.sandboxes.is_empty() && held.stopped.is_none() {
            self.held.remove(&key);
        }
        merged.map_or(Change::RemovePod(key), Change::SetPod)
    }
}

impl Held {
    /// The sandbox whose pod the name stands for: the one that started last, else the one listed last.
    fn newest(&self) -> Option<&Sandbox> {
        self.sandboxes.last()
    }

    fn has_labels(&self, id: &str) -> bool {
        let Some(sandbox) = self.sandboxes.iter().find(|sandbox| sandbox.pod.id == id) else { return false };
        let is_its = |pod: &Pod| pod.uid.may_be(sandbox.pod.uid);
        sandbox.pod.labels.is_some() || self.last.as_ref().is_some_and(is_its)
    }

    fn add(&mut self, mut sandbox: Sandbox) {
        // It may be announced twice, once with labels.
        let before = self.sandboxes.iter().find(|known| known.pod.id == sandbox.pod.id);
        if sandbox.pod.labels.is_none() {
            sandbox.pod.labels = before.and_then(|known| known.pod.labels.clone());
        }
        self.sandboxes.retain(|known| known.pod.id != sandbox.pod.id);
        let at = match sandbox.started {
            Some(_) => self.sandboxes.len(),
            None => self.sandboxes.partition_point(|known| known.started.is_none()),
        };
        self.sandboxes.insert(at, sandbox);
        self.remember();
    }

    fn stop(&mut self, id: &str, may_mark: bool) {
        let Some(at) = self.sandboxes.iter().position(|sandbox| sandbox.pod.id == id) else { return };
        let sandbox = self.sandboxes.remove(at);
        let is_awaited = match (&self.api, &self.last) {
            (Some(api), _) => api.uid.may_be(sandbox.pod.uid),
            // The API server has deleted it before.
            (None, Some(_)) => false,
            // The API server doesn't know it yet.
            (None, None) => true,
        };
        self.stopped = Some(sandbox.pod).filter(|_| may_mark && self.sandboxes.is_empty() && is_awaited);
        self.remember();
    }

    fn set_api(&mut self, api: Option<Pod>) {
        self.api = api;
        self.remember();
        let is_awaited =
            |stopped: &RuntimePod| self.api.as_ref().is_some_and(|api| api.uid.may_be(stopped.uid));
        if !self.stopped.as_ref().is_some_and(is_awaited) {
            self.stopped = None;
        }
    }

    /// Updates what the API server said last of the newest sandbox's pod.
    fn remember(&mut self) {
        let uid = self.newest().map(|newest| newest.pod.uid);
        let is_its = |pod: &Pod| uid.is_some_and(|uid| pod.uid.may_be(uid));
        match &self.api {
            Some(api) if is_its(api) => self.last = Some(api.clone()),
            _ => self.last = self.last.take().filter(|last| is_its(last)),
        }
    }

    /// The pod of this name, by the rules of the module.
    fn merged(&self, node: &Name) -> Option<Pod> {
        let Some(newest) = self.newest() else {
            return self.api.clone().map(|api| self.without_stopped(api));
        };
        let own = self.api.as_ref().filter(|api| api.uid.may_be(newest.pod.uid));
        let has_ended = |pod: &Pod| pod.host_network || matches!(pod.phase, Phase::Succeeded | Phase::Failed);
        if let Some(api) = own.filter(|api| has_ended(api)) {
            return Some(api.clone());
        }
        let Some(started) = newest.started else { return Some(self.listed(node)) };
        let base = own.or(self.last.as_ref()).cloned().filter(|pod| !has_ended(pod));
        let mut pod = base.unwrap_or_else(|| described(&newest.pod));
        pod.addresses = self.addresses(|sandbox| sandbox.started.is_some());
        pod.node = Some(node.clone());
        pod.phase = Phase::Running;
        pod.created = FIRST_START + started;
        Some(pod)
    }

    /// The pod of a name whose sandboxes were only listed.
    fn listed(&self, node: &Name) -> Pod {
        match &self.api {
            Some(api) if !api.addresses.is_empty() => api.clone(),
            Some(api) => Pod { addresses: self.addresses(|s| s.pod.uid.may_be(api.uid)), ..api.clone() },
            None => {
                let base = self.last.clone().or_else(|| self.newest().map(|newest| described(&newest.pod)));
                let mut pod = base.unwrap_or_else(|| unreachable!("it has a sandbox"));
                // Another pod that has one of the addresses owns it.
                (pod.phase, pod.created) = (Phase::Pending, 0);
                pod.addresses = self.addresses(|_| true);
                pod.node = Some(node.clone());
                pod
            }
        }
    }

    /// The addresses of some sandboxes, the newest first, each once.
    fn addresses(&self, of: impl Fn(&Sandbox) -> bool) -> Vec<IpAddr> {
        let mut out = Vec::new();
        let sandboxes = self.sandboxes.iter().rev().filter(|sandbox| of(sandbox));
        for address in sandboxes.flat_map(|sandbox| &sandbox.pod.addresses) {
            if !out.contains(address) {
                out.push(*address);
            }
        }
        out
    }

    /// Removes the addresses that the stopped sandbox had.
    fn without_stopped(&self, mut api: Pod) -> Pod {
        if let Some(stopped) = &self.stopped {
            api.addresses.retain(|address| !stopped.addresses.contains(address));
        }
        api
    }
}

/// Whether an address can be a pod's own.
pub(crate) fn is_of_pod(address: &IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(is_link_local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}

/// A pod of which nothing but its sandbox is known. Its container ports aren't, so rules with port names don't allow it anything yet.
fn described(sandbox: &RuntimePod) -> Pod {
    Pod {
        uid: sandbox.uid,
        ..Pod::new(sandbox.key.clone(), sandbox.labels.clone().unwrap_or_default(), Vec::new())
    }
}

#[cfg(test)]
mod tests;

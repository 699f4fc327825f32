//! Objects of files that replace objects of a cluster.
//!
//! An object of a file replaces the cluster's object of the same kind, namespace and name. Properties
//! that only the cluster can provide are kept: addresses, nodes, phases, and which pods a workload has.

use palisade_policy::{Labels, Name, Node, Pod};

use crate::declared::{DeclaredPod, DeclaredService, DeclaredWorkload};

/// Labels that controllers add to the labels of the pod template.
const CONTROLLERS_LABELS: &[&str] = &[
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-name",
    "controller-revision-hash",
    "controller-uid",
    "job-name",
    "pod-template-generation",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

/// Completes a pod of a file from the pod of the cluster that it replaces. A pod without a status keeps its addresses and
/// its phase.
pub(crate) fn pod(new: &mut DeclaredPod, old: Option<&DeclaredPod>) {
    let Some(old) = old.filter(|old| old.from_cluster && !new.from_cluster) else { return };
    if new.pod.addresses.is_empty() && new.pod.host_network == old.pod.host_network {
        new.pod.addresses.clone_from(&old.pod.addresses);
        new.pod.phase = old.pod.phase;
        new.awaits_address = old.awaits_address;
    }
    new.pod.node = new.pod.node.take().or_else(|| old.pod.node.clone());
    new.pod.workload = new.pod.workload.take().or_else(|| old.pod.workload.clone());
    new.pod.created = old.pod.created;
}

/// Completes a node of a file: without addresses, it keeps those of the node that it replaces.
pub(crate) fn node(new: &mut Node, old: Option<&Node>, from_cluster: bool) {
    if let Some(old) = old.filter(|_| !from_cluster && new.addresses.is_empty()) {
        new.addresses.clone_from(&old.addresses);
    }
}

/// Completes a service of a file: one that needs addresses keeps those of the service that it replaces. A service of the
/// cluster has the addresses that it reports.
pub(crate) fn service(new: &mut DeclaredService, old: Option<&DeclaredService>, from_cluster: bool) {
    if from_cluster {
        new.needs_address = false;
    } else if let Some(old) = old
        && new.needs_address
        && (!old.service.addresses.is_empty() || old.service.access.headless)
    {
        new.service.addresses.clone_from(&old.service.addresses);
        new.service.access.headless = old.service.access.headless;
        new.needs_address = false;
    }
}

/// Changes a pod of the cluster as the rollout of the file's version of its workload will.
pub(crate) fn roll_out(pod: &mut Pod, workload: &DeclaredWorkload) {
    let template = &workload.template;
    let own = |key: &Name| CONTROLLERS_LABELS.contains(&&**key) && template.labels.get(key).is_none();
    let kept = pod.labels.iter().filter(|(key, _)| own(key));
    pod.labels = template.labels.iter().chain(kept).map(|(k, v)| (k.clone(), v.clone())).collect::<Labels>();
    pod.ports = template.ports.clone();
    if pod.host_network != template.host_network {
        pod.host_network = template.host_network;
        pod.addresses.clear();
    }
}

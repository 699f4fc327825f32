//! Files over the objects of a live cluster: what a file doesn't say and the cluster has decided stays.
//!
//! An object of a file replaces the live one of its kind, namespace and name, labels and rules alike. What only the
//! cluster can know is kept: addresses, nodes, phases, and which pods a workload has.

use palisade_policy::{Labels, Name, Node, Pod};

use crate::{gather::Gathered, pod::DeclaredPod, service::DeclaredService, workload::DeclaredWorkload};

/// Labels that controllers put on the pods that they make, beside those of the template.
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

/// A pod of a file over a live one. One without any status keeps what the cluster knows of it.
pub(crate) fn pod(new: &mut DeclaredPod, all: &Gathered) {
    let Some(old) = all.pods.get(&new.pod.key).filter(|old| old.live && !new.live) else { return };
    if new.pod.addresses.is_empty() && new.pod.host_network == old.pod.host_network {
        new.pod.addresses.clone_from(&old.pod.addresses);
        new.pod.phase = old.pod.phase;
        new.waits = old.waits;
    }
    new.pod.node = new.pod.node.take().or_else(|| old.pod.node.clone());
    new.pod.workload = new.pod.workload.take().or_else(|| old.pod.workload.clone());
    new.pod.created = old.pod.created;
}

/// A node of a file over a live one, whose addresses stay; for a live one nothing.
pub(crate) fn node(new: &mut Node, all: &Gathered, live: bool) {
    if let Some(old) = all.nodes.get(&new.name).filter(|_| !live && new.addresses.is_empty()) {
        new.addresses.clone_from(&old.addresses);
    }
}

/// A service of a file over a live one, whose addresses stay as far as the file wants any. A live one has what it has.
pub(crate) fn service(new: &mut DeclaredService, all: &Gathered, live: bool) {
    if live {
        new.wants.clear();
    } else if let Some(old) = all.services.get(&new.service.key)
        && !new.wants.is_empty()
        && !old.service.addresses.is_empty()
    {
        new.service.addresses.clone_from(&old.service.addresses);
        new.wants.clear();
    }
}

/// A live pod as it will be when the file's version of its workload is rolled out.
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

//! A candidate: today's cluster with the objects of other manifests in place of its own.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use palisade_manifest::{LoadOptions, Loaded};
use palisade_policy::{Change, Cluster, Name, ObjectKey, Pod, Pods, Workload};

use crate::{
    addresses::AddressArguments,
    inputs::{self, ReadingArguments},
};

/// Reads a candidate. Its warnings are not reported: of objects that are elsewhere, they would be wrong.
///
/// # Errors
/// As [`inputs::load_inputs`].
pub(super) fn read(
    path: &str,
    namespace: &str,
    reading: &ReadingArguments,
    addresses: &AddressArguments,
) -> Result<Loaded> {
    let options = LoadOptions {
        default_namespace: namespace.to_owned(),
        // Those of the candidate's objects may be in the cluster.
        all_namespaces: false,
        addresses: Some(addresses.plan()?),
        ..LoadOptions::default()
    };
    let paths = [path.to_owned()];
    inputs::load_inputs(&inputs::inputs(&paths)?, path, reading, &options, true)
}

/// Returns a cluster with the policies, namespaces, nodes and pods of a candidate. A workload keeps the pods that it has,
/// with the labels and ports of the candidate.
pub(super) fn applied(today: &Cluster, candidate: &Loaded) -> Cluster {
    let mut cluster = today.clone();
    let declared = |kind: &str, name: &Name| {
        candidate.origins.contains_key(&(Name::from(kind), ObjectKey::new("", name.clone())))
    };
    let given = &candidate.cluster;
    for policy in given.policies.values() {
        cluster.apply(Change::SetPolicy(policy.clone()));
    }
    // Namespaces of objects exist without being declared. Their labels are not known then.
    for namespace in given.namespaces.values() {
        if declared("Namespace", &namespace.name) || !cluster.namespaces.contains_key(&namespace.name) {
            cluster.apply(Change::SetNamespace(namespace.clone()));
        }
    }
    for node in given.nodes.values().filter(|node| declared("Node", &node.name)) {
        cluster.apply(Change::SetNode(node.clone()));
    }
    for service in given.services.values() {
        cluster.apply(Change::SetService(service.clone()));
    }
    set_pods(today, &given.pods, &mut cluster);
    cluster
}

/// Gives the pods of a cluster the labels and ports of the candidate's, by workload, else by name. Pods of workloads that the
/// cluster doesn't have are added.
fn set_pods(today: &Cluster, given: &Pods, cluster: &mut Cluster) {
    let existing: HashSet<OfWorkload> = today.pods.values().filter_map(of_workload).collect();
    let mut by_workload: HashMap<OfWorkload, &Pod> = HashMap::new();
    let mut by_name: HashMap<&ObjectKey, &Pod> = HashMap::new();
    for pod in given.values() {
        match of_workload(pod).filter(|workload| existing.contains(workload)) {
            Some(workload) => _ = by_workload.entry(workload).or_insert(pod),
            None if today.pods.contains_key(&pod.key) => _ = by_name.insert(&pod.key, pod),
            None => _ = cluster.pods.insert(pod.clone()),
        }
    }
    cluster.pods.edit(|pod| {
        let template = of_workload(pod).and_then(|workload| by_workload.get(&workload));
        if let Some(template) = template.or_else(|| by_name.get(&pod.key)) {
            pod.labels = template.labels.clone();
            pod.ports = template.ports.clone();
        }
    });
}

/// A workload in its namespace.
type OfWorkload = (Name, Workload);

fn of_workload(pod: &Pod) -> Option<OfWorkload> {
    Some((pod.key.namespace.clone(), pod.workload.clone()?))
}

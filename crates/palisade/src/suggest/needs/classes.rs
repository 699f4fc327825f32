//! Pods that selectors can't tell apart, and a few that stand for them. A workload with a thousand pods needs no thousand flows.

use std::collections::BTreeMap;

use palisade_policy::{Cluster, ContainerPort, Endpoint, Labels, Name, ObjectKey, Pod, Protocol, Workload};

use super::{Side, Target};

/// The labels by which the pods of one StatefulSet or indexed Job differ. Suggested policies don't select them.
const OF_ONE_POD: [&str; 3] = [
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
];

/// One or two pods that stand for all that are alike.
#[derive(Clone, Debug)]
pub(super) struct Representatives<'c> {
    first: &'c Pod,
    other: Option<&'c Pod>,
}

impl<'c> Representatives<'c> {
    pub(super) fn pods(&self) -> impl Iterator<Item = &'c Pod> + use<'c> {
        [Some(self.first), self.other].into_iter().flatten()
    }
}

/// What policies see of a pod.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Alike<'c> {
    namespace: &'c Name,
    workload: Option<&'c Workload>,
    labels: Labels,
    ports: Vec<(Option<&'c Name>, Protocol, u16)>,
    node: Option<&'c Name>,
}

/// The pods of workloads.
pub(super) struct Classes<'c> {
    workloads: BTreeMap<(&'c Name, &'c Workload), Vec<Side<'c>>>,
}

impl<'c> Classes<'c> {
    pub(super) fn new(cluster: &'c Cluster) -> Self {
        let mut pods: BTreeMap<(&Name, &Workload), Vec<&Pod>> = BTreeMap::new();
        for pod in cluster.pods.values().filter(|pod| has_ends(cluster, pod)) {
            if let Some(workload) = &pod.workload {
                pods.entry((&pod.key.namespace, workload)).or_default().push(pod);
            }
        }
        Self { workloads: pods.into_iter().map(|(key, pods)| (key, alike(pods))).collect() }
    }

    /// Returns the pods of a workload.
    pub(super) fn of_workload(&self, namespace: &'c Name, workload: &Workload) -> Vec<Side<'c>> {
        self.workloads.get(&(namespace, workload)).cloned().unwrap_or_default()
    }

    /// Returns the endpoints that differ, with their ports.
    pub(super) fn of_targets(
        &self,
        cluster: &'c Cluster,
        targets: &[Target],
    ) -> Vec<(Side<'c>, Protocol, u16)> {
        let mut pods: BTreeMap<(Protocol, u16), BTreeMap<&ObjectKey, &Pod>> = BTreeMap::new();
        let mut out = Vec::new();
        for Target { end, protocol, port } in targets {
            let pod = match end {
                Endpoint::Pod { key, .. } => cluster.pods.get(key),
                Endpoint::Node { .. } | Endpoint::External(_) => None,
            };
            match pod {
                Some(pod) => {
                    pods.entry((*protocol, *port)).or_default().insert(&pod.key, pod);
                }
                None => out.push((Side::End(end.clone()), *protocol, *port)),
            }
        }
        for ((protocol, port), pods) in pods {
            out.extend(alike(pods.into_values()).into_iter().map(|side| (side, protocol, port)));
        }
        out
    }
}

/// Whether connections of a pod can be told.
fn has_ends(cluster: &Cluster, pod: &Pod) -> bool {
    palisade_names::endpoints_of(cluster, pod).is_ok()
}

/// Groups pods that are alike.
pub(super) fn alike<'c>(pods: impl IntoIterator<Item = &'c Pod>) -> Vec<Side<'c>> {
    let mut found: BTreeMap<Alike<'c>, Representatives<'c>> = BTreeMap::new();
    for pod in pods {
        let one = Alike {
            namespace: &pod.key.namespace,
            workload: pod.workload.as_ref(),
            labels: labels(pod),
            ports: pod
                .ports
                .iter()
                .map(|ContainerPort { name, protocol, port, .. }| (name.as_ref(), *protocol, *port))
                .collect(),
            // Pods on the host network are known by the address of their node.
            node: pod.node.as_ref().filter(|_| pod.host_network),
        };
        found
            .entry(one)
            .and_modify(|known| {
                known.other.get_or_insert(pod);
            })
            .or_insert(Representatives { first: pod, other: None });
    }
    found.into_values().map(Side::Pods).collect()
}

fn labels(pod: &Pod) -> Labels {
    let kept = pod.labels.iter().filter(|(key, _)| !OF_ONE_POD.contains(&&***key));
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

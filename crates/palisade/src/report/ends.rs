//! The ends of connections, and the exposure of workloads.

use std::collections::{BTreeMap, HashMap};

use palisade_analysis::{
    ConnectionEnd, Connections, WorkloadPods,
    exposure::{ExposureOptions, Subject, exposure},
    overview::WorkloadOverview,
};
use palisade_manifest::Loaded;
use palisade_policy::{Cluster, ContainerPort, Direction, Name, ObjectKey, Origin, Pod, PolicyKey};
use serde::Serialize;

use crate::{
    connection_ends, describe::exposure_rows, escape, overview::workload_cells, traffic::family_names,
};

/// An end of connections.
#[derive(Serialize)]
pub(super) struct JsonEnd {
    /// The name, unique in the report.
    pub(super) id: String,
    pub(super) kind: &'static str,
    pub(super) namespace: Option<String>,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    /// How many pods it has.
    pub(super) pods: usize,
    /// The IP family, if it has one only.
    pub(super) families: Vec<String>,
    /// Whether it has addresses of the public internet.
    pub(super) internet: bool,
    /// Whether it has connections to itself: those between its pods.
    pub(super) several: bool,
    /// Absent if it is no workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) workload: Option<JsonWorkload>,
}

/// A workload at a glance.
#[derive(Serialize)]
pub(super) struct JsonWorkload {
    pub(super) ingress: &'static str,
    pub(super) egress: &'static str,
    pub(super) dns: &'static str,
    pub(super) internet_in: &'static str,
    pub(super) internet_out: &'static str,
    /// What its own policies allow to pods that may exist: the pods, and the ports.
    pub(super) exposed_to: Vec<[String; 2]>,
}

/// Returns the ends of an answer, in its order.
pub(super) fn ends(answer: &Connections, loaded: &Loaded, overview: &[&WorkloadOverview]) -> Vec<JsonEnd> {
    let known: BTreeMap<&WorkloadPods, &WorkloadOverview> = overview.iter().map(|w| (&w.pods, *w)).collect();
    let mut exposures = Exposures { cluster: &loaded.cluster, known: HashMap::new() };
    let named = connection_ends::name_ends(answer.ends(), loaded);
    let end = |(number, end): (usize, connection_ends::NamedEnd<'_>)| {
        let workload = match end.endpoint {
            ConnectionEnd::Workload(pods) => known.get(pods).map(|found| {
                let [ingress, egress, dns, internet_in, internet_out] = workload_cells(found);
                let exposed_to = exposures.of(pods);
                JsonWorkload { ingress, egress, dns, internet_in, internet_out, exposed_to }
            }),
            _ => None,
        };
        let pods = answer.pods(number);
        JsonEnd {
            id: escape::plain(&end.id).into_owned(),
            kind: kind(end.endpoint),
            namespace: end.endpoint.namespace().map(|name| escape::plain(name).into_owned()),
            file: end.at.map(|at| escape::plain(&at.file).into_owned()),
            line: end.at.and_then(Origin::line),
            pods,
            families: match answer.families(number) {
                both if both.v4 && both.v6 => Vec::new(),
                one => family_names(one),
            },
            internet: end.endpoint.is_internet(),
            several: pods > 1,
            workload,
        }
    };
    named.into_iter().enumerate().map(end).collect()
}

fn kind(end: &ConnectionEnd) -> &'static str {
    match end {
        ConnectionEnd::Workload(_) => "workload",
        ConnectionEnd::Pod { .. } => "pod",
        ConnectionEnd::Namespace(_) => "namespace",
        ConnectionEnd::Class(_) => "class",
        ConnectionEnd::OwnNode(_) => "own-node",
        ConnectionEnd::Nodes(_) => "nodes",
        ConnectionEnd::External(_) => "external",
        ConnectionEnd::IngressController(_) => "ingress-controller",
    }
}

/// What decides the exposure of a pod: the policies that select it, and its named ports.
type ExposureKey<'c> = (Vec<&'c PolicyKey>, &'c Name, &'c [ContainerPort]);

/// Computes exposures: pods with the same policies and ports share one.
struct Exposures<'c> {
    cluster: &'c Cluster,
    known: HashMap<ExposureKey<'c>, Vec<[String; 2]>>,
}

impl<'c> Exposures<'c> {
    /// Returns the rows for the first pod of a workload: the others are treated like it.
    fn of(&mut self, workload: &WorkloadPods) -> Vec<[String; 2]> {
        let cluster = self.cluster;
        let first = workload.pods.first().and_then(|name| {
            cluster.pods.get(&ObjectKey { namespace: workload.namespace.clone(), name: name.clone() })
        });
        let Some(pod) = first else { return Vec::new() };
        let key = (selecting(cluster, pod), &pod.key.namespace, &pod.ports[..]);
        let compute = || {
            let found =
                exposure(cluster, &Subject::Pod(pod), Direction::Ingress, &ExposureOptions::default());
            exposure_rows(&found).into_iter().map(|(pods, traffic)| [pods, traffic]).collect()
        };
        self.known.entry(key).or_insert_with(compute).clone()
    }
}

fn selecting<'c>(cluster: &'c Cluster, pod: &Pod) -> Vec<&'c PolicyKey> {
    let labels = cluster.namespaces.get(&pod.key.namespace).map(|namespace| &namespace.labels);
    let selects = |policy: &palisade_policy::Policy| {
        policy.rules(Direction::Ingress).is_some()
            && policy.subject.matches(&pod.key.namespace, labels, &pod.labels)
    };
    cluster.policies.iter().filter(|(_, policy)| selects(policy)).map(|(key, _)| key).collect()
}

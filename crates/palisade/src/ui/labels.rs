//! The labels that exist, for completion.

use std::collections::{BTreeMap, BTreeSet};

use palisade_policy::{Cluster, Labels};
use serde::Serialize;

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.ui.labels/v1";
/// The most keys, and the most values of a key: more are not read through in a list.
const MOST: (usize, usize) = (1_000, 100);
/// The most namespaces.
const MOST_NAMESPACES: usize = 5_000;

/// Keys and their values.
type Values<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// What can be named in a policy.
#[derive(Serialize)]
pub(super) struct JsonLabels<'a> {
    schema: &'static str,
    namespaces: Vec<&'a str>,
    /// Labels of namespaces.
    namespace_labels: Values<'a>,
    /// Labels of pods.
    pod_labels: Values<'a>,
    /// Names of ports of pods.
    ports: BTreeSet<&'a str>,
}

impl<'a> JsonLabels<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        let names = cluster.pods.values().flat_map(|pod| pod.ports.iter());
        Self {
            schema: SCHEMA,
            namespaces: cluster.namespaces.keys().map(|name| &**name).take(MOST_NAMESPACES).collect(),
            namespace_labels: values(cluster.namespaces.values().map(|namespace| &namespace.labels)),
            pod_labels: values(cluster.pods.values().map(|pod| &pod.labels)),
            ports: names.filter_map(|port| port.name.as_deref()).take(MOST.0).collect(),
        }
    }
}

fn values<'a>(all: impl Iterator<Item = &'a Labels>) -> Values<'a> {
    let mut out = Values::new();
    for (key, value) in all.flat_map(Labels::iter) {
        if out.len() >= MOST.0 && !out.contains_key(&**key) {
            continue;
        }
        let values = out.entry(key).or_default();
        if values.len() < MOST.1 {
            values.insert(value);
        }
    }
    out
}

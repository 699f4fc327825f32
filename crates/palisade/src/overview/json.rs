//! An overview for programs.

use palisade_analysis::{
    Overview,
    overview::{Extent, NamespaceOverview, Protection, WorkloadOverview},
};
use palisade_manifest::Loaded;
use serde::Serialize;

use crate::{
    cluster::JsonMissing,
    connection_ends::{JsonObject, JsonPods},
    inputs::LoadedInputs,
    output::Encoding,
};

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.overview/v2";

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    namespaces: Vec<JsonNamespace<'a>>,
    policies: usize,
    policies_in_audit_mode: usize,
    policies_without_pods: Vec<JsonObject<'a>>,
    dns_servers: Vec<JsonObject<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    incomplete: Vec<JsonMissing<'a>>,
}

#[derive(Serialize)]
struct JsonNamespace<'a> {
    name: &'a str,
    workloads: Vec<JsonWorkload<'a>>,
}

/// A workload at a glance, as JSON.
#[derive(Serialize)]
pub(crate) struct JsonWorkload<'a> {
    #[serde(flatten)]
    pods: JsonPods<'a>,
    ingress: &'static str,
    egress: &'static str,
    dns: Option<&'static str>,
    internet_in: &'static str,
    internet_out: &'static str,
}

/// Encodes the overview.
pub(crate) fn document(
    overview: &Overview,
    world: &LoadedInputs,
    encoding: Encoding,
) -> anyhow::Result<String> {
    let loaded = &world.loaded;
    let policies = overview.idle_policies.iter().map(|key| {
        let origin = loaded.cluster.policies.get(key).and_then(|p| p.origin.as_ref());
        JsonObject::of_policy(key, origin)
    });
    let servers =
        overview.dns_servers.iter().map(|key| JsonObject::new("Pod", Some(&key.namespace), &key.name, None));
    encoding.encode(&Document {
        schema: SCHEMA,
        namespaces: overview.namespaces.iter().map(|n| namespace(n, loaded)).collect(),
        policies: loaded.cluster.policies.len(),
        policies_in_audit_mode: super::text::audited_policies(loaded),
        policies_without_pods: policies.collect(),
        dns_servers: servers.collect(),
        incomplete: world.incomplete(),
    })
}

fn namespace<'a>(namespace: &'a NamespaceOverview, loaded: &'a Loaded) -> JsonNamespace<'a> {
    let workloads = namespace.workloads.iter().map(|w| workload(w, loaded));
    JsonNamespace { name: &namespace.name, workloads: workloads.collect() }
}

/// Returns a workload at a glance as a JSON value.
pub(crate) fn workload<'a>(w: &'a WorkloadOverview, loaded: &'a Loaded) -> JsonWorkload<'a> {
    JsonWorkload {
        pods: JsonPods::new(&w.pods, loaded),
        ingress: protection(w.ingress),
        egress: protection(w.egress),
        dns: w.dns.map(extent),
        internet_in: extent(w.internet_in),
        internet_out: extent(w.internet_out),
    }
}

fn protection(protection: Protection) -> &'static str {
    match protection {
        Protection::None => "open",
        Protection::Restricted => "restricted",
        Protection::Isolated => "isolated",
    }
}

fn extent(extent: Extent) -> &'static str {
    match extent {
        Extent::Undecided => "undecided",
        Extent::Nothing => "none",
        Extent::Some => "some",
        Extent::Everything => "all",
    }
}

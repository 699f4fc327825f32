//! The ends of connections, each with a short unique name and the origin of its object.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use palisade_analysis::{ConnectionEnd, NodeAddresses, WorkloadPods, shape};
use palisade_manifest::Loaded;
use palisade_names::Route;
use palisade_policy::{IpRange, LearnedName, Name, ObjectKey, Origin, PolicyKey};
use serde::Serialize;

use crate::traffic::{JsonRange, range_text};

/// The most pods, workloads, nodes or ranges that a name lists.
const LISTED: usize = 4;

/// An end with its name.
#[derive(Debug)]
pub(crate) struct NamedEnd<'a> {
    /// The name, unique in the answer.
    pub(crate) id: String,
    /// The end.
    pub(crate) endpoint: &'a ConnectionEnd,
    /// The origin of its object.
    pub(crate) at: Option<&'a Origin>,
}

/// Names ends. The same ends in the same order get the same names.
pub(crate) fn name_ends<'a>(
    endpoints: impl Iterator<Item = &'a ConnectionEnd>,
    loaded: &'a Loaded,
) -> Vec<NamedEnd<'a>> {
    let end = |endpoint| NamedEnd {
        id: host_name(endpoint, loaded).unwrap_or_else(|| name(endpoint)),
        endpoint,
        at: origin_of(endpoint, loaded),
    };
    let mut ends: Vec<NamedEnd<'a>> = endpoints.map(end).collect();
    let mut seen: HashMap<String, usize> = HashMap::new();
    for end in &mut ends {
        let times = seen.entry(end.id.clone()).or_default();
        *times += 1;
        // Two ends have the same first members if policies treat two addresses of a node differently.
        if *times > 1 {
            end.id = format!("{} #{times}", end.id);
        }
    }
    ends
}

/// Returns the name of a host whose learned addresses are an end, with these.
fn host_name(endpoint: &ConnectionEnd, loaded: &Loaded) -> Option<String> {
    let ConnectionEnd::External(external) = endpoint else { return None };
    let is_of = |learned: &&LearnedName| {
        let is_one = |range: &IpRange| range.first == range.last && learned.addresses.contains(&range.first);
        external.ranges.iter().all(is_one)
    };
    let learned = loaded.cluster.learned.values().find(is_of)?;
    Some(format!("{} ({})", learned.name, abbreviated(&external.ranges, range_text)))
}

/// Joins the first few of a list: `a, b, c, d and 3 more`.
pub(crate) fn abbreviated<T>(all: &[T], text: impl Fn(&T) -> String) -> String {
    let mut shown = all.iter().take(LISTED).map(text).collect::<Vec<_>>().join(", ");
    if all.len() > LISTED {
        shown += &format!(" and {} more", all.len() - LISTED);
    }
    shown
}

/// Returns the short name of an end.
pub(crate) fn name(endpoint: &ConnectionEnd) -> String {
    match endpoint {
        ConnectionEnd::Workload(workload) => pods_of(workload),
        ConnectionEnd::Pod { .. } | ConnectionEnd::Namespace(_) => endpoint.to_string(),
        ConnectionEnd::Class(all) => abbreviated(all, pods_of),
        ConnectionEnd::OwnNode(all) => format!("own node ({})", nodes(all)),
        ConnectionEnd::Nodes(all) => format!("node {}", nodes(all)),
        ConnectionEnd::External(external) => abbreviated(&external.spanned, range_text),
        ConnectionEnd::IngressController(_) => CONTROLLER.to_owned(),
    }
}

/// Formats nodes, each once: `n1, n2 (192.0.2.2)`, with the addresses if a node has others too.
fn nodes(all: &[NodeAddresses]) -> String {
    let mut named: BTreeMap<&Name, Option<Vec<IpAddr>>> = BTreeMap::new();
    for node in all {
        let addresses = named.entry(&node.name).or_insert_with(|| (!node.whole).then(Vec::new));
        if let Some(addresses) = addresses {
            addresses.extend(&node.addresses);
        }
    }
    let named: Vec<_> = named.into_iter().collect();
    abbreviated(&named, |(name, addresses)| match addresses {
        None => name.to_string(),
        Some(addresses) => format!("{name} ({})", abbreviated(addresses, IpAddr::to_string)),
    })
}

/// The name of the pods that forward connections into the cluster. No object can have it.
pub(crate) const CONTROLLER: &str = "{ingress-controller}";

fn pods_of(workload: &WorkloadPods) -> String {
    let WorkloadPods { namespace, name, kind, pods, whole } = workload;
    let parts =
        if *whole { String::new() } else { format!(" (pods {})", abbreviated(pods, ToString::to_string)) };
    format!("{namespace}/{}/{name}{parts}", kind.to_lowercase())
}

/// Returns the origin of the object that an end represents.
pub(crate) fn origin_of<'a>(endpoint: &ConnectionEnd, loaded: &'a Loaded) -> Option<&'a Origin> {
    match endpoint {
        ConnectionEnd::Workload(workload) => origin_of_workload(workload, loaded),
        ConnectionEnd::Pod { key, workload_kind, workload_name } => {
            let workload = ObjectKey { namespace: key.namespace.clone(), name: workload_name.clone() };
            origin_of_object("Pod", key, loaded)
                .or_else(|| origin_of_object(workload_kind, &workload, loaded))
        }
        ConnectionEnd::Namespace(name) => {
            origin_of_object("Namespace", &ObjectKey::new("", name.clone()), loaded)
        }
        ConnectionEnd::IngressController(pods) => {
            pods.first().filter(|_| pods.len() == 1).and_then(|w| origin_of_workload(w, loaded))
        }
        ConnectionEnd::Class(_)
        | ConnectionEnd::OwnNode(_)
        | ConnectionEnd::Nodes(_)
        | ConnectionEnd::External(_) => None,
    }
}

/// Returns the origin of a workload, or of its first pod if the workload was not declared.
fn origin_of_workload<'a>(workload: &WorkloadPods, loaded: &'a Loaded) -> Option<&'a Origin> {
    let key = |name: &Name| ObjectKey { namespace: workload.namespace.clone(), name: name.clone() };
    let pod = || workload.pods.first().and_then(|pod| origin_of_object("Pod", &key(pod), loaded));
    origin_of_object(&workload.kind, &key(&workload.name), loaded).or_else(pod)
}

/// Returns the origin of an object, if it was declared.
pub(crate) fn origin_of_object<'a>(kind: &str, key: &ObjectKey, loaded: &'a Loaded) -> Option<&'a Origin> {
    loaded.origins.get(&(Name::from(kind), key.clone()))
}

/// An end, as JSON.
#[derive(Serialize)]
pub(crate) struct JsonEnd<'a> {
    id: String,
    #[serde(flatten)]
    what: JsonEndKind<'a>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum JsonEndKind<'a> {
    Workload(JsonPods<'a>),
    Pod { object: JsonObject<'a>, workload: JsonObject<'a> },
    Namespace { object: JsonObject<'a> },
    Class { members: Vec<JsonPods<'a>> },
    OwnNode { nodes: Vec<JsonNode<'a>> },
    Nodes { nodes: Vec<JsonNode<'a>> },
    External { family: String, ranges: Vec<JsonRange>, cidrs: Vec<String> },
    IngressController { members: Vec<JsonPods<'a>> },
}

/// Pods of a workload.
#[derive(Serialize)]
pub(crate) struct JsonPods<'a> {
    object: JsonObject<'a>,
    pods: Vec<&'a str>,
    all_pods: bool,
}

#[derive(Serialize)]
struct JsonNode<'a> {
    object: JsonObject<'a>,
    addresses: Vec<String>,
}

impl<'a> JsonPods<'a> {
    pub(crate) fn new(workload: &'a WorkloadPods, loaded: &'a Loaded) -> Self {
        let WorkloadPods { namespace, name, kind, pods, whole } = workload;
        Self {
            object: JsonObject::new(kind, Some(namespace), name, origin_of_workload(workload, loaded)),
            pods: pods.iter().map(|p| &**p).collect(),
            all_pods: *whole,
        }
    }
}

/// An object and its origin, which is null if it was not declared.
#[derive(Serialize)]
pub(crate) struct JsonObject<'a> {
    kind: &'a str,
    namespace: Option<&'a str>,
    name: &'a str,
    file: Option<&'a str>,
    line: Option<u32>,
}

impl<'a> JsonObject<'a> {
    pub(crate) fn new(
        kind: &'a str,
        namespace: Option<&'a str>,
        name: &'a str,
        at: Option<&'a Origin>,
    ) -> Self {
        Self { kind, namespace, name, file: at.map(|s| &*s.file), line: at.and_then(Origin::line) }
    }

    pub(crate) fn of_route(route: &'a Route) -> Self {
        let Route { kind, key, origin: source, .. } = route;
        Self::new(kind, Some(&key.namespace), &key.name, source.as_ref())
    }

    pub(crate) fn of_policy(key: &'a PolicyKey, at: Option<&'a Origin>) -> Self {
        let namespace = Some(&*key.namespace).filter(|n| !n.is_empty());
        Self::new(&key.kind, namespace, &key.name, at)
    }
}

impl<'a> NamedEnd<'a> {
    /// Returns the end as a JSON value.
    pub(crate) fn json(&'a self, loaded: &'a Loaded) -> JsonEnd<'a> {
        JsonEnd { id: self.id.clone(), what: end_kind(self.endpoint, loaded) }
    }
}

/// An endpoint for machines, where no other of the answer has its short name.
pub(crate) fn json<'a>(endpoint: &'a ConnectionEnd, loaded: &'a Loaded) -> JsonEnd<'a> {
    JsonEnd { id: name(endpoint), what: end_kind(endpoint, loaded) }
}

fn end_kind<'a>(endpoint: &'a ConnectionEnd, loaded: &'a Loaded) -> JsonEndKind<'a> {
    let pods = |w: &'a WorkloadPods| JsonPods::new(w, loaded);
    // A placeholder is not a real address.
    let known = |all: &'a [IpAddr]| all.iter().filter(|a| !loaded.cluster.addressing.is_placeholder(**a));
    let node = |n: &'a NodeAddresses| JsonNode {
        object: JsonObject::new(
            "Node",
            None,
            &n.name,
            origin_of_object("Node", &ObjectKey::new("", n.name.clone()), loaded),
        ),
        addresses: known(&n.addresses).map(ToString::to_string).collect(),
    };
    match endpoint {
        ConnectionEnd::Workload(w) => JsonEndKind::Workload(pods(w)),
        ConnectionEnd::Pod { key, workload_kind, workload_name } => {
            let namespace = Some(&*key.namespace);
            let workload = ObjectKey { namespace: key.namespace.clone(), name: workload_name.clone() };
            let at = origin_of_object(workload_kind, &workload, loaded);
            JsonEndKind::Pod {
                object: JsonObject::new("Pod", namespace, &key.name, origin_of(endpoint, loaded)),
                workload: JsonObject::new(workload_kind, namespace, workload_name, at),
            }
        }
        ConnectionEnd::Namespace(name) => JsonEndKind::Namespace {
            object: JsonObject::new("Namespace", None, name, origin_of(endpoint, loaded)),
        },
        ConnectionEnd::Class(all) => JsonEndKind::Class { members: all.iter().map(pods).collect() },
        ConnectionEnd::OwnNode(all) => JsonEndKind::OwnNode { nodes: all.iter().map(node).collect() },
        ConnectionEnd::Nodes(all) => JsonEndKind::Nodes { nodes: all.iter().map(node).collect() },
        ConnectionEnd::External(external) => JsonEndKind::External {
            family: external.family.to_string(),
            ranges: external.ranges.iter().map(Into::into).collect(),
            cidrs: shape::cidrs(&external.ranges).iter().map(ToString::to_string).collect(),
        },
        ConnectionEnd::IngressController(all) => {
            JsonEndKind::IngressController { members: all.iter().map(pods).collect() }
        }
    }
}

//! The test vectors of the semantics document, from YAML to verdict. The loader reads every vector, and the reference
//! and the compiled plans of both nodes decide those about the data plane.

#![expect(clippy::unwrap_used, reason = "a helper that fails should fail its test")]

use std::{collections::BTreeMap, net::IpAddr};

use palisade_manifest::{Admission, Channel, Input, LoadOptions, Loaded, load};
use palisade_names::{PortSpec, backends};
use palisade_policy::{
    Cluster, Compiler, Direction, DomainName, Endpoint, Family, Flow, LearnedName, Name, ObjectKey, Protocol,
    Verdict, reference,
};
use serde_json::Value;

/// How many vectors the file has.
const DATA_PLANE: usize = 92;
const PROBES: usize = 230;
const ADMISSION: usize = 66;

/// Vectors with addresses that were learned from DNS.
const WITH_LEARNED_ADDRESSES: [&str; 2] = ["F-90", "F-91"];

fn vectors() -> Vec<Value> {
    serde_json::from_str(include_str!("vectors.json")).unwrap()
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} in {value}"))
}

/// A policy of a vector. `key` is the namespace of a NetworkPolicy, or the name of another policy.
fn policy(kind: &str, key: &str, spec: &str) -> String {
    let spec = with_quoted_y(spec);
    // Names are lower case. F-70 has two that are not.
    let key = key.to_lowercase();
    let (version, kind, metadata) = match kind {
        "np" | "NP" => {
            ("networking.k8s.io/v1", "NetworkPolicy", format!("{{name: p, namespace: \"{key}\"}}"))
        }
        "cnp" | "cnp-raw" | "CNP" => (V1ALPHA2, "ClusterNetworkPolicy", format!("{{name: {key}}}")),
        "anp" | "ANP" => (V1ALPHA1, "AdminNetworkPolicy", format!("{{name: {key}}}")),
        "banp" | "BANP" => (V1ALPHA1, "BaselineAdminNetworkPolicy", format!("{{name: {key}}}")),
        other => panic!("unknown kind {other}"),
    };
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n")
}

const V1ALPHA1: &str = "policy.networking.k8s.io/v1alpha1";
const V1ALPHA2: &str = "policy.networking.k8s.io/v1alpha2";
const V1BETA1: &str = "policy.networking.k8s.io/v1beta1";

/// Quotes the namespace `y`. The vectors write it without quotes, and mean the text, but kubectl reads a boolean and
/// rejects it.
fn with_quoted_y(spec: &str) -> String {
    spec.replace(": y}", ": \"y\"}")
}

fn load_with(policies: &str, options: &LoadOptions) -> Loaded {
    let inputs = [
        Input::Path(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixture.yaml").into()),
        Input::Text { name: "policies.yaml".to_owned(), text: policies.to_owned() },
    ];
    load(&inputs, options)
}

/// All addresses are declared. The host-network pod uses its node's.
fn options() -> LoadOptions {
    LoadOptions::default()
}

struct Bench {
    cluster: Cluster,
    plans: BTreeMap<Name, Compiler>,
}

impl Bench {
    fn new(cluster: Cluster) -> Self {
        let plans = cluster
            .nodes
            .keys()
            .map(|node| (node.clone(), Compiler::from_cluster(node.clone(), &cluster)))
            .collect();
        Self { cluster, plans }
    }

    fn address(&self, end: &str, family: Family) -> IpAddr {
        let of = |addresses: &[IpAddr]| addresses.iter().copied().find(|a| Family::of(*a) == family);
        let fixed = match end {
            "E4" => Some("198.51.100.7"),
            "E4b" => Some("198.51.100.200"),
            "E6" => Some("2001:db8::7"),
            _ => None,
        };
        if let Some(fixed) = fixed.or_else(|| end.parse::<IpAddr>().is_ok().then_some(end)) {
            return fixed.parse().unwrap();
        }
        let found = match (end.strip_prefix("node:"), end.split_once('/')) {
            (Some(node), _) => of(&self.cluster.nodes[node].addresses),
            (None, Some((namespace, name))) => {
                of(&self.cluster.pods[&ObjectKey::new(namespace, name)].addresses)
            }
            _ => None,
        };
        found.unwrap_or_else(|| panic!("{end} has no {family} address"))
    }

    /// The flow of a probe, after destination NAT.
    fn flow(&self, probe: &Value) -> Flow {
        let family = if probe["family"] == 6 { Family::V6 } else { Family::V4 };
        let protocol = match text(probe, "proto") {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            other => panic!("unknown protocol {other}"),
        };
        let mut port = u16::try_from(probe["port"].as_u64().unwrap()).unwrap();
        let source = self.cluster.endpoint(self.address(text(probe, "src"), family));
        let to = text(probe, "dst");
        let (destination, through_service) = match to.strip_prefix("svc:") {
            Some(name) => {
                let service = &self.cluster.services[&ObjectKey::new("x", name)];
                let port_spec = PortSpec::Number(port);
                let backends = backends(&self.cluster, service, Some(protocol), Some(&port_spec)).unwrap();
                port = backends[0].port;
                let pod = backends[0].pod;
                (self.cluster.endpoint(pod.address(family).unwrap()), true)
            }
            None => (self.cluster.endpoint(self.address(to, family)), false),
        };
        Flow { source, destination, protocol, port, through_service }
    }

    /// Returns the verdict of the plans of the nodes on the path: egress on the source's node, ingress on the
    /// destination's. Connections from a node to its own pods are not filtered. Neither are those of a pod to its own
    /// address, which don't leave the pod; through a service they do, and the plan has the same verdict for both
    /// directions.
    fn compiled(&self, flow: &Flow) -> Verdict {
        let (source, destination) = (flow.source.address(), flow.destination.address());
        if source == destination && !flow.through_service {
            return Verdict::Allow;
        }
        let node_of = |end: &Endpoint| match end {
            Endpoint::Pod { key, .. } => self.cluster.pods[key].node.clone(),
            _ => None,
        };
        let verdict_of = |direction, end: &Endpoint| match node_of(end) {
            Some(node) => {
                self.plans[&node].plan().decide(direction, source, destination, flow.protocol, flow.port)
            }
            None => Verdict::Allow,
        };
        let own_node = matches!(&flow.source, Endpoint::Node { name, .. } if node_of(&flow.destination).as_ref() == Some(name));
        let egress = verdict_of(Direction::Egress, &flow.source);
        let ingress =
            if own_node { Verdict::Allow } else { verdict_of(Direction::Ingress, &flow.destination) };
        if egress.is_allow() && ingress.is_allow() { Verdict::Allow } else { Verdict::Deny }
    }
}

/// The policies of a data-plane vector, and how to read them.
fn policies_of(vector: &Value) -> (String, usize, LoadOptions) {
    let policies = vector["policies"].as_array().unwrap();
    // Two NetworkPolicies in one namespace need two names.
    let texts = policies.iter().enumerate().map(|(i, p)| {
        policy(text(p, "kind"), text(p, "key"), text(p, "spec"))
            .replace("{name: p, ", &format!("{{name: p{i}, "))
    });
    let raw = policies.iter().any(|p| p["kind"] == "cnp-raw");
    let admission = if raw { Admission::Passed } else { Admission::Check };
    (texts.collect::<Vec<_>>().join("---\n"), policies.len(), LoadOptions { admission, ..options() })
}

/// The addresses that a vector's DNS has answered.
fn learned_names(vector: &Value) -> BTreeMap<DomainName, LearnedName> {
    let names = vector["learned_dns"].as_object().unwrap().iter();
    let learned = names.map(|(name, addresses)| {
        let addresses = addresses.as_array().unwrap().iter().map(|a| a.as_str().unwrap().parse().unwrap());
        let name = DomainName::new(name).unwrap();
        (name.clone(), LearnedName { name, addresses: addresses.collect() })
    });
    learned.collect()
}

#[test]
fn data_plane_vectors_hold_for_the_reference_and_the_compiler() {
    let (mut ran, mut probes, mut wrong) = (0, 0, Vec::new());
    for vector in vectors() {
        if vector["type"] != "dataplane" {
            continue;
        }
        ran += 1;
        let id = text(&vector, "id");
        let (policies, count, options) = policies_of(&vector);
        let loaded = load_with(&policies, &options);
        assert!(!loaded.has_errors(), "{id}: {:#?}", loaded.diagnostics);
        assert_eq!(loaded.cluster.policies.len(), count, "{id}");
        let learned = learned_names(&vector);
        assert_eq!(WITH_LEARNED_ADDRESSES.contains(&id), !learned.is_empty(), "{id}");
        let unlearned = (!learned.is_empty()).then(|| Bench::new(loaded.cluster.clone()));
        let bench = Bench::new(Cluster { learned, ..loaded.cluster });
        for probe in vector["probes"].as_array().unwrap() {
            probes += 1;
            let flow = bench.flow(probe);
            let expected = if probe["expect"] == "ACCEPT" { Verdict::Allow } else { Verdict::Deny };
            let decision = reference::decide(&bench.cluster, &flow);
            if decision.verdict() != expected {
                wrong.push(format!("{id}: reference: {probe}: {decision:?}"));
            }
            if bench.compiled(&flow) != expected {
                wrong.push(format!("{id}: compiled: {probe}"));
            }
            // These vectors allow nothing but names, and without an address a name matches nothing.
            if let Some(bench) = &unlearned {
                let decision = reference::decide(&bench.cluster, &flow);
                if decision.verdict().is_allow() || bench.compiled(&flow).is_allow() {
                    wrong.push(format!("{id}: nothing learned: {probe}: {decision:?}"));
                }
            }
        }
    }
    println!("{ran} data-plane vectors with {probes} probes, each against the reference and the compiler");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((ran, probes), (DATA_PLANE, PROBES));
}

/// Returns whether the object of an admission vector is accepted, in another version if `version` is given.
fn is_admitted(vector: &Value, version: Option<&str>) -> bool {
    let channel = match &vector["channel"] {
        Value::String(channel) if channel == "standard" => Channel::Standard,
        _ => Channel::Experimental,
    };
    let strict_cidr = vector["strict_cidr"].as_bool().unwrap_or(false);
    let (kind, name) = (text(vector, "kind"), text(vector, "object_name"));
    let text = policy(kind, if kind == "NP" { "x" } else { name }, text(vector, "spec"));
    let text = version.map_or(text.clone(), |v| text.replace(V1ALPHA2, v));
    let loaded = load_with(&text, &LoadOptions { strict_cidr, channel, ..options() });
    let accepted = loaded.cluster.policies.len() == 1 && loaded.refused.is_empty();
    assert_eq!(accepted, !loaded.has_errors(), "{vector}: {:#?}", loaded.diagnostics);
    // A policy that isn't valid YAML would be rejected for another reason.
    assert!(loaded.diagnostics.iter().all(|d| d.path.is_some()), "{vector}: {:#?}", loaded.diagnostics);
    accepted
}

fn admission_vectors() -> Vec<Value> {
    vectors().into_iter().filter(|v| v["type"] == "admission").collect()
}

#[test]
fn admission_vectors_hold() {
    let vectors = admission_vectors();
    let wrong: Vec<&Value> =
        vectors.iter().filter(|v| is_admitted(v, None) != (v["expect"] == "ACCEPT")).collect();
    println!("{} admission vectors", vectors.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(vectors.len(), ADMISSION);
}

#[test]
fn the_newer_version_admits_less_in_two_places() {
    // Host bits (C.9), and `destinationNamedPort`, which v1beta1 moves to the experimental channel.
    let cluster_wide = admission_vectors().into_iter().filter(|v| v["kind"] == "CNP");
    let differ: Vec<String> = cluster_wide
        .filter(|v| is_admitted(v, Some(V1BETA1)) != (v["expect"] == "ACCEPT"))
        .map(|v| text(&v, "id").to_owned())
        .collect();
    assert_eq!(differ, ["F-144", "F-147"]);
}

#[test]
fn admitted_policies_are_the_same_without_validation() {
    let mut compared = 0;
    for vector in vectors().iter().filter(|v| v["type"] == "dataplane") {
        let (policies, _, options) = policies_of(vector);
        if options.admission == Admission::Passed {
            continue;
        }
        let [checked, unchecked] = [Admission::Check, Admission::Passed].map(|admission| {
            let loaded = load_with(&policies, &LoadOptions { admission, ..options.clone() });
            (loaded.cluster.policies, loaded.diagnostics)
        });
        assert_eq!(checked, unchecked, "{vector}");
        compared += 1;
    }
    assert_eq!(compared, DATA_PLANE - 5);
}

#[test]
fn every_vector_is_run() {
    assert_eq!(vectors().len(), DATA_PLANE + ADMISSION);
}

#[test]
fn the_fixture_equals_the_cluster_of_the_document() {
    let loaded = load_with("", &options());
    assert!(loaded.diagnostics.is_empty(), "{:#?}", loaded.diagnostics);
    let cluster = &loaded.cluster;
    assert_eq!((cluster.nodes.len(), cluster.namespaces.len(), cluster.pods.len()), (2, 3, 12));
    let host = &cluster.pods[&ObjectKey::new("x", "h")];
    assert_eq!(format!("{:?}", host.addresses), "[192.168.0.1, fd00:168::1]");
    let sidecar = &cluster.pods[&ObjectKey::new("x", "sc")];
    let names: Vec<_> = sidecar.ports.iter().filter_map(|p| p.name.as_deref()).collect();
    assert_eq!(names, ["web", "metrics"], "ports of ordinary init containers don't count");
    assert_eq!(cluster.namespaces["z"].labels.to_string(), "kubernetes.io/metadata.name=z");
    assert_eq!(cluster.pod_at("10.244.1.40".parse().unwrap()).unwrap().key.to_string(), "y/reuse");
    assert_eq!(loaded.counts.objects["Pod"], 12);
}

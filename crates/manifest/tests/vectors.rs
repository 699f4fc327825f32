//! The test vectors of the semantics document, from YAML to verdict: every NetworkPolicy vector goes through the loader,
//! and every data-plane one is decided by the reference and by the compiled plans of both nodes.

#![expect(clippy::unwrap_used, reason = "a helper that fails should fail its test")]

use std::{collections::BTreeMap, net::IpAddr};

use palisade_manifest::{Input, Loaded, Options, load, service_pods};
use palisade_policy::{
    Cluster, Direction, Endpoint, Family, Flow, Name, ObjectKey, Protocol, Verdict, cluster::TargetPort,
    compile::Compiler, reference,
};
use serde_json::Value;

/// What the file holds.
const DATA_PLANE: usize = 53;
const PROBES: usize = 135;
const ADMISSION: usize = 34;
const CLUSTER_WIDE: usize = 71;

fn vectors() -> Vec<Value> {
    serde_json::from_str(include_str!("vectors.json")).unwrap()
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} in {value}"))
}

/// Whether a vector holds nothing but NetworkPolicies.
fn is_network_policy_vector(vector: &Value) -> bool {
    match text(vector, "type") {
        "dataplane" => vector["policies"].as_array().unwrap().iter().all(|p| p["kind"] == "np"),
        "admission" => vector["kind"] == "NP",
        other => panic!("unknown type {other}"),
    }
}

fn network_policy(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: \"{namespace}\"}}\nspec: {spec}\n"
    )
}

/// The vectors write the namespace `y` bare, which kubectl reads as a boolean, and refuses. They mean the text.
fn with_quoted_y(spec: &str) -> String {
    spec.replace(": y}", ": \"y\"}")
}

fn load_with(policies: &str, options: &Options) -> Loaded {
    let inputs = [
        Input::Path(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixture.yaml").into()),
        Input::Text { name: "policies.yaml".to_owned(), text: policies.to_owned() },
    ];
    load(&inputs, options)
}

/// Addresses are all declared; the host-network pod takes its node's.
fn options() -> Options {
    Options::default()
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
        if let Some(fixed) = fixed {
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

    /// The flow that a probe opens, after destination NAT.
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
                let pod = service_pods(&self.cluster, service).next().unwrap();
                let entry = service.ports.iter().find(|p| p.port == port && p.protocol == protocol).unwrap();
                port = match &entry.target {
                    TargetPort::Number(number) => *number,
                    TargetPort::Name(name) => pod.named_ports(name, Some(protocol)).next().unwrap().1,
                };
                (self.cluster.endpoint(pod.address(family).unwrap()), true)
            }
            None => (self.cluster.endpoint(self.address(to, family)), false),
        };
        Flow { source, destination, protocol, port, through_service }
    }

    /// What the plans of the nodes on the way say: egress is decided where the source lives, ingress where the
    /// destination does, and what a node's own stack sends to its pods is never asked.
    fn compiled(&self, flow: &Flow) -> Verdict {
        let (source, destination) = (flow.source.address(), flow.destination.address());
        let node_of = |end: &Endpoint| match end {
            Endpoint::Pod { key, .. } => self.cluster.pods[key].node.clone(),
            _ => None,
        };
        let says = |direction, end: &Endpoint| match node_of(end) {
            Some(node) => {
                self.plans[&node].plan().decide(direction, source, destination, flow.protocol, flow.port)
            }
            None => Verdict::Allow,
        };
        let own_node = matches!(&flow.source, Endpoint::Node { name, .. } if node_of(&flow.destination).as_ref() == Some(name));
        let egress = says(Direction::Egress, &flow.source);
        let ingress = if own_node { Verdict::Allow } else { says(Direction::Ingress, &flow.destination) };
        if egress.is_allow() && ingress.is_allow() { Verdict::Allow } else { Verdict::Deny }
    }
}

#[test]
fn data_plane_vectors_hold_for_the_reference_and_the_compiler() {
    let (mut ran, mut probes, mut wrong) = (0, 0, Vec::new());
    for vector in vectors() {
        if vector["type"] != "dataplane" || !is_network_policy_vector(&vector) {
            continue;
        }
        ran += 1;
        let id = text(&vector, "id");
        let policies: Vec<String> = vector["policies"]
            .as_array()
            .unwrap()
            .iter()
            .enumerate()
            .map(|(i, p)| network_policy(text(p, "key"), &format!("p{i}"), &with_quoted_y(text(p, "spec"))))
            .collect();
        let loaded = load_with(&policies.join("---\n"), &options());
        assert!(!loaded.has_errors(), "{id}: {:#?}", loaded.diagnostics);
        assert_eq!(loaded.cluster.policies.len(), policies.len(), "{id}");
        let bench = Bench::new(loaded.cluster);
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
        }
    }
    println!("{ran} data-plane vectors with {probes} probes, each against the reference and the compiler");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((ran, probes), (DATA_PLANE, PROBES));
}

#[test]
fn admission_vectors_hold() {
    let (mut ran, mut wrong) = (0, Vec::new());
    for vector in vectors() {
        if vector["type"] != "admission" || !is_network_policy_vector(&vector) {
            continue;
        }
        ran += 1;
        let strict_cidr = vector["strict_cidr"].as_bool().unwrap_or(false);
        let policy = network_policy("x", text(&vector, "object_name"), text(&vector, "spec"));
        let loaded = load_with(&policy, &Options { strict_cidr, ..options() });
        let accepted = loaded.cluster.policies.len() == 1;
        assert_eq!(accepted, !loaded.has_errors(), "{vector}: {:#?}", loaded.diagnostics);
        // A policy that can't even be parsed would be refused for the wrong reason.
        let read = loaded.diagnostics.iter().all(|d| d.path.is_some());
        if accepted != (vector["expect"] == "ACCEPT") || !read {
            wrong.push(format!("{vector}: {:#?}", loaded.diagnostics));
        }
    }
    println!("{ran} admission vectors");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(ran, ADMISSION);
}

#[test]
fn vectors_of_cluster_wide_policies_are_known_and_wait_for_their_issue() {
    let waiting: Vec<String> =
        vectors().iter().filter(|v| !is_network_policy_vector(v)).map(|v| text(v, "id").to_owned()).collect();
    println!("{} vectors with issue: cluster-wide policies: {}", waiting.len(), waiting.join(" "));
    assert_eq!(waiting.len(), CLUSTER_WIDE);
    assert_eq!(vectors().len(), DATA_PLANE + ADMISSION + CLUSTER_WIDE);
}

#[test]
fn the_fixture_is_the_cluster_of_the_document() {
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

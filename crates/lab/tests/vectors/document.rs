//! The vectors of the semantics document, and the clusters that they describe.

use std::{collections::BTreeMap, net::IpAddr};

use palisade_manifest::{Admission, Input, LoadOptions, load};
use palisade_policy::{Cluster, DomainName, Family, LearnedName, Protocol, Verdict};
use serde_json::Value;

/// One data-plane vector.
pub(crate) struct Vector {
    /// The number in the document, such as `F-12`.
    pub(crate) id: String,
    /// What DNS servers answer, and agents learn.
    pub(crate) learned: BTreeMap<DomainName, LearnedName>,
    /// The expected verdicts.
    pub(crate) probes: Vec<Expectation>,
    policies: String,
    count: usize,
    admission: Admission,
}

/// One connection and its expected verdict. The ends have the document's names.
pub(crate) struct Expectation {
    pub(crate) source: String,
    pub(crate) destination: String,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) family: Family,
    pub(crate) verdict: Verdict,
}

/// Reads every data-plane vector of the document.
pub(crate) fn vectors() -> Vec<Vector> {
    let all: Vec<Value> = serde_json::from_str(include_str!("../../../manifest/tests/vectors.json")).unwrap();
    all.iter().filter(|v| v["type"] == "dataplane").map(vector).collect()
}

/// Returns the address with this name in the document, if it does not depend on the cluster.
pub(crate) fn address(name: &str) -> Option<IpAddr> {
    let text = match name {
        "E4" => "198.51.100.7",
        "E4b" => "198.51.100.200",
        "E6" => "2001:db8::7",
        other => other,
    };
    text.parse().ok()
}

/// Allows the pods to ask the DNS server outside: a rule with names doesn't (F-92).
const DNS: &str = r#"---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: dns}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {}}
  egress:
  - action: Accept
    to: [{networks: [198.51.100.53/32, "2001:db8::53/128"]}]
    protocols: [{udp: {destinationPort: {number: 53}}}, {tcp: {destinationPort: {number: 53}}}]
"#;

impl Vector {
    /// Returns the document's cluster with the policies of this vector, in which nothing was learned yet. If names are to be learned, pods
    /// may ask for them.
    pub(crate) fn cluster(&self) -> Cluster {
        let (dns, more) = if self.learned.is_empty() { ("", 0) } else { (DNS, 1) };
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifest/tests/fixture.yaml");
        let policies =
            Input::Text { name: "policies.yaml".to_owned(), text: format!("{}{dns}", self.policies) };
        let options = LoadOptions { admission: self.admission, ..LoadOptions::default() };
        let loaded = load(&[Input::Path(fixture.into()), policies], &options);
        assert!(!loaded.has_errors(), "{}: {:#?}", self.id, loaded.diagnostics);
        assert_eq!(loaded.cluster.policies.len(), self.count + more, "{}", self.id);
        loaded.cluster
    }
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} in {value}"))
}

fn vector(value: &Value) -> Vector {
    let policies = value["policies"].as_array().unwrap();
    // Objects that the API server refuses today and that an older one admitted.
    let raw = policies.iter().any(|p| p["kind"] == "cnp-raw");
    Vector {
        id: text(value, "id").to_owned(),
        learned: value["learned_dns"].as_object().unwrap().iter().map(learned).collect(),
        probes: value["probes"].as_array().unwrap().iter().map(expectation).collect(),
        policies: policies.iter().enumerate().map(|(i, p)| policy(i, p)).collect::<Vec<_>>().join("---\n"),
        count: policies.len(),
        admission: if raw { Admission::Passed } else { Admission::Check },
    }
}

fn learned((name, addresses): (&String, &Value)) -> (DomainName, LearnedName) {
    let name = DomainName::new(name).unwrap();
    let addresses = addresses.as_array().unwrap().iter().map(|a| a.as_str().unwrap().parse().unwrap());
    (name.clone(), LearnedName { name, addresses: addresses.collect() })
}

fn policy(index: usize, policy: &Value) -> String {
    // The key is the namespace of a NetworkPolicy, or the name of other kinds. Names must be lower case; two of F-70 are not.
    let key = text(policy, "key").to_lowercase();
    let (version, kind, metadata) = match text(policy, "kind") {
        "np" => {
            let metadata = format!("{{name: p{index}, namespace: \"{key}\"}}");
            ("networking.k8s.io/v1", "NetworkPolicy", metadata)
        }
        "cnp" | "cnp-raw" => {
            ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", format!("{{name: {key}}}"))
        }
        "anp" => ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", format!("{{name: {key}}}")),
        "banp" => {
            ("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy", format!("{{name: {key}}}"))
        }
        other => panic!("unknown kind {other}"),
    };
    // The document writes the namespace `y` without quotes, which kubectl reads as a boolean and refuses.
    let spec = text(policy, "spec").replace(": y}", ": \"y\"}");
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n")
}

fn expectation(probe: &Value) -> Expectation {
    Expectation {
        source: text(probe, "src").to_owned(),
        destination: text(probe, "dst").to_owned(),
        protocol: match text(probe, "proto") {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            other => panic!("unknown protocol {other}"),
        },
        port: u16::try_from(probe["port"].as_u64().unwrap()).unwrap(),
        family: if probe["family"] == 6 { Family::V6 } else { Family::V4 },
        verdict: match text(probe, "expect") {
            "ACCEPT" => Verdict::Allow,
            "DROP" => Verdict::Deny,
            other => panic!("unknown verdict {other}"),
        },
    }
}

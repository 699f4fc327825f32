//! Writes and reads cluster-wide policies for tests.

use palisade_manifest::{Admission, Channel, Input, LoadOptions, Loaded, load};
use palisade_policy::Policy;

pub(crate) const CNP: &str = "policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy";
pub(crate) const ANP: &str = "policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy";
pub(crate) const BANP: &str = "policy.networking.k8s.io/v1alpha1, kind: BaselineAdminNetworkPolicy";

/// An object on one line, with its spec from column 1 of line 2.
pub(crate) fn object(kind: &str, name: &str, spec: &str) -> String {
    format!("{{apiVersion: {kind}, metadata: {{name: {name}}}, spec:\n{spec}}}\n")
}

pub(crate) fn load_as(text: &str, channel: Channel, admission: Admission) -> Loaded {
    let input = Input::Text { name: "p.yaml".to_owned(), text: text.to_owned() };
    load(&[input], &LoadOptions { channel, admission, ..LoadOptions::default() })
}

pub(crate) fn checked(text: &str) -> Loaded {
    load_as(text, Channel::Experimental, Admission::Check)
}

pub(crate) fn only(loaded: &Loaded) -> &Policy {
    assert!(!loaded.has_errors(), "{:#?}", loaded.diagnostics);
    let mut policies = loaded.cluster.policies.values();
    let policy = policies.next().expect("a policy");
    assert!(policies.next().is_none());
    policy
}

/// The findings without file and object, as `column: severity: path: message`.
pub(crate) fn findings(loaded: &Loaded) -> Vec<String> {
    let mut found = Vec::new();
    for d in &loaded.diagnostics {
        let column = d.origin.as_ref().map_or(0, |s| s.column);
        let path = d.path.as_deref().unwrap_or_default();
        found.push(format!("{column}: {}: {path}: {}", d.severity, d.message));
    }
    found
}

/// The spec of a ClusterNetworkPolicy with these egress rules.
pub(crate) fn egress(rules: &str) -> String {
    format!("{{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, egress: [{rules}]}}")
}

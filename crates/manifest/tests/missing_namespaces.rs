//! Policies in namespaces that don't exist, and references to such namespaces.

use palisade_manifest::{Code, Input, LoadOptions, load};

/// The warnings about missing namespaces, without files.
fn warnings(text: &str, options: &LoadOptions) -> Vec<String> {
    let loaded = load(&[Input::Text { name: "f".into(), text: text.into() }], options);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let of = loaded.diagnostics.iter().filter(|d| d.code == Code::NoNamespace);
    of.map(ToString::to_string).collect()
}

const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: shpo}
spec:
  podSelector: {}
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: stagign}}
    - namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [a, shop]}]}
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
    - namespaceSelector: {matchLabels: {team: nobody}}
    - podSelector: {}
  - from:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: stagign}}
---
";
const NAMESPACE: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: staging}}
---
";

#[test]
fn a_misspelled_namespace_is_reported() {
    assert_eq!(
        warnings(&format!("{POLICY}{NAMESPACE}"), &LoadOptions::default()),
        [
            "f:2:1: warning: NetworkPolicy shpo/p: metadata.namespace: there is no namespace `shpo`, and no pod in it",
            "f:9:7: warning: NetworkPolicy shpo/p: there is no namespace `stagign`: the peer matches no pod",
        ]
    );
}

#[test]
fn without_all_namespaces_declared_nothing_is_reported() {
    assert!(warnings(POLICY, &LoadOptions::default()).is_empty());
    let partly = LoadOptions { all_namespaces: false, ..LoadOptions::default() };
    assert!(warnings(&format!("{POLICY}{NAMESPACE}"), &partly).is_empty());
}

#[test]
fn a_namespace_with_objects_exists() {
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: w, namespace: shpo}}\n---\n";
    let none = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: w, namespace: stagign}, spec: {replicas: 0}}\n";
    assert!(warnings(&format!("{POLICY}{NAMESPACE}{pod}{none}"), &LoadOptions::default()).is_empty());
}

/// Repositories refer to namespaces that others declare. A cluster has all of them.
#[test]
fn in_manifests_only_a_name_that_is_nearly_one_is_reported() {
    let elsewhere = POLICY.replace("shpo", "monitoring").replace("stagign", "ingress-nginx");
    let text = format!("{elsewhere}{NAMESPACE}");
    assert!(warnings(&text, &LoadOptions::default()).is_empty());
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: w, namespace: shop}, status: {phase: Running, podIP: 10.0.0.1}}\n---\n";
    assert_eq!(warnings(&format!("{text}{pod}"), &LoadOptions::default()).len(), 2);
    // One letter of three is another word.
    let short = POLICY.replace("shpo", "ops").replace("stagign", "web");
    let two = NAMESPACE.replace("shop", "oks").replace("staging", "dev");
    assert!(warnings(&format!("{short}{two}"), &LoadOptions::default()).is_empty());
}

#[test]
fn a_subject_without_namespaces_is_reported() {
    let text = "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: c}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: shopp}}}
  ingress: [{name: x, action: Deny, from: [{namespaces: {}}]}]
---
";
    assert_eq!(
        warnings(&format!("{text}{NAMESPACE}"), &LoadOptions::default()),
        [
            "f:2:1: warning: ClusterNetworkPolicy c: spec.subject: there is no namespace `shopp`: it selects no pod"
        ]
    );
}

//! Policies that the API server would refuse: what stands for them opens nothing.

use palisade_manifest::{Input, LoadOptions, Loaded, load};
use palisade_policy::{Direction, Endpoint, Flow, ObjectKey, Protocol, reference};

const PODS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: data}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: data, labels: {app: db}}
---
apiVersion: v1
kind: Pod
metadata: {name: x, namespace: data, labels: {app: x}}
---
apiVersion: v1
kind: Pod
metadata: {name: z, namespace: other}
---
";

const NP: &str = "networking.k8s.io/v1, kind: NetworkPolicy";
const CNP: &str = "policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy";
const BANP: &str = "policy.networking.k8s.io/v1alpha1, kind: BaselineAdminNetworkPolicy";

fn with(document: &str) -> Loaded {
    let text = format!("{PODS}{document}");
    load(&[Input::Text { name: "m.yaml".to_owned(), text }], &LoadOptions::default())
}

/// The pods that can't be reached, and those that can't reach others, as `<db` and `db>`.
fn isolated(loaded: &Loaded) -> String {
    // By name: no lookup finds a pod by a placeholder.
    let pod = |namespace: &str, name: &str| {
        let pod = &loaded.cluster.pods[&ObjectKey::new(namespace, name)];
        Endpoint::Pod { key: pod.key.clone(), address: pod.addresses[0] }
    };
    let mut out = Vec::new();
    for (namespace, name, peer) in
        [("data", "db", ("other", "z")), ("data", "x", ("other", "z")), ("other", "z", ("data", "x"))]
    {
        for direction in [Direction::Ingress, Direction::Egress] {
            let (own, peer) = (pod(namespace, name), pod(peer.0, peer.1));
            let (source, destination) =
                if direction == Direction::Ingress { (peer, own) } else { (own, peer) };
            let flow =
                Flow { source, destination, protocol: Protocol::Tcp, port: 5432, through_service: false };
            let decision = reference::decide(&loaded.cluster, &flow);
            let side = if direction == Direction::Ingress { &decision.ingress } else { &decision.egress };
            if !side.verdict.is_allow() {
                out.push(if direction == Direction::Ingress {
                    format!("<{name}")
                } else {
                    format!("{name}>")
                });
            }
        }
    }
    out.join(" ")
}

fn policy(version_and_kind: &str, spec: &str) -> String {
    format!("{{apiVersion: {version_and_kind}, metadata: {{name: p, namespace: data}}, spec: {spec}}}\n")
}

#[test]
fn a_network_policy_isolates_what_it_selects_in_its_directions() {
    let wrong = "ingress: [{ports: [{port: '5432'}]}]";
    for (spec, expected, effect) in [
        (
            format!("{{podSelector: {{matchLabels: {{app: db}}}}, policyTypes: [Ingress], {wrong}}}"),
            "<db",
            "it isolates pods app=db of namespace data for ingress, and allows nothing",
        ),
        (
            format!("{{podSelector: {{matchLabels: {{app: db}}}}, {wrong}}}"),
            "<db",
            "it isolates pods app=db of namespace data for ingress, and allows nothing",
        ),
        (
            format!("{{podSelector: {{matchLabels: {{app: db}}}}, policyTypes: [Egress], {wrong}}}"),
            "db>",
            "it isolates pods app=db of namespace data for egress, and allows nothing",
        ),
        (
            format!("{{podSelector: {{matchLabels: {{app: db}}}}, {wrong}, egress: [{{}}]}}"),
            "<db db>",
            "it isolates pods app=db of namespace data for ingress and egress, and allows nothing",
        ),
        (format!("{{podSelector: {{matchLabels: {{app: db}}}}, {wrong}, egress: []}}"), "<db", "for ingress,"),
        ("{podSelector: {matchLabels: {app: db}}, egress: {to: []}}".into(), "<db db>", "ingress and egress"),
        ("{podSelector: {matchLabels: {app: db}}, policyTypes: [ingress]}".into(), "<db db>", "ingress and egress"),
        ("{podSelector: {matchLabels: {app: db}}, policyTypes: Ingress}".into(), "<db db>", "ingress and egress"),
        ("{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress, Egress, Ingress]}".into(), "<db db>", "ingress and egress"),
        (format!("{{podSelector: {{}}, policyTypes: [Ingress], {wrong}}}"), "<db <x", "every pod of namespace data"),
        (format!("{{policyTypes: [Ingress], {wrong}}}"), "<db <x", "every pod of namespace data"),
        (
            "{podSelector: {matchLabels: {app: 7}}, policyTypes: [Ingress]}".into(),
            "<db <x",
            "every pod of namespace data",
        ),
        (
            "{podSelector: {matchExpressions: [{key: app, operator: in, values: [db]}]}, policyTypes: [Egress]}".into(),
            "db> x>",
            "every pod of namespace data",
        ),
        (
            format!("{{podSelector: {{matchLabel: {{app: db}}}}, policyTypes: [Ingress], {wrong}}}"),
            "<db <x",
            "every pod of namespace data",
        ),
        ("[]".into(), "<db db> <x x>", "every pod of namespace data for ingress and egress"),
        ("7".into(), "<db db> <x x>", "every pod of namespace data for ingress and egress"),
    ] {
        let loaded = with(&policy(NP, &spec));
        assert!(loaded.has_errors(), "{spec}");
        assert_eq!(isolated(&loaded), expected, "{spec}");
        let [refused] = &loaded.refused[..] else { panic!("{spec}: {:?}", loaded.refused) };
        let text = refused.to_string();
        assert!(text.starts_with("NetworkPolicy data/p (m.yaml:18) was refused: it isolates "), "{text}");
        assert!(text.contains(effect), "{spec}: {text}");
    }
}

#[test]
fn broken_metadata_does_not_open_anything() {
    for (metadata, expected, name) in [
        ("{namespace: data}", "<db <x", "data/line-18"),
        ("{name: P_1, namespace: data}", "<db <x", "data/P_1"),
        ("{name: 7, namespace: data}", "<db <x", "data/7"),
        ("{name: p, namespace: [data]}", "<db <x <z", "p"),
        ("{name: p, namespace: '{{ .Release.Namespace }}'}", "<db <x <z", "p"),
        ("7", "<db <x <z", "line-18"),
        ("{name: p, namespace: other, labels: [a]}", "<z", "other/p"),
    ] {
        let loaded = with(&format!(
            "{{apiVersion: {NP}, metadata: {metadata}, spec: {{podSelector: {{}}, policyTypes: [Ingress]}}}}\n"
        ));
        assert!(loaded.has_errors(), "{metadata}");
        assert_eq!(isolated(&loaded), expected, "{metadata}");
        assert_eq!(loaded.refused[0].key.to_string(), format!("NetworkPolicy {name}"), "{metadata}");
    }
}

#[test]
fn a_policy_of_a_kind_that_does_not_exist_isolates_too() {
    let spec = "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress], ingress: [{}]}";
    for kind in [
        "networking.k8s.io/v1, kind: networkpolicy",
        "networking.k8s.io/v1beta1, kind: NetworkPolicy",
        "extensions/v1beta1, kind: NetworkPolicy",
        "v1, kind: NetworkPolicy",
        "networking.k8s.io/v1, kind: Firewall",
    ] {
        let loaded = with(&policy(kind, spec));
        assert_eq!((isolated(&loaded).as_str(), loaded.refused.len()), ("<db", 1), "{kind}");
    }
    for list in [
        format!("{{apiVersion: v1, kind: List, Items: [{}]}}", policy(NP, spec).trim()),
        format!("{{apiVersion: v1, kind: list, Items: [{}]}}", policy(NP, spec).trim()),
        format!("{{apiVersion: v1, kind: List, items: {}}}", policy(NP, spec).trim()),
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicyList, Items: [{{metadata: {{name: p, namespace: data}}, spec: {spec}}}]}}"
        ),
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: networkpolicylist, items: [{{metadata: {{name: p, namespace: data}}, spec: {spec}}}]}}"
        ),
    ] {
        let loaded = with(&list);
        assert!(loaded.has_errors(), "{list}");
        assert_eq!((isolated(&loaded).as_str(), loaded.refused.len()), ("<db", 1), "{list}");
    }
}

#[test]
fn a_cluster_wide_policy_keeps_what_it_denies_and_opens_nothing() {
    let all = "subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: data}}}";
    let deny = "{action: Deny, from: [{namespaces: {}}]}";
    let accept = "{action: Accept, from: [{namespaces: {}}]}";
    let pass = "{action: Pass, from: [{namespaces: {}}]}";
    let wrong = "{action: Accept, from: [{namespaces: {}}], name: 7}";
    for (kind, spec, expected) in [
        // The priority is out of range; the rules are valid.
        (CNP, format!("{{tier: Admin, priority: 1001, {all}, ingress: [{deny}]}}"), "<db <x"),
        (CNP, format!("{{tier: Admin, priority: 1001, {all}, ingress: [{accept}, {deny}]}}"), "<db <x"),
        (CNP, format!("{{tier: Admin, priority: 1001, {all}, ingress: [{pass}]}}"), "<db <x"),
        (CNP, format!("{{tier: Admin, priority: 1001, {all}, ingress: [{accept}]}}"), ""),
        // The subject, the tier, the priority, or a type can't be read.
        (CNP, format!("{{tier: Admin, priority: 1, subject: {{}}, ingress: [{deny}]}}"), "<db <x <z"),
        (
            CNP,
            format!(
                "{{tier: admin, priority: 1, {all}, egress: [{{action: Deny, to: [{{namespaces: {{}}}}]}}]}}"
            ),
            "db> x>",
        ),
        (CNP, format!("{{tier: Admin, priority: high, {all}, ingress: [{deny}]}}"), "<db <x"),
        (CNP, format!("{{tier: Admin, priority: 1, {all}, ingress: [{wrong}]}}"), "<db <x"),
        (CNP, "[]".into(), "<db db> <x x> <z z>"),
        (BANP, format!("{{{all}, ingress: [{deny}]}}"), "<db <x"),
        (
            "policy.networking.k8s.io/v1, kind: ClusterNetworkPolicy",
            format!("{{tier: Admin, priority: 1, {all}, ingress: [{deny}]}}"),
            "<db <x",
        ),
    ] {
        let loaded = with(&policy(kind, &spec));
        assert!(loaded.has_errors(), "{spec}");
        assert_eq!(isolated(&loaded), expected, "{spec}");
        assert!(loaded.refused[0].effect.starts_with("it denies "), "{spec}: {}", loaded.refused[0]);
    }
}

#[test]
fn a_refused_policy_does_not_replace_a_valid_one_of_its_name() {
    let valid = policy(NP, "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}");
    let broken = policy(NP, "{podSelector: {matchLabels: {app: x}}, policyTypes: [Ingress], ingress: 7}");
    for text in [format!("{valid}---\n{broken}---\n{broken}"), format!("{broken}---\n{broken}---\n{valid}")] {
        let loaded = with(&text);
        assert_eq!(isolated(&loaded), "<db <x");
        assert_eq!((loaded.cluster.policies.len(), loaded.refused.len()), (3, 2));
    }
}

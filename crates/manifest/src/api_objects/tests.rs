use palisade_policy::Cluster;

use super::*;
use crate::{Admission, Input, LoadOptions, load};

fn from_json(text: &str) -> Decoded<Pod> {
    ObjectDecoder::default().pod(&serde_json::from_str(text).unwrap())
}

/// The same text, loaded as a manifest.
fn from_manifest(text: &str) -> Cluster {
    let options = LoadOptions { addresses: None, admission: Admission::Passed, ..LoadOptions::default() };
    load(&[Input::Text { name: "object.json".into(), text: text.into() }], &options).cluster
}

const POD: &str = r#"{"apiVersion": "v1", "kind": "Pod",
  "metadata": {"name": "web-6d5c7-x2x", "namespace": "shop", "uid": "u", "resourceVersion": "7",
    "creationTimestamp": "2026-11-23T00:30:04Z", "labels": {"app": "we\u0062", "pod-template-hash": "6d5c7", "none": null},
    "annotations": {"a": "b"}, "managedFields": [{"x": {}}],
    "ownerReferences": [{"kind": "Other", "name": "o"}, null,
      {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-6d5c7", "controller": true}]},
  "spec": {"nodeName": "node-1", "hostNetwork": null,
    "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 8080, "name": "http"},
      {"containerPort": 53, "protocol": "UDP"}]}],
    "initContainers": [{"name": "i", "ports": [{"containerPort": 1}]},
      {"name": "s", "restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 9}]}]},
  "status": {"phase": "Running", "podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}, {"ip": "fd00::9"}]}}"#;

#[test]
fn a_pod_is_what_its_manifest_is() {
    let read = from_json(POD);
    assert_eq!(read.findings, []);
    let cluster = from_manifest(POD);
    assert_eq!(Some(&read.value), cluster.pods.values().next());
    assert_eq!(&*read.value.workload.unwrap().kind, "Deployment");
    assert_eq!(read.value.ports.len(), 3);
    assert_eq!(read.value.labels.get("none"), Some(""), "a null value is the empty string");
}

#[test]
fn the_least_that_an_object_can_be() {
    for text in [
        r#"{"metadata": {"name": "p", "namespace": "n"}}"#,
        r#"{"metadata": {"name": "p", "namespace": "n", "labels": null, "ownerReferences": null}, "spec": null, "status": null}"#,
        r#"{"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [null]}, "status": {"podIPs": [null], "phase": ""}}"#,
    ] {
        let read = from_json(text);
        assert_eq!((read.value.phase, read.value.addresses.len()), (Phase::Running, 0), "{text}");
        assert_eq!(read.findings, [], "{text}");
    }
}

#[test]
fn what_cant_be_used_is_left_out_and_said() {
    let read = from_json(
        r#"{"metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": [{"ports": [{"containerPort": 99999}, {"containerPort": 80, "protocol": "ICMP"},
                                          {"containerPort": 80}]}]},
        "status": {"phase": "Dormant", "podIPs": [{"ip": "ten"}, {"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}}"#,
    );
    assert_eq!(read.value.phase, Phase::Unknown, "it keeps its policies");
    assert_eq!(read.value.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(read.value.ports.len(), 1);
    assert_eq!(read.findings.len(), 5, "{:?}", read.findings);
    assert!(
        read.findings[0].to_string().starts_with("warning: Pod n/p: status.phase"),
        "{}",
        read.findings[0]
    );
}

#[test]
fn nodes_and_namespaces_are_what_their_manifests_are() {
    let node = r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a", "labels": {"x": "y"}},
      "status": {"addresses": [{"type": "Hostname", "address": "a"}, {"type": "InternalIP", "address": "192.0.2.1"},
                               {"type": "ExternalIP", "address": "192.0.2.1"}, null, {"address": "fd00::1"}]}}"#;
    let read = ObjectDecoder::default().node(&serde_json::from_str(node).unwrap()).value;
    assert_eq!(Some(&read), from_manifest(node).nodes.values().next());
    let namespace = r#"{"apiVersion": "v1", "kind": "Namespace",
      "metadata": {"name": "shop", "labels": {"team": "a", "kubernetes.io/metadata.name": "lie"}}}"#;
    let pod: ApiPod<'_> = serde_json::from_str(namespace).unwrap();
    let read = ObjectDecoder::default().namespace(&pod.metadata).value;
    assert_eq!(Some(&read), from_manifest(namespace).namespaces.values().next());
}

fn network_policy(spec: &str) -> Decoded<Option<Arc<Policy>>> {
    ObjectDecoder::default().policy(format!(
        r#"{{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{{"name":"p","namespace":"shop"}},"spec":{spec}}}"#
    ))
}

#[test]
fn a_policy_is_what_its_manifest_is_without_places() {
    let spec = r#"{"podSelector":{"matchLabels":{"a":"\u0062"}},"policyTypes":["Ingress"],
        "ingress":[{"from":[{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}}],"ports":[{"port":80}]}]}"#;
    let read = network_policy(spec);
    assert_eq!(read.findings, []);
    let policy = read.value.unwrap();
    assert!(policy.subject.pods.matches(&Labels::from_iter([("a", "b")])));
    assert!(policy.egress.is_none() && policy.origin.is_none());
    let rule = &policy.ingress.as_ref().unwrap()[0];
    assert!(rule.origin.is_none() && rule.peers.as_ref().unwrap()[0].origin.is_none());
}

#[test]
fn an_unreadable_network_policy_isolates_what_it_selects_or_its_namespace() {
    let labels = |v: &'static str| Labels::from_iter([("app", v)]);
    let broken_rule =
        r#"{"podSelector":{"matchLabels":{"app":"web"}},"policyTypes":["Ingress"],"ingress":[{"from":5}]}"#;
    let broken_selector = r#"{"podSelector":{"matchLabels":["app"]},"policyTypes":["Ingress"]}"#;
    let unknown_in_selector = r#"{"podSelector":{"matchLabels":{"app":"web"},"matchRegex":"x"},"ingress":7}"#;
    let unknown_operator =
        r#"{"podSelector":{"matchExpressions":[{"key":"app","operator":"Near","values":["web"]}]}}"#;
    for (spec, others_too) in [
        (broken_rule, false),
        (broken_selector, true),
        (unknown_in_selector, true),
        (unknown_operator, true),
        ("7", true),
        ("[]", true),
    ] {
        let read = network_policy(spec);
        let policy = read.value.unwrap_or_else(|| panic!("{spec}"));
        assert_eq!((&policy.ingress, &policy.egress), (&Some(vec![]), &Some(vec![])), "{spec}");
        assert!(policy.subject.matches("shop", None, &labels("web")), "{spec}");
        assert_eq!(policy.subject.matches("shop", None, &labels("db")), others_too, "{spec}");
        assert!(!policy.subject.matches("other", None, &labels("web")), "{spec}");
        assert!(read.findings.iter().any(|d| d.severity == Severity::Error), "{spec}");
    }
}

#[test]
fn a_field_from_the_future_takes_away_the_rules() {
    let read = network_policy(
        r#"{"podSelector":{},"policyTypes":["Ingress"],"ingress":[{"from":[{"podSelector":{},"moon":"full"}]}]}"#,
    );
    let policy = read.value.unwrap();
    assert_eq!((&policy.ingress, &policy.egress), (&Some(vec![]), &None));
    assert!(read.findings.iter().any(|d| d.code == Code::Unusable), "{:?}", read.findings);
}

#[test]
fn a_cluster_wide_policy_without_a_place_is_none() {
    let of = |spec: &str| {
        ObjectDecoder::default().policy(format!(
            r#"{{"apiVersion":"policy.networking.k8s.io/v1alpha2","kind":"ClusterNetworkPolicy","metadata":{{"name":"p"}},"spec":{spec}}}"#
        ))
    };
    let good = of(
        r#"{"tier":"Admin","priority":5,"subject":{"namespaces":{}},"ingress":[{"action":"Deny","from":[{"namespaces":{}}]}]}"#,
    );
    assert_eq!(good.findings, []);
    assert_eq!(good.value.unwrap().priority, 5);
    let bad = of(r#"{"tier":"Attic","priority":5,"subject":{"namespaces":{}}}"#);
    assert!(bad.value.is_none());
    assert_eq!(bad.findings[0].severity, Severity::Error);
}

#[test]
fn a_long_policy_on_one_line_is_read_in_linear_time() {
    // With quadratic time this would take 10¹¹ steps.
    let peers: Vec<String> = (0..20_000)
        .map(|n| format!(r#"{{"ipBlock":{{"cidr":"10.{}.{}.0/24"}}}}"#, n / 250, n % 250))
        .collect();
    let read =
        network_policy(&format!(r#"{{"podSelector":{{}},"ingress":[{{"from":[{}]}}]}}"#, peers.join(",")));
    assert_eq!(read.findings, []);
    assert_eq!(read.value.unwrap().ingress.as_ref().unwrap()[0].peers.as_ref().unwrap().len(), 20_000);
}

#[test]
fn a_mirror_has_the_uid_of_its_static_pod() {
    let mirror =
        r#""annotations": {"kubernetes.io/config.mirror": "0e5f0d7c5b434d3c9f2c0123456789ab", "n": null}"#;
    let text = POD.replace(r#""annotations": {"a": "b"}"#, mirror);
    let pod = from_json(&text).value;
    assert_eq!(pod.uid.to_string(), "0e5f0d7c-5b43-4d3c-9f2c-0123456789ab");
    assert_eq!(Some(&pod), from_manifest(&text).pods.values().next());
}

const SERVICE: &str = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
  "spec": {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00::9"], "externalIPs": ["192.0.2.1", "192.0.2.1", "192.0.2.2"],
    "type": "LoadBalancer", "loadBalancerIP": "192.0.2.3", "selector": {"app": "web"},
    "ports": [{"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053}]},
  "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.4"}, {"ip": "192.0.2.4"}]}}}"#;

#[test]
fn a_service_is_what_its_manifest_is() {
    let read = ObjectDecoder::default().service(SERVICE.to_owned()).unwrap();
    assert_eq!(Some(&read), from_manifest(SERVICE).services.values().next());
    assert_eq!((read.addresses.len(), read.access.translated().count()), (2, 3));
    for text in ["", "[]", "{", r#"{"kind": "Service"}"#, r#"{"kind": "Pod", "metadata": {"name": "a"}}"#] {
        assert_eq!(ObjectDecoder::default().service(text.to_owned()), None, "{text}");
    }
    let bad = SERVICE.replace("192.0.2.2", "192.0.2.256");
    assert_eq!(ObjectDecoder::default().service(bad).unwrap().access.external_ips.len(), 1);
}

//! `palisade test` on the examples: the manifests, a lab of them, and a cluster with their objects give the same verdicts.

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};

use crate::{
    asking,
    server::{Server, merge, namespace, other},
    support::{palisade, root, run},
};

/// The examples with a file of assertions.
fn examples() -> Vec<String> {
    let entries = fs::read_dir(root().join("examples")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| Some(name.strip_suffix(".assertions.yaml")?.to_owned())).collect()
}

/// The objects of an example as a cluster has them: defaults, addresses, and the pods of the workloads.
fn objects(example: &str) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    let mut files: Vec<_> = fs::read_dir(root().join("examples").join(example)).unwrap().flatten().collect();
    files.sort_by_key(fs::DirEntry::path);
    for file in files.iter().filter(|file| file.path().extension().is_some_and(|end| end == "yaml")) {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&fs::read_to_string(file.path()).unwrap()).unwrap();
        out.extend(documents);
    }
    if !out.iter().any(|object| object["kind"] == "Node") {
        let addresses = json!([{"type": "InternalIP", "address": "192.168.200.11"}]);
        let node = json!({"spec": {"podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"]}, "status": {"addresses": addresses}});
        out.push(other("v1", "Node", "node-1", node));
    }
    let nodes: Vec<String> = names_of(&out, "Node");
    let (mut pods, mut next) = (Vec::new(), 0);
    for workload in out.iter().filter(|object| object["spec"]["template"].is_object()) {
        for replica in 0..workload["spec"]["replicas"].as_u64().unwrap() {
            pods.extend(running(workload, replica, &nodes, next));
            next += 1;
        }
    }
    for (at, service) in out.iter_mut().filter(|object| object["kind"] == "Service").enumerate() {
        let address = json!(format!("10.96.0.{}", at + 1));
        merge(service, json!({"spec": {"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address]}}));
    }
    for object in out.iter_mut().filter(|object| object["kind"] == "Namespace") {
        merge(object, namespace(object["metadata"]["name"].as_str().unwrap()));
    }
    out.extend(pods);
    out
}

fn names_of(objects: &[Value], kind: &str) -> Vec<String> {
    let of_kind = objects.iter().filter(|object| object["kind"] == kind);
    of_kind.map(|object| object["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// A running pod of a workload, and the ReplicaSet between the two.
fn running(workload: &Value, replica: u64, nodes: &[String], number: usize) -> Vec<Value> {
    let (kind, name) = (&workload["kind"], workload["metadata"]["name"].as_str().unwrap());
    let home = workload["metadata"]["namespace"].as_str().unwrap();
    let is_set = kind == "StatefulSet";
    let owner =
        |kind: &Value, name: &str| json!([{"kind": kind, "name": name, "controller": true, "uid": "u"}]);
    let set = format!("{name}-5d9c");
    let owners = if is_set { owner(kind, name) } else { owner(&json!("ReplicaSet"), &set) };
    let node = number % nodes.len();
    let (v4, v6) = (
        format!("10.244.{}.{}", node + 1, number + 10),
        format!("fd00:10:244:{}::{}", node + 1, number + 10),
    );
    let mut rest = workload["spec"]["template"].clone();
    merge(
        &mut rest,
        json!({
            "metadata": {"ownerReferences": owners},
            "spec": {"nodeName": nodes[node]},
            "status": {"phase": "Running", "podIP": v4, "podIPs": [{"ip": v4}, {"ip": v6}]},
        }),
    );
    let mut out = vec![other("v1", "Pod", &format!("{home}/{name}-{replica}"), rest)];
    if !is_set && replica == 0 {
        let rest = json!({"metadata": {"ownerReferences": owner(kind, name)}, "spec": {"replicas": 1}});
        out.push(other("apps/v1", "ReplicaSet", &format!("{home}/{set}"), rest));
    }
    out
}

/// The verdict of each assertion, with the exit code.
fn verdicts(mut command: std::process::Command) -> (i32, BTreeMap<String, String>, String) {
    let (code, out, err) = run(command.args(["-o", "json"]));
    let json: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    let results = json["results"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (code, results.map(|one| (text(&one["name"]), text(&one["status"]))).collect(), out)
}

/// The words of `palisade test` for the assertions about an example.
fn words(assertions: &str) -> String {
    format!("test examples/{assertions}.assertions.yaml")
}

#[test]
fn a_cluster_gives_the_verdicts_of_its_manifests() {
    let examples = examples();
    assert!(examples.len() >= 8, "{examples:?}");
    let others = [("shop".to_owned(), "shop-two-rules".to_owned())];
    for (assertions, example) in examples.iter().map(|e| (e.clone(), e.clone())).chain(others) {
        let words = words(&assertions);
        let (code, offline, _) = verdicts(palisade(&format!("{words} -f examples/{example}")));
        let server = Server::of(objects(&example));
        let (live_code, live, out) = verdicts(asking(&server.kubeconfig(), &format!("{words} --live")));
        assert_eq!((live_code, &live), (code, &offline), "{example}: {out}");
    }
}

/// A link-local address, which no host of a lab can have.
#[cfg(all(target_os = "linux", feature = "lab"))]
const UNTRIED: &str = "no job reaches the metadata service";

/// Packets contradict no verdict, and leave none without a connection that was tried, by name too.
#[cfg(all(target_os = "linux", feature = "lab"))]
#[test]
fn a_lab_gives_the_verdicts_of_its_manifests() {
    let others = [("shop".to_owned(), "shop-two-rules".to_owned())];
    for (assertions, example) in examples().iter().map(|e| (e.clone(), e.clone())).chain(others) {
        let words = format!("{} -f examples/{example}", words(&assertions));
        let (code, offline, _) = verdicts(palisade(&words));
        let (lab_code, lab, out) = verdicts(palisade(&format!("{words} --lab")));
        assert_eq!((lab_code, &lab), (code, &offline), "{example}: {out}");
        assert!(!out.contains("disagree"), "{example}: {out}");
        let untried = out.matches("packets: 0 connections").count();
        assert_eq!(untried, usize::from(lab.contains_key(UNTRIED)), "{example}: {out}");
    }
}

//! `palisade snapshot`, and reading a snapshot.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    ask,
    server::{Server, forbidden, namespace, other, pod, policy, shop},
    support::{palisade, run},
};

/// Returns every file below a directory, hidden ones too.
fn files(dir: &Path) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().display().to_string();
                out.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    out
}

/// Removes origins.
fn without_places(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("file");
            fields.remove("line");
            fields.remove("column");
            // Texts of explanations contain origins.
            fields.remove("text");
            fields.values_mut().for_each(without_places);
        }
        Value::Array(items) => items.iter_mut().for_each(without_places),
        _ => {}
    }
}

fn answers(text: &str) -> String {
    let mut value: Value = serde_json::from_str(text).unwrap();
    without_places(&mut value);
    value.to_string()
}

/// All kinds of objects, with names and labels that YAML could interpret as other types.
fn everything() -> Vec<Value> {
    let mut objects = shop();
    objects.push(namespace("no"));
    objects.push(pod("no/1e3", "0777", "10.0.0.9", None));
    objects.push(pod("no/null", "no", "fd00::9", None));
    let mut waiting = pod("shop/waiting", "web", "", None);
    waiting["status"] = json!({"phase": "Running"});
    objects.push(waiting);
    let mut labeled = pod("no/odd", "web", "10.0.0.10", None);
    labeled["metadata"]["labels"] = json!({"a": "true", "b": "1.10", "c": "0x1F", "d": "", "e": "2026-01-02", "f": "y", "g": "null", "h": "1_000"});
    objects.push(labeled);
    objects.push(policy(
        "no/on",
        json!({"podSelector": {"matchExpressions": [{"key": "b", "operator": "In", "values": ["1.10", "no"]}]},
            "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
                "ports": [{"port": "http"}, {"port": 53, "endPort": 60, "protocol": "UDP"}]}, {}],
            "egress": [], "policyTypes": ["Ingress", "Egress"]}),
    ));
    objects.push(other(
        "networking.k8s.io/v1",
        "Ingress",
        "shop/front",
        json!({"spec": {"defaultBackend": {"service": {"name": "db", "port": {"number": 80}}}}}),
    ));
    objects.push(other(
        "policy.networking.k8s.io/v1alpha2",
        "ClusterNetworkPolicy",
        "guard",
        json!({"spec": {"tier": "Baseline", "priority": 7, "subject": {"pods": {"namespaceSelector": {}, "podSelector": {}}},
            "egress": [{"name": "x", "action": "Deny", "to": [{"networks": ["192.0.2.0/24", "2001:db8::/32"]}]}]}}),
    ));
    objects
}

#[test]
fn a_snapshot_reads_back_to_the_same_answers() {
    let server = Server::of(everything());
    let kubeconfig = server.kubeconfig();
    let dir = TempDir::new().unwrap();
    let to = dir.path().join("deep/cluster");
    let (code, out, err) = ask(&kubeconfig, &format!("snapshot {}", to.display()));
    assert_eq!((code, &*out), (0, ""), "{err}");
    let written = files(&to);
    let names: Vec<&str> = written.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            ".palisade-snapshot",
            "clusternetworkpolicies.yaml",
            "namespaces.yaml",
            "no/networkpolicies.yaml",
            "no/pods.yaml",
            "nodes.yaml",
            "shop/ingresses.yaml",
            "shop/networkpolicies.yaml",
            "shop/pods.yaml",
            "shop/replicasets.yaml",
            "shop/services.yaml",
            "staging/jobs.yaml",
            "staging/pods.yaml",
        ]
    );
    let all: String = written.values().cloned().collect();
    for never in ["hunter2", "managedFields", "annotations", "PASSWORD", "uid", "resourceVersion", "web-old"]
    {
        assert!(!all.contains(never), "{never}: {all}");
    }
    for words in [
        "connections -o json",
        "connections -o json --group-by pod --nodes",
        "describe shop/db -o json",
        "explain shop/web shop/db:8080 -o json",
        "can no/pod/odd internet:443 -o json",
    ] {
        let (live_code, live, said) = ask(&kubeconfig, words);
        assert_ne!(live_code, 2, "{words}: {said}");
        let (code, there, err) = run(&mut palisade(&format!("{words} -f {}", to.display())));
        assert_eq!(code, live_code, "{words}: {err}");
        assert_eq!(answers(&live), answers(&there), "{words}");
    }
    // The same cluster gives the same bytes.
    let again = dir.path().join("again");
    assert_eq!(ask(&kubeconfig, &format!("snapshot {}", again.display())).0, 0);
    assert_eq!(files(&again), written);
    let (code, out, _) = ask(&kubeconfig, &format!("diff {} {}", to.display(), again.display()));
    assert_eq!((code, &*out), (0, "no connection changes\n"));
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "nothing is left over: {left:?}");
}

#[test]
fn only_a_snapshot_is_replaced_and_only_by_force() {
    let server = Server::of(shop());
    let kubeconfig = server.kubeconfig();
    let dir = TempDir::new().unwrap();
    let to = dir.path().join("c");
    let words = format!("snapshot {}", to.display());
    fs::create_dir(&to).unwrap();
    assert_eq!(ask(&kubeconfig, &words).0, 0, "an empty directory is as good as none");
    fs::write(to.join("stale.yaml"), "x").unwrap();
    let (code, _, err) = ask(&kubeconfig, &words);
    assert_eq!(code, 2);
    assert!(err.contains("already has a snapshot; use --force to replace it"), "{err}");
    assert_eq!(ask(&kubeconfig, &format!("{words} --force")).0, 0);
    assert!(!to.join("stale.yaml").exists() && to.join("namespaces.yaml").exists());
    fs::remove_file(to.join(".palisade-snapshot")).unwrap();
    let (code, _, err) = ask(&kubeconfig, &format!("{words} --force"));
    assert_eq!(code, 2);
    assert!(err.contains("is neither empty nor a snapshot"), "{err}");
    assert!(to.join("namespaces.yaml").exists());
    let file = dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    let (code, ..) = ask(&kubeconfig, &format!("snapshot {} --force", file.display()));
    assert_eq!((code, fs::read_to_string(&file).unwrap().as_str()), (2, "precious"));
}

#[test]
fn nothing_is_written_of_what_is_incomplete_or_hostile() {
    let dir = TempDir::new().unwrap();
    let to = dir.path().join("c");
    let words = format!("snapshot {}", to.display());
    let partly =
        Server::with(shop(), |request| request.path.ends_with("/networkpolicies").then(|| forbidden("them")));
    let (code, _, err) = ask(&partly.kubeconfig(), &words);
    assert_eq!(code, 2);
    assert!(err.contains("nothing was written") && err.contains("incomplete: networkpolicies"), "{err}");
    assert!(!to.exists());
    assert_eq!(ask(&partly.kubeconfig(), &format!("{words} --allow-incomplete")).0, 0);
    fs::remove_dir_all(&to).unwrap();
    let mut objects = shop();
    objects.push(pod("../../escape", "x", "10.0.0.77", None));
    objects[13]["metadata"]["namespace"] = "../..".into();
    let hostile = Server::of(objects);
    let (code, _, err) = ask(&hostile.kubeconfig(), &words);
    assert_eq!(code, 2);
    assert!(err.contains("invalid namespace name"), "{err}");
    assert!(!to.exists());
    // A policy with a field that this version does not support is not written without it.
    let mut objects = shop();
    let spec = json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
        "ingress": [{"name": "x", "action": "Deny", "from": [{"namespaces": {}}], "onlyOnMondays": true}]});
    objects.push(other(
        "policy.networking.k8s.io/v1beta1",
        "ClusterNetworkPolicy",
        "later",
        json!({"spec": spec}),
    ));
    let later = Server::of(objects);
    let (code, _, err) = ask(&later.kubeconfig(), &words);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("nothing was written") && err.contains("later"), "{err}");
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing is left over");
}

//! Files applied to a cluster.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    ask,
    server::{Server, lines, shop},
};

const DENY_ALL: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db}\n\
                        spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}\n";

fn file(dir: &TempDir, text: &str) -> String {
    let path = dir.path().join("over.yaml");
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_file_replaces_the_live_object_and_the_rest_stays() {
    let server = Server::of(shop());
    let (kubeconfig, dir) = (server.kubeconfig(), TempDir::new().unwrap());
    let path = file(&dir, DENY_ALL);
    for flag in
        ["--live".to_owned(), "--context test".to_owned(), format!("--kubeconfig {}", kubeconfig.display())]
    {
        let (code, out, err) = ask(&kubeconfig, &format!("can web db:8080 -f {path} {flag}"));
        assert_eq!((code, &*err), (1, ""), "{flag}: {out}");
        assert!(out.contains(&format!("NetworkPolicy shop/db ({path}:1)")), "{out}");
    }
    // With files only, KUBECONFIG has no effect.
    let before = server.requests().len();
    let (code, ..) = ask(&kubeconfig, &format!("can web db:8080 -f {path}"));
    assert_eq!((code, server.requests().len()), (2, before), "{}", lines(&server.requests()));
}

/// A workload's file changes its existing pods; fields that the cluster has set stay.
#[test]
fn a_workload_is_rolled_out() {
    let server = Server::of(shop());
    let (kubeconfig, dir) = (server.kubeconfig(), TempDir::new().unwrap());
    let deployment = |labels: &str, replicas: u32| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: shop}}\nspec:\n  replicas: {replicas}\n  \
             selector: {{matchLabels: {{name: web}}}}\n  template:\n    metadata: {{labels: {{name: web, {labels}}}}}\n    \
             spec: {{containers: [{{name: main, image: i}}]}}\n"
        )
    };
    let path = file(&dir, &deployment("app: client", 5));
    let (code, out, err) = ask(&kubeconfig, &format!("can web db:8080 -f {path} --live -o json"));
    assert_eq!((code, &*err), (1, ""), "{out}");
    let json: Value = serde_json::from_str(&out).unwrap();
    let flows = json["answers"][0]["flows"].as_array().unwrap();
    assert_eq!((flows.len(), &flows[0]["pairs"]), (1, &2.into()), "the pods that there are: {out}");
    assert_eq!(flows[0]["source"]["samples"][0]["address"], "10.0.0.1", "at their addresses: {out}");
    let path = file(&dir, &deployment("app: web", 0));
    let (code, _, err) = ask(&kubeconfig, &format!("can web db:8080 -f {path} --live"));
    assert_eq!(code, 2);
    assert!(err.contains("deployment shop/web has no pods"), "{err}");
}

/// Services, Pods and Nodes in files have no addresses.
#[test]
fn what_the_cluster_has_decided_stays() {
    let server = Server::of(shop());
    let (kubeconfig, dir) = (server.kubeconfig(), TempDir::new().unwrap());
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {selector: {app: db}, ports: [{port: 81, targetPort: http}]}\n\
                ---\napiVersion: v1\nkind: Pod\nmetadata: {name: db-x-a, labels: {app: other}}\nspec: {containers: []}\n\
                ---\napiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {zone: a}}\n";
    let path = file(&dir, text);
    let (code, out, _) = ask(&kubeconfig, &format!("can web 10.0.0.3:9 -f {path} --live"));
    assert_eq!(code, 0, "the pod has its address and another label: {out}");
    assert!(out.contains("shop/") && out.contains("db-x-a"), "{out}");
    let (_, out, err) = ask(&kubeconfig, &format!("can web 10.96.0.7:81 -f {path} --live"));
    assert!(format!("{out}{err}").contains("db"), "{out}{err}");
    let (code, out, _) = ask(&kubeconfig, &format!("can 192.0.2.1 web:8080 -f {path} --live"));
    assert_eq!(code, 0);
    assert!(out.contains("node"), "{out}");
}

#[test]
fn live_without_files_is_a_wrong_command_line() {
    let server = Server::of(shop());
    let (code, _, err) = ask(&server.kubeconfig(), "can web db --live");
    assert_eq!(code, 2);
    assert!(err.contains("give them with -f, -k or --helm"), "{err}");
}

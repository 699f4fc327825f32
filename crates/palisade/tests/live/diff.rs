//! `palisade diff --live`.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    ask,
    server::{Server, forbidden, shop},
};

#[test]
fn what_applying_a_path_would_change() {
    let server = Server::of(shop());
    let (kubeconfig, dir) = (server.kubeconfig(), TempDir::new().unwrap());
    let path = dir.path().join("new.yaml");
    let at = path.display();
    let policy = |rules: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: db}}\n\
             spec: {{podSelector: {{matchLabels: {{app: db}}}}, policyTypes: [Ingress], ingress: {rules}}}\n"
        )
    };
    let same = "[{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8080}]}]";
    fs::write(&path, policy(same)).unwrap();
    let (code, out, err) = ask(&kubeconfig, &format!("diff --live {at}"));
    assert_eq!((code, &*out, &*err), (0, "no connection changes\n", ""));
    fs::write(&path, policy("[]")).unwrap();
    let (code, out, err) = ask(&kubeconfig, &format!("diff --live {at}"));
    assert_eq!((code, &*err), (1, ""), "{out}");
    assert!(out.contains("- shop/deployment/web → shop/rollout/db  TCP 8080"), "{out}");
    assert!(out.contains(&format!("NetworkPolicy shop/db edited (networkpolicy/shop/db → {at}:1)")), "{out}");
    let (code, out, _) = ask(&kubeconfig, &format!("diff --context test {at} -o json"));
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["result"]), (1, &"different".into()));
    let before = &json["causes"][0]["before"];
    assert_eq!((&before["file"], &before["line"]), (&"networkpolicy/shop/db".into(), &Value::Null));
    // New pods are new ends and do not affect other connections.
    fs::write(&path, "apiVersion: v1\nkind: Pod\nmetadata: {name: new, labels: {app: web}}\n").unwrap();
    let (code, out, _) = ask(&kubeconfig, &format!("diff --live {at}"));
    assert_eq!(code, 1);
    assert!(out.contains("new") && out.lines().all(|l| !l.starts_with('-')), "{out}");
}

#[test]
fn what_cannot_be_compared() {
    let server = Server::of(shop());
    let (kubeconfig, dir) = (server.kubeconfig(), TempDir::new().unwrap());
    let empty = dir.path().display();
    for (words, part) in [
        (format!("diff --live {empty}"), "no manifests found"),
        (format!("diff --live {empty} {empty}"), "--live takes one path"),
        (format!("diff --live --git a..b {empty}"), "cannot be used with"),
        (format!("diff --context test --git a..b {empty}"), "can't be combined"),
        (format!("diff {empty}"), "or --live to compare with the cluster"),
    ] {
        let (code, out, err) = ask(&kubeconfig, &words);
        assert_eq!((code, &*out), (2, ""), "{words}: {err}");
        assert!(err.contains(part), "{words}: {err}");
    }
    let path = dir.path().join("p.yaml");
    fs::write(&path, "apiVersion: v1\nkind: Namespace\nmetadata: {name: fresh}\n").unwrap();
    let partly =
        Server::with(shop(), |request| request.path.ends_with("/networkpolicies").then(|| forbidden("them")));
    let (code, out, err) = ask(&partly.kubeconfig(), &format!("diff --live {} -o md", path.display()));
    assert_eq!(code, 2, "{err}");
    assert!(out.contains("**Incomplete**: networkpolicies could not be read"), "{out}");
}

//! The published ClusterRole grants every request.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::{
    ask,
    server::{Server, shop},
    support::root,
};

fn granted() -> BTreeSet<(String, String)> {
    let text = fs::read_to_string(root().join("deploy/manifests/explainer.yaml")).unwrap();
    let role: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(
        (&role["kind"], &role["metadata"]["name"]),
        (&"ClusterRole".into(), &"palisade-explainer".into())
    );
    let words = |v: &Value| -> Vec<String> {
        v.as_array().unwrap().iter().map(|w| w.as_str().unwrap().to_owned()).collect()
    };
    let mut out = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        assert_eq!(words(&rule["verbs"]), ["list"], "only lists are requested");
        assert!(rule.get("nonResourceURLs").is_none());
        for group in words(&rule["apiGroups"]) {
            out.extend(words(&rule["resources"]).into_iter().map(|resource| (group.clone(), resource)));
        }
    }
    out
}

/// Every requested path is a list of a kind in the role, or discovery, which every user may read.
#[test]
fn nothing_is_asked_for_beyond_the_role() {
    let server = Server::of(shop());
    ask(&server.kubeconfig(), "connections");
    let plurals: BTreeSet<String> = granted().into_iter().map(|(_, plural)| plural).collect();
    for request in server.requests() {
        let last = request.path.rsplit('/').next().unwrap();
        assert!(request.path == "/apis" || plurals.contains(last), "{}", request.path);
    }
}

//! `palisade ui` of a cluster: YAML of its objects, and a cluster that goes away.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};

use crate::{
    ask,
    server::{Reply, Server, shop},
    ui_client,
};

fn started(kubeconfig: &std::path::Path, words: &str) -> ui_client::Server {
    let words = format!("--kubeconfig {} {words}", kubeconfig.display());
    ui_client::Server::start(&words.split_whitespace().collect::<Vec<_>>())
}

/// Objects of a cluster have no file: their YAML is written, and the deciding rule is at its line.
#[test]
fn yaml_of_live_objects_is_shown() {
    let server = Server::of(shop());
    let kubeconfig = server.kubeconfig();
    let ui = started(&kubeconfig, "");
    let answer = ui.get("/api/v1/report");
    let (code, printed, err) = ask(&kubeconfig, "report -o json");
    assert_eq!((code, &answer.body), (0, &printed), "{err}");
    let report = answer.json();
    let rule = report["deciders"].as_array().unwrap().iter().find(|decider| decider["rule"] == true).unwrap();
    let passage = &report["sources"][rule["sources"][0].as_u64().unwrap() as usize];
    assert_eq!(passage["file"], "networkpolicy/shop/db");
    assert_eq!(passage["lines"][0], "- from:");
    // The same lines as in the editor.
    let policy = ui.get("/api/v1/policy?name=NetworkPolicy%20shop%2Fdb").json();
    let text = policy["text"].as_str().unwrap();
    let line = text.lines().nth(passage["line"].as_u64().unwrap() as usize - 1).unwrap();
    assert_eq!((line.trim(), &policy["file"]), ("- from:", &Value::Null), "{text}");
    assert!(text.contains("app: web") && text.starts_with("apiVersion: networking.k8s.io/v1\n"), "{text}");
    // It is what was read.
    let body = json!({"page": "a", "text": text, "replaces": "NetworkPolicy shop/db"}).to_string();
    let tried = ui.post("/api/v1/try", &body).json();
    assert_eq!(tried["errors"], json!([]), "{tried:#}");
    assert_eq!(tried["consequences"]["summary"]["text"], "no connection changes", "{tried:#}");
}

#[test]
fn a_cluster_that_goes_away_is_said_and_what_was_read_stays() {
    let is_away = Arc::new(AtomicBool::new(false));
    let away = Arc::clone(&is_away);
    let server = Server::with(shop(), move |_| {
        away.load(Ordering::Relaxed)
            .then(|| Reply::Json(500, json!({"kind": "Status", "message": "etcd is gone"})))
    });
    let ui = started(&server.kubeconfig(), "--interval 1s");
    let first = ui.state();
    assert_eq!((&first["cluster"], &first["problem"]), (&json!(true), &Value::Null));
    let report = ui.get("/api/v1/report").body;
    is_away.store(true, Ordering::Relaxed);
    let gone = ui.wait("the cluster that is gone", |state| !state["problem"].is_null());
    assert!(gone["problem"]["text"].as_str().is_some_and(|text| !text.is_empty()), "{gone:#}");
    assert_eq!(ui.get("/api/v1/report").body, report);
    is_away.store(false, Ordering::Relaxed);
    let back = ui.wait("the cluster that is back", |state| state["problem"].is_null());
    assert!(back["world"].as_u64() > gone["world"].as_u64(), "{back:#}");
}

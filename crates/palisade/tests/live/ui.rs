//! `palisade ui` of a cluster: YAML of its objects, a cluster that goes away, and flows of its agents.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};

use crate::{
    ask,
    exec_server::{Act, ExecServer},
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

#[test]
fn flows_of_agents_are_followed_and_nodes_that_fail_are_named() {
    let server = ExecServer::of(&["n1", "n2"], Some(3), |node, _| match node {
        "n1" => vec![Act::Line(page(node)), Act::Stay],
        _ => vec![Act::Error("error: flow-buffer is 0\n".to_owned()), Act::Exit(2)],
    });
    let ui = started(&server.kubeconfig(), "-f examples/shop --namespace-of-agents palisade-system");
    // Agents are queried when a page first asks.
    assert!(server.commands("n1").is_empty());
    let mut answer = ui.get("/api/v1/flows").json();
    let failed = |answer: &Value| {
        let nodes = answer["nodes"].as_array().unwrap();
        nodes
            .iter()
            .find(|node| node["name"] == "n2")
            .and_then(|node| node["problem"].as_str())
            .map(str::to_owned)
    };
    let mut records: Vec<Value> = Vec::new();
    for _ in 0..50 {
        records.extend(answer["records"].as_array().unwrap().iter().cloned());
        if !records.is_empty() && failed(&answer).is_some() {
            break;
        }
        answer = ui.get(&format!("/api/v1/flows?after={}", answer["number"])).json();
    }
    assert_eq!((&answer["from"], records.len()), (&json!("agents"), 1), "{answer:#}");
    assert_eq!(records[0]["node"], "n1");
    assert!(failed(&answer).unwrap().contains("flow-buffer is 0"), "{answer:#}");
    assert!(answer["problem"].as_str().unwrap().contains("1 of 3 nodes have no agent yet"), "{answer:#}");
    let words = server.commands("n1")[0].join(" ");
    assert_eq!(words, "/usr/local/bin/palisade flows --output=pages --follow --last=1000");
}

/// A page of one record.
fn page(node: &str) -> Value {
    let end = json!({"address": "10.0.0.1"});
    json!({
        "records": [{"id": 1, "time": "2026-11-28T10:00:00Z", "node": node, "verdict": "dropped",
            "direction": "ingress", "source": end, "destination": end, "protocol": "TCP", "port": 5432,
            "reason": ["isolated by NetworkPolicy shop/closed"], "generation": 1, "count": 1}],
        "next": 2, "more": false, "evicted": 0, "unrecorded": 0, "started": "2026-11-28T09:00:00Z",
    })
}

//! The startup taint of a node, against an API server in this process. In virtual time.

use palisade_api::{STARTUP_TAINT, remove_startup_taint};
use serde_json::{Value, json};

mod support;

use support::server::Server;

const NODES: &str = "/api/v1/nodes";

fn taint(key: &str, effect: &str) -> Value {
    json!({"key": key, "effect": effect})
}

fn put(server: &Server, taints: &Value) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "uid": "u"}, "spec": {"taints": taints}});
    server.put(NODES, node);
}

fn taints(server: &Server) -> Value {
    server.get(NODES, "", "n1").expect("the node is there")["spec"]["taints"].clone()
}

#[tokio::test(start_paused = true)]
async fn the_taint_is_removed_and_others_stay() {
    let server = Server::start();
    let others =
        json!([taint("node.kubernetes.io/not-ready", "NoExecute"), taint("dedicated", "NoSchedule")]);
    put(
        &server,
        &json!([others[0], taint(STARTUP_TAINT, "NoSchedule"), others[1], taint(STARTUP_TAINT, "NoExecute")]),
    );
    remove_startup_taint(server.client(), None, "n1".into()).await;
    assert_eq!(taints(&server), others);
    // It isn't there: nothing is written.
    let version = server.version();
    remove_startup_taint(server.client(), None, "n1".into()).await;
    assert_eq!(server.version(), version);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_tried_again() {
    let server = Server::start();
    put(&server, &json!([taint(STARTUP_TAINT, "NoSchedule")]));
    server.forbid(NODES);
    let removal = tokio::spawn(remove_startup_taint(server.client(), None, "n1".into()));
    server.until("attempts", |server| server.requests("/nodes/n1") > 3).await;
    assert_eq!(taints(&server), json!([taint(STARTUP_TAINT, "NoSchedule")]));
    server.allow(NODES);
    removal.await.unwrap();
    assert_eq!(taints(&server), json!([]));
}

//! The reports, against an API server in this process that stores them. In virtual time.

use std::time::Duration;

use palisade_api::{ObjectRef, ReportOptions, Reporter, ResourceKind, report};
use palisade_manifest::{Code, Diagnostic, Severity};
use serde_json::{Value, json};

mod support;

use support::server::{Fault, Server};

const CNP: &str = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/palisade-system/leases";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const SHOP_EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";

fn reporter(server: &Server, node: &str) -> Reporter {
    let options = ReportOptions {
        max_event_delay: Duration::from_millis(10),
        max_first_lease_delay: Duration::from_millis(10),
        ..ReportOptions::for_node(node)
    };
    report(server.client(), options)
}

fn guard(generation: i64, uid: &str) -> ObjectRef {
    ObjectRef {
        kind: ResourceKind::ClusterNetworkPolicy,
        namespace: None,
        name: "guard".into(),
        uid: uid.into(),
        generation,
    }
}

fn put_guard(server: &Server, priority: i32) {
    server.put(
        CNP,
        json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
               "metadata": {"name": "guard", "uid": "uid-guard"}, "spec": {"priority": priority},
               "status": server.get(CNP, "", "guard").map_or(json!({"conditions": [{"type": "other.example/Seen",
                   "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
                   |o| o["status"].clone())}),
    );
}

fn condition(server: &Server, kind: &str) -> Value {
    let object = server.get(CNP, "", "guard").expect("the policy exists");
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|c| c["type"] == kind).unwrap_or(Value::Null)
}

fn finding() -> Diagnostic {
    Diagnostic {
        path: Some("spec.ingress[0]".to_owned()),
        ..Diagnostic::new(Severity::Error, Code::Unusable, "can't be used")
    }
}

#[tokio::test(start_paused = true)]
async fn conditions_are_written_once_by_the_leader_and_follow_the_policy() {
    let server = Server::start();
    server.serve(CNP);
    put_guard(&server, 1);
    let reporters: Vec<Reporter> = (0..4).map(|n| reporter(&server, &format!("node-{n}"))).collect();
    for reporter in &reporters {
        reporter.findings(guard(1, "uid-guard"), vec![]);
        reporter.programmed(Ok(()));
    }
    server
        .until("the conditions", |server| condition(server, "palisade.dev/Programmed")["status"] == "True")
        .await;
    let accepted = condition(&server, "palisade.dev/Accepted");
    assert_eq!((&accepted["status"], &accepted["observedGeneration"]), (&json!("True"), &json!(1)));
    assert_eq!(
        condition(&server, "other.example/Seen")["status"],
        "True",
        "conditions of other managers stay"
    );
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(server.requests("PATCH"), 1, "one writer, one write");
    assert!(server.get(LEASES, "", "palisade-status-writer").is_some());

    // The same findings again cause no write; a new generation does.
    for reporter in &reporters {
        reporter.findings(guard(1, "uid-guard"), vec![]);
        reporter.programmed(Ok(()));
    }
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(server.requests("PATCH"), 1);
    put_guard(&server, 2);
    for reporter in &reporters {
        reporter.findings(guard(2, "uid-guard"), vec![finding()]);
        reporter.programmed(Ok(()));
    }
    server
        .until("the refusal", |server| condition(server, "palisade.dev/Accepted")["status"] == "False")
        .await;
    let refused = condition(&server, "palisade.dev/Accepted");
    assert_eq!(refused["observedGeneration"], 2);
    assert_eq!(refused["message"], "error: spec.ingress[0]: can't be used");
    // Only the leader reports an Event.
    server.until("the Event", |server| !server.objects(EVENTS).is_empty()).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let events = server.objects(EVENTS);
    assert_eq!(events.len(), 1, "{events:?}");
    let event = &events[0];
    assert_eq!(
        (&event["reportingController"], &event["reason"]),
        (&json!("palisade.dev/agent"), &json!("Unusable"))
    );
    assert_eq!(event["regarding"]["name"], "guard");
    assert_eq!(event["regarding"]["uid"], "uid-guard");
}

#[tokio::test(start_paused = true)]
async fn the_status_of_another_object_or_generation_is_not_written() {
    let server = Server::start();
    server.serve(CNP);
    put_guard(&server, 1);
    put_guard(&server, 2);
    let reporter = reporter(&server, "node-1");
    reporter.findings(guard(1, "uid-guard"), vec![]);
    server.until("a look at it", |server| server.requests("/guard/status") > 0).await;
    reporter.findings(guard(2, "another"), vec![]);
    server.until("another look", |server| server.requests("/guard/status") > 2).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(server.requests("PATCH"), 0);
}

#[tokio::test(start_paused = true)]
async fn every_agent_reports_its_own_node() {
    let server = Server::start();
    // Another agent is the leader.
    let taken = json!({"metadata": {"name": "palisade-status-writer"}, "spec": {"holderIdentity": "other"}});
    server.put(LEASES, taken);
    let reporter = reporter(&server, "node-7");
    let bad =
        ObjectRef { kind: ResourceKind::NetworkPolicy, namespace: Some("shop".into()), ..guard(1, "u") };
    reporter.findings(bad, vec![finding()]);
    reporter.programmed(Err("the kernel refuses: no memory".to_owned()));
    server.until("the Event", |server| !server.objects(EVENTS).is_empty()).await;
    let event = server.objects(EVENTS).remove(0);
    assert_eq!(
        (&event["regarding"]["kind"], &event["regarding"]["name"]),
        (&json!("Node"), &json!("node-7"))
    );
    assert_eq!(event["note"], "the kernel refuses: no memory");
    assert_eq!(event["reportingInstance"], "node-7");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(server.objects(SHOP_EVENTS).is_empty(), "only the leader reports problems with objects");
}

#[tokio::test(start_paused = true)]
async fn failed_writes_are_retried() {
    let server = Server::start();
    server.serve(CNP);
    put_guard(&server, 1);
    for _ in 0..2 {
        server.fault("/guard/status", Fault::Respond(500, vec![], "etcd".to_owned()));
    }
    server.fault("/leases", Fault::Respond(503, vec![], "not now".to_owned()));
    server.forbid(EVENTS);
    let reporter = reporter(&server, "node-1");
    reporter.findings(guard(1, "uid-guard"), vec![finding()]);
    server
        .until("the conditions", |server| condition(server, "palisade.dev/Accepted")["status"] == "False")
        .await;
    server.until("a refused Event", |server| server.requests("POST /apis/events") > 0).await;
}

#[tokio::test(start_paused = true)]
async fn reporting_ends_with_the_last_reporter() {
    let server = Server::start();
    let reporter = reporter(&server, "node-1");
    server.until("the lease", |server| server.get(LEASES, "", "palisade-status-writer").is_some()).await;
    let clone = reporter.clone();
    drop(reporter);
    clone.programmed(Err("full".to_owned()));
    server.until("the Event", |server| !server.objects(EVENTS).is_empty()).await;
    drop(clone);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let before = server.requests("");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.requests(""), before);
}

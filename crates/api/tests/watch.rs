//! The watches against an API server that lists, watches and fails as the real one does.

use std::time::Duration;

use palisade_api::{Event, ResourceKind, WatchOptions, WatchState};
use palisade_policy::{Labels, ObjectKey, PolicyKey};
use serde_json::json;

mod support;

use support::{
    follower::Follower,
    server::{Fault, PODS, POLICIES, Server, Streaming, network_policy, pod},
};

const NAMESPACES: &str = "/api/v1/namespaces";
const NODES: &str = "/api/v1/nodes";
const CNP: &str = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";
const CNP_BETA: &str = "/apis/policy.networking.k8s.io/v1beta1/clusternetworkpolicies";

fn namespace(name: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": name}}})
}

fn cluster_policy(name: &str, priority: i32) -> serde_json::Value {
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": name},
           "spec": {"tier": "Admin", "priority": priority, "subject": {"namespaces": {}},
                    "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}]}})
}

/// A server with a namespace, a node, three pods and a policy.
async fn server() -> Server {
    let server = Server::start().await;
    server.put(NAMESPACES, namespace("shop"));
    server.put(
        NODES,
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1", "labels": {"zone": "a"}},
               "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}}),
    );
    for n in 1..=3 {
        server.put(PODS, pod("shop", &format!("web-{n}"), "web", &format!("10.0.0.{n}")));
    }
    server.put(POLICIES, network_policy("shop", "web", "web", "client"));
    server
}

#[tokio::test]
async fn lists_first_and_then_every_change() {
    let server = server().await;
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    follower.caught_up(&server).await;
    assert_eq!(follower.states[&ResourceKind::ClusterNetworkPolicy], WatchState::NotServed);
    server.put(PODS, pod("shop", "late", "client", "10.0.0.9"));
    follower.caught_up(&server).await;
    server.put(PODS, pod("shop", "late", "other", "10.0.0.9"));
    server.delete(PODS, "shop", "web-1");
    server.delete(POLICIES, "shop", "web");
    server.put(NAMESPACES, namespace("new"));
    follower.caught_up(&server).await;
    assert!(follower.cluster().policies.is_empty());
    assert_eq!(server.requests("limit="), 0, "the lists were streamed");
}

#[tokio::test]
async fn nothing_is_told_that_a_decision_does_not_need() {
    let server = server().await;
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    let mut object = pod("shop", "web-1", "web", "10.0.0.1");
    object["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    object["metadata"]["annotations"] = json!({"seen": "now"});
    server.put(PODS, object);
    server.put(PODS, pod("shop", "marker", "web", "10.0.0.7"));
    follower.caught_up(&server).await;
    assert_eq!(follower.changes.len(), 1, "{:?}", follower.changes);
}

#[tokio::test]
async fn old_servers_are_read_in_pages() {
    for streaming in [Streaming::Refused(422), Streaming::Refused(400), Streaming::Refused(403)] {
        let server = server().await;
        server.streaming(streaming);
        for n in 0..1203 {
            let address = format!("10.1.{}.{}", n / 250, n % 250);
            server.put(PODS, pod("shop", &format!("many-{n}"), "many", &address));
        }
        let mut follower = Follower::of(&server);
        if streaming == Streaming::Refused(403) {
            // A right that is missing is not taken for an old server.
            follower.until("the failure", |f| f.why(ResourceKind::Pod).is_some()).await;
            assert_eq!(server.requests("limit="), 0);
            continue;
        }
        follower.snapshot().await;
        follower.caught_up(&server).await;
        assert_eq!(server.requests("/api/v1/pods?&limit=500"), 3, "1206 pods are three pages");
        server.put(PODS, pod("shop", "late", "client", "10.0.0.9"));
        follower.caught_up(&server).await;
    }
}

#[tokio::test]
async fn a_server_that_has_never_heard_of_streamed_lists_is_read_in_pages() {
    let server = server().await;
    server.streaming(Streaming::Ignored);
    let options = WatchOptions { response_timeout: Duration::from_millis(300), ..Follower::options() };
    let mut follower = Follower::with(&server, options);
    follower.snapshot().await;
    follower.caught_up(&server).await;
    assert!(server.requests("/api/v1/pods?&limit=500") > 0);
}

#[tokio::test]
async fn pages_that_expire_are_read_again_whole() {
    let server = server().await;
    server.streaming(Streaming::Refused(422));
    for n in 0..700 {
        server.put(PODS, pod("shop", &format!("many-{n}"), "many", &format!("10.1.{}.{}", n / 250, n % 250)));
    }
    let gone = json!({"kind": "Status", "code": 410, "message": "too old"}).to_string();
    server.fault("continue=", Fault::Answer(410, vec![], gone));
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    follower.caught_up(&server).await;
}

#[tokio::test]
async fn a_watch_that_ends_or_breaks_is_resumed_where_it_was() {
    let server = server().await;
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    for (n, in_the_middle) in [false, true, true, false, true].into_iter().enumerate() {
        server.cut(in_the_middle);
        server.put(PODS, pod("shop", &format!("late-{n}"), "client", &format!("10.0.1.{n}")));
        server.delete(PODS, "shop", &format!("late-{}", n.wrapping_sub(1)));
        follower.caught_up(&server).await;
    }
    let lists = server.requests("sendInitialEvents");
    assert_eq!(lists, 4, "each kind was listed once");
}

#[tokio::test]
async fn bookmarks_move_the_position_so_that_a_compaction_costs_no_list() {
    let server = server().await;
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    let before = server.version();
    for collection in [PODS, NODES, NAMESPACES, POLICIES] {
        server.bookmark(collection);
    }
    follower.for_a_while(Duration::from_millis(100)).await;
    server.cut(false);
    follower.for_a_while(Duration::from_millis(200)).await;
    let resumed = server.requests("/api/v1/pods?&watch=true");
    assert!(resumed >= 2);
    assert_eq!(
        server.requests(&format!("resourceVersion={before}")),
        0,
        "resumed from the bookmark, not from the list"
    );
}

#[tokio::test]
async fn after_410_the_list_is_read_anew_and_what_vanished_is_removed() {
    for http_status in [false, true] {
        let server = server().await;
        let mut follower = Follower::of(&server);
        follower.snapshot().await;
        // Everything happens while nobody watches.
        if http_status {
            let gone = json!({"kind": "Status", "code": 410, "message": "too old"}).to_string();
            for kind in ["pods?&watch", "networkpolicies?&watch"] {
                server.fault(kind, Fault::Answer(410, vec![], gone.clone()));
            }
        }
        server.delete(PODS, "shop", "web-2");
        server.put(PODS, pod("shop", "web-3", "changed", "10.0.0.3"));
        server.delete(POLICIES, "shop", "web");
        server.compact();
        server.cut(true);
        let unchanged = ObjectKey::new("shop", "web-1");
        follower.caught_up(&server).await;
        let touched = |c: &palisade_policy::Change| match c {
            palisade_policy::Change::SetPod(p) => p.key == unchanged,
            palisade_policy::Change::RemovePod(k) => *k == unchanged,
            _ => false,
        };
        assert!(!follower.changes.iter().any(touched), "an unchanged pod is neither removed nor told again");
        let failing = |(_, s): &(ResourceKind, WatchState)| matches!(s, WatchState::Failing { .. });
        assert!(!follower.history.iter().any(failing), "{:?}", follower.history);
    }
}

#[tokio::test]
async fn rubbish_costs_a_watch_but_never_an_event() {
    let server = server().await;
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    for (n, rubbish) in
        ["<html>502</html>", "{\"type\":\"ADDED\"", "\u{0}\u{1}", "{\"type\":\"NEWS\",\"object\":{}}", "[]"]
            .into_iter()
            .enumerate()
    {
        server.inject(PODS, rubbish);
        server.put(PODS, pod("shop", &format!("behind-{n}"), "client", &format!("10.0.2.{n}")));
        // The line stands in the log for ever: only a new list leads past it.
        follower.caught_up(&server).await;
        follower.until("recovery", |f| f.states[&ResourceKind::Pod] == WatchState::Watching).await;
    }
    let said = |(k, s): &(ResourceKind, WatchState)| {
        *k == ResourceKind::Pod
            && matches!(s, WatchState::Failing { why } if why.contains("cannot decode") && why.contains("stay in effect"))
    };
    assert!(follower.history.iter().any(said), "{:?}", follower.history);
}

#[tokio::test]
async fn an_event_that_came_garbled_is_asked_for_again() {
    let server = server().await;
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    for n in 0..3 {
        server.put_garbled(PODS, pod("shop", &format!("late-{n}"), "client", &format!("10.0.2.{n}")));
        follower.caught_up(&server).await;
    }
    let lists =
        follower.history.iter().filter(|(k, s)| *k == ResourceKind::Pod && *s == WatchState::Listing).count();
    assert_eq!(lists, 1, "resumed, not listed anew");
}

#[tokio::test]
async fn a_malformed_object_is_reported_and_stops_nothing() {
    let server = server().await;
    let mut bad = network_policy("shop", "bad", "web", "client");
    bad["spec"]["ingress"] = json!("all of them");
    server.put(POLICIES, bad);
    let mut bad_pod = pod("shop", "odd", "web", "10.0.0.8");
    bad_pod["metadata"]["labels"] = json!(["web"]);
    server.put(PODS, bad_pod);
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    let key = PolicyKey::network_policy("shop", "bad");
    let policy = &follower.cluster().policies[&key];
    assert_eq!(
        (&policy.ingress, &policy.egress),
        (&Some(vec![]), &Some(vec![])),
        "closed in both directions"
    );
    assert!(policy.subject.matches("shop", None, &Labels::from_iter([("app", "web")])));
    assert!(!policy.subject.matches("shop", None, &Labels::from_iter([("app", "db")])));
    assert!(!follower.findings["NetworkPolicy shop/bad"].is_empty());
    let said = follower.findings["Pod shop/odd"][0].to_string();
    assert!(said.contains("ignored until it can be decoded"), "{said}");

    // Known objects that become malformed: a pod stays what it was; a policy closes.
    let mut worse = pod("shop", "web-1", "other", "10.0.0.1");
    worse["spec"]["containers"] = json!("none");
    server.put(PODS, worse);
    server.put(PODS, pod("shop", "behind", "web", "10.0.0.77"));
    follower
        .until("the pod behind it", |f| f.cluster().pods.contains_key(&ObjectKey::new("shop", "behind")))
        .await;
    let kept = &follower.cluster().pods[&ObjectKey::new("shop", "web-1")];
    assert_eq!(kept.labels.get("app"), Some("web"));
    follower.until("the finding", |f| f.findings.contains_key("Pod shop/web-1")).await;
    assert!(follower.findings["Pod shop/web-1"][0].to_string().contains("last known state stays in effect"));

    // Good versions and deletion heal.
    server.put(POLICIES, network_policy("shop", "bad", "web", "client"));
    server.put(PODS, pod("shop", "web-1", "other", "10.0.0.1"));
    server.delete(PODS, "shop", "odd");
    follower.caught_up(&server).await;
    follower.until("healed findings", |f| f.findings.values().all(Vec::is_empty)).await;
}

#[tokio::test]
async fn a_missing_right_keeps_the_snapshot_back_and_says_which() {
    for (collection, kind) in [
        (POLICIES, ResourceKind::NetworkPolicy),
        (NODES, ResourceKind::Node),
        (CNP, ResourceKind::ClusterNetworkPolicy),
    ] {
        let server = server().await;
        server.serve(CNP);
        server.put(CNP, cluster_policy("guard", 5));
        server.forbid(collection);
        let mut follower = Follower::of(&server);
        follower.until("the failure", |f| f.why(kind).is_some()).await;
        follower.for_a_while(Duration::from_millis(300)).await;
        let why = follower.why(kind).unwrap();
        assert!(why.contains("403") && why.contains("ClusterRole") && why.contains(kind.plural()), "{why}");
        assert!(follower.cluster.is_none(), "{kind}");
        server.allow(collection);
        follower.snapshot().await;
        follower.caught_up(&server).await;
        let failures =
            |(k, s): &&(ResourceKind, WatchState)| *k == kind && matches!(s, WatchState::Failing { .. });
        assert_eq!(follower.history.iter().filter(failures).count(), 1, "told once");
    }
}

#[tokio::test]
async fn a_busy_server_is_left_alone_as_long_as_it_asks() {
    let server = server().await;
    let began = std::time::Instant::now();
    let busy = || Fault::Answer(429, vec![("retry-after", "1".to_owned())], "Too many requests".to_owned());
    server.fault("/api/v1/pods", busy());
    let mut follower = Follower::of(&server);
    follower.until("the failure", |f| f.why(ResourceKind::Pod).is_some_and(|w| w.contains("429"))).await;
    follower.snapshot().await;
    assert!(began.elapsed() >= Duration::from_secs(1), "a pause that was asked for is kept");
}

#[tokio::test]
async fn slow_answers_are_waited_for_and_dead_ones_are_not() {
    let server = server().await;
    server.fault("/api/v1/nodes", Fault::Slow(Duration::from_millis(400)));
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    let failing = |(_, s): &(ResourceKind, WatchState)| matches!(s, WatchState::Failing { .. });
    assert!(!follower.history.iter().any(failing), "{:?}", follower.history);

    let options = WatchOptions { response_timeout: Duration::from_millis(300), ..Follower::options() };
    server.fault("/api/v1/nodes", Fault::Slow(Duration::from_secs(3600)));
    let mut follower = Follower::with(&server, options);
    follower
        .until("the failure", |f| f.why(ResourceKind::Node).is_some_and(|w| w.contains("no response")))
        .await;
    follower.snapshot().await;
}

#[tokio::test]
async fn a_list_that_breaks_in_the_middle_removes_nothing() {
    let server = server().await;
    server.streaming(Streaming::Refused(422));
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    server.fault("/api/v1/pods?&limit", Fault::Cut(700));
    server
        .fault("/api/v1/pods?&limit", Fault::Answer(500, vec![], "etcdserver: request timed out".to_owned()));
    server.compact();
    server.put(PODS, pod("shop", "late", "client", "10.0.0.9"));
    server.cut(false);
    follower.caught_up(&server).await;
    let removed = |c: &palisade_policy::Change| matches!(c, palisade_policy::Change::RemovePod(_));
    assert!(!follower.changes.iter().any(removed), "{:?}", follower.changes);
}

#[tokio::test]
async fn a_server_that_is_gone_and_comes_back_is_found_again() {
    let mut server = server().await;
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    server.stop();
    follower.until("the failure", |f| f.why(ResourceKind::Pod).is_some_and(|w| w.contains("refused"))).await;
    assert_eq!(follower.cluster().pods.len(), 3, "what was known stays");
    server.delete(PODS, "shop", "web-1");
    server.restart().await;
    follower.caught_up(&server).await;
    follower.until("recovery", |f| f.states[&ResourceKind::Pod] == WatchState::Watching).await;
}

#[tokio::test]
async fn definitions_come_change_their_version_and_go() {
    let server = server().await;
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    server.put(CNP, cluster_policy("guard", 5));
    server.serve(CNP);
    follower.caught_up(&server).await;
    assert_eq!(follower.cluster().policies.len(), 2);
    // Nothing is wrong, and a status can be written.
    follower.until("its findings", |f| f.findings.get("ClusterNetworkPolicy guard") == Some(&vec![])).await;

    // Another version of the same objects.
    let mut beta = cluster_policy("guard", 5);
    beta["apiVersion"] = json!("policy.networking.k8s.io/v1beta1");
    server.put(CNP_BETA, beta);
    server.serve(CNP_BETA);
    follower
        .until("the better version", |_| server.requests("/v1beta1/clusternetworkpolicies?&watch") > 0)
        .await;
    server.unserve(CNP);
    server.delete(CNP_BETA, "", "guard");
    follower.until("the deletion", |f| f.cluster().policies.len() == 1).await;
    server.put(CNP_BETA, {
        let mut p = cluster_policy("other", 6);
        p["apiVersion"] = json!("policy.networking.k8s.io/v1beta1");
        p
    });
    follower.caught_up(&server).await;

    server.unserve(CNP_BETA);
    follower
        .until("absence", |f| f.states[&ResourceKind::ClusterNetworkPolicy] == WatchState::NotServed)
        .await;
    assert_eq!(follower.cluster().policies.len(), 1, "they are gone with their definition");
}

/// Who gives changes to the kernel in order, and then reports what is wrong with objects, never reports one as programmed whose
/// change is still to come.
#[tokio::test]
async fn the_change_of_an_object_is_told_before_what_is_wrong_with_it() {
    let server = server().await;
    server.serve(CNP);
    let mut events =
        palisade_api::watch(server.client(), WatchOptions { queue_capacity: 1, ..WatchOptions::default() });
    let (mut known, mut told) = (0, 0);
    let priority = |policy: &palisade_policy::Policy| i64::from(policy.priority);
    let mut written = 0;
    while told < 12 {
        // Several while nobody listens, so that they gather.
        for _ in 0..if written < 12 && written <= told { 3 } else { 0 } {
            written += 1;
            server.put(CNP, cluster_policy("guard", written as i32));
        }
        let event =
            tokio::time::timeout(Duration::from_secs(20), events.recv()).await.expect("an event").unwrap();
        match event {
            Event::Snapshot(cluster) => {
                known =
                    cluster.policies.values().filter(|p| &*p.key.name == "guard").map(|p| priority(p)).sum();
                told = known;
            }
            Event::Changes { changes, .. } => {
                for change in changes {
                    if let palisade_policy::Change::SetPolicy(policy) = change {
                        known = priority(&policy);
                    }
                }
            }
            // What is told before the snapshot is about what will be in it.
            Event::Findings { object, .. }
                if known > 0 && object.kind == ResourceKind::ClusterNetworkPolicy =>
            {
                assert!(object.generation <= known, "generation {} before its change", object.generation);
                told = object.generation;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_definition_that_is_missed_for_a_moment_takes_nothing_away() {
    let server = server().await;
    server.serve(CNP);
    server.put(CNP, cluster_policy("guard", 5));
    let options = WatchOptions { absent_after: Duration::from_secs(2), ..Follower::options() };
    let mut follower = Follower::with(&server, options);
    follower.snapshot().await;
    server.deny(CNP);
    follower.until("the 404", |f| f.why(ResourceKind::ClusterNetworkPolicy).is_some()).await;
    follower.for_a_while(Duration::from_millis(300)).await;
    server.serve(CNP);
    follower
        .until("recovery", |f| f.states[&ResourceKind::ClusterNetworkPolicy] == WatchState::Watching)
        .await;
    server.put(CNP, cluster_policy("second", 7));
    follower.caught_up(&server).await;
    let removed = |c: &palisade_policy::Change| matches!(c, palisade_policy::Change::RemovePolicy(_));
    assert!(!follower.changes.iter().any(removed));
}

#[tokio::test]
async fn a_server_that_is_not_ready_is_not_believed_that_definitions_are_absent() {
    let server = server().await;
    server.put(CNP, cluster_policy("guard", 5));
    server.ready(Some(false));
    let mut follower = Follower::of(&server);
    follower.until("the pods", |f| f.states.get(&ResourceKind::Pod) == Some(&WatchState::Watching)).await;
    follower.for_a_while(Duration::from_millis(900)).await;
    assert!(follower.cluster.is_none(), "without its admin policies the cluster would be open");
    server.serve(CNP);
    server.ready(Some(true));
    follower.snapshot().await;
    assert_eq!(follower.cluster().policies.len(), 2);
}

#[tokio::test]
async fn where_readiness_may_not_be_asked_absence_takes_its_time() {
    let server = server().await;
    server.ready(None);
    let began = std::time::Instant::now();
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    assert!(began.elapsed() >= Follower::options().absent_after);
}

#[tokio::test]
async fn a_token_that_is_replaced_is_read_anew() {
    let server = server().await;
    server.token("first");
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "first").unwrap();
    let kubeconfig = directory.path().join("config");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "k", "cluster": {"server": server.url()}}],
        "users": [{"name": "u", "user": {"tokenFile": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    });
    std::fs::write(&kubeconfig, text.to_string()).unwrap();
    let access = palisade_api::Access { kubeconfig: Some(kubeconfig), ..palisade_api::Access::default() };
    let client = access.connect_without_retries().await.unwrap();
    let options = WatchOptions { access: Some(access), ..Follower::options() };
    let mut follower = Follower::with_client(client, options);
    follower.snapshot().await;

    server.token("second");
    server.cut(false);
    follower
        .until("the failure", |f| {
            f.why(ResourceKind::Pod).is_some_and(|w| w.contains("401") && w.contains("token"))
        })
        .await;
    std::fs::write(&token, "second").unwrap();
    server.put(PODS, pod("shop", "late", "client", "10.0.0.9"));
    follower.caught_up(&server).await;
}

#[tokio::test]
async fn a_receiver_that_is_dropped_ends_the_watches() {
    let server = server().await;
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    drop(follower);
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.cut(false);
    let before = server.requests("");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.requests(""), before, "nobody asks any longer");
}

#[tokio::test]
async fn a_receiver_that_is_slow_loses_nothing() {
    let server = server().await;
    let options = WatchOptions { queue_capacity: 1, ..Follower::options() };
    let mut follower = Follower::with(&server, options);
    follower.snapshot().await;
    for n in 0..500 {
        server.put(
            PODS,
            pod("shop", &format!("p-{}", n % 50), &format!("app-{n}"), &format!("10.9.0.{}", n % 50)),
        );
        if n % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    follower.caught_up(&server).await;
}

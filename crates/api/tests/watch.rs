//! The watches, against an API server in this process that lists, watches and fails as a real one does. In virtual time.

use std::time::Duration;

use palisade_api::{Event, ResourceKind, WatchOptions, WatchState};
use palisade_policy::{Labels, ObjectKey, PolicyKey};
use serde_json::json;

mod support;

use support::{
    follower::Follower,
    objects::{CNP, NAMESPACES, NODES, cluster_policy, namespace, server},
    server::{Fault, PODS, POLICIES, Streaming, network_policy, pod},
};

#[tokio::test(start_paused = true)]
async fn lists_first_and_then_every_change() {
    let server = server();
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

#[tokio::test(start_paused = true)]
async fn changes_that_no_decision_needs_are_not_sent() {
    let server = server();
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

#[tokio::test(start_paused = true)]
async fn old_servers_are_read_in_pages() {
    for streaming in [Streaming::Refused(422), Streaming::Refused(400), Streaming::Refused(403)] {
        let server = server();
        server.streaming(streaming);
        for n in 0..1203 {
            let address = format!("10.1.{}.{}", n / 250, n % 250);
            server.put(PODS, pod("shop", &format!("many-{n}"), "many", &address));
        }
        let mut follower = Follower::of(&server);
        if streaming == Streaming::Refused(403) {
            // A missing right is not mistaken for an old server.
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

#[tokio::test(start_paused = true)]
async fn a_server_that_ignores_streamed_lists_is_read_in_pages() {
    let server = server();
    server.streaming(Streaming::Ignored);
    let options = WatchOptions { response_timeout: Duration::from_millis(300), ..Follower::options() };
    let mut follower = Follower::with(&server, options);
    follower.snapshot().await;
    follower.caught_up(&server).await;
    assert!(server.requests("/api/v1/pods?&limit=500") > 0);
}

#[tokio::test(start_paused = true)]
async fn a_list_whose_pages_expire_is_read_without_pages() {
    let server = server();
    server.streaming(Streaming::Refused(422));
    for n in 0..700 {
        server.put(PODS, pod("shop", &format!("many-{n}"), "many", &format!("10.1.{}.{}", n / 250, n % 250)));
    }
    let gone = json!({"kind": "Status", "code": 410, "message": "too old"}).to_string();
    server.fault("continue=", Fault::Respond(410, vec![], gone));
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    follower.caught_up(&server).await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_or_breaks_is_resumed_from_its_position() {
    let server = server();
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    for (n, mid_line) in [false, true, true, false, true].into_iter().enumerate() {
        server.interrupt(mid_line);
        server.put(PODS, pod("shop", &format!("late-{n}"), "client", &format!("10.0.1.{n}")));
        server.delete(PODS, "shop", &format!("late-{}", n.wrapping_sub(1)));
        follower.caught_up(&server).await;
    }
    let lists = server.requests("sendInitialEvents");
    assert_eq!(lists, 4, "each kind was listed once");
}

#[tokio::test(start_paused = true)]
async fn bookmarks_move_the_position_so_that_a_compaction_costs_no_list() {
    let server = server();
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    let before = server.version();
    for collection in [PODS, NODES, NAMESPACES, POLICIES] {
        server.bookmark(collection);
    }
    follower.for_a_while(Duration::from_millis(100)).await;
    server.interrupt(false);
    follower.for_a_while(Duration::from_millis(200)).await;
    let resumed = server.requests("/api/v1/pods?&watch=true");
    assert!(resumed >= 2);
    assert_eq!(
        server.requests(&format!("resourceVersion={before}")),
        0,
        "resumed from the bookmark, not from the list"
    );
}

#[tokio::test(start_paused = true)]
async fn after_410_the_list_is_read_again_and_missing_objects_are_removed() {
    for http_status in [false, true] {
        let server = server();
        let mut follower = Follower::of(&server);
        follower.snapshot().await;
        // Everything happens while no watch is open.
        if http_status {
            let gone = json!({"kind": "Status", "code": 410, "message": "too old"}).to_string();
            for kind in ["pods?&watch", "networkpolicies?&watch"] {
                server.fault(kind, Fault::Respond(410, vec![], gone.clone()));
            }
        }
        server.delete(PODS, "shop", "web-2");
        server.put(PODS, pod("shop", "web-3", "changed", "10.0.0.3"));
        server.delete(POLICIES, "shop", "web");
        server.compact();
        server.interrupt(true);
        let unchanged = ObjectKey::new("shop", "web-1");
        follower.caught_up(&server).await;
        let touched = |c: &palisade_policy::Change| match c {
            palisade_policy::Change::SetPod(p) => p.key == unchanged,
            palisade_policy::Change::RemovePod(k) => *k == unchanged,
            _ => false,
        };
        assert!(!follower.changes.iter().any(touched), "an unchanged pod is neither removed nor sent again");
        let failing = |(_, s): &(ResourceKind, WatchState)| matches!(s, WatchState::Failing { .. });
        assert!(!follower.history.iter().any(failing), "{:?}", follower.history);
    }
}

#[tokio::test(start_paused = true)]
async fn malformed_lines_lose_no_event() {
    let server = server();
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    for (n, line) in
        ["<html>502</html>", "{\"type\":\"ADDED\"", "\u{0}\u{1}", "{\"type\":\"NEWS\",\"object\":{}}", "[]"]
            .into_iter()
            .enumerate()
    {
        server.inject(PODS, line);
        server.put(PODS, pod("shop", &format!("behind-{n}"), "client", &format!("10.0.2.{n}")));
        // The line stays in the log, so only a new list leads past it.
        follower.caught_up(&server).await;
        follower.until("recovery", |f| f.states[&ResourceKind::Pod] == WatchState::Watching).await;
    }
    let reported = |(k, s): &(ResourceKind, WatchState)| {
        *k == ResourceKind::Pod
            && matches!(s, WatchState::Failing { why } if why.contains("cannot decode") && why.contains("stay in effect"))
    };
    assert!(follower.history.iter().any(reported), "{:?}", follower.history);
}

#[tokio::test(start_paused = true)]
async fn a_corrupted_event_is_requested_again() {
    let server = server();
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    for n in 0..3 {
        server.put_corrupted(PODS, pod("shop", &format!("late-{n}"), "client", &format!("10.0.2.{n}")));
        follower.caught_up(&server).await;
    }
    let lists =
        follower.history.iter().filter(|(k, s)| *k == ResourceKind::Pod && *s == WatchState::Listing).count();
    assert_eq!(lists, 1, "resumed, not listed again");
}

#[tokio::test(start_paused = true)]
async fn a_malformed_object_is_reported_and_does_not_stop_the_watch() {
    let server = server();
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
    let reported = follower.findings["Pod shop/odd"][0].to_string();
    assert!(reported.contains("ignored until it can be decoded"), "{reported}");

    // A known pod that becomes malformed keeps its last state; a policy isolates its pods.
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

    // Valid versions and deletions resolve the findings.
    server.put(POLICIES, network_policy("shop", "bad", "web", "client"));
    server.put(PODS, pod("shop", "web-1", "other", "10.0.0.1"));
    server.delete(PODS, "shop", "odd");
    follower.caught_up(&server).await;
    follower.until("no findings", |f| f.findings.values().all(Vec::is_empty)).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_delays_the_snapshot_and_is_named() {
    for (collection, kind) in [
        (POLICIES, ResourceKind::NetworkPolicy),
        (NODES, ResourceKind::Node),
        (CNP, ResourceKind::ClusterNetworkPolicy),
    ] {
        let server = server();
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
        assert_eq!(follower.history.iter().filter(failures).count(), 1, "sent once");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_respected() {
    let server = server();
    let start = tokio::time::Instant::now();
    let busy = || Fault::Respond(429, vec![("retry-after", "1".to_owned())], "Too many requests".to_owned());
    server.fault("/api/v1/pods", busy());
    let mut follower = Follower::of(&server);
    follower.until("the failure", |f| f.why(ResourceKind::Pod).is_some_and(|w| w.contains("429"))).await;
    follower.snapshot().await;
    assert!(start.elapsed() >= Duration::from_secs(1), "the requested pause is respected");
}

#[tokio::test(start_paused = true)]
async fn slow_responses_are_awaited_up_to_the_timeout() {
    let server = server();
    server.fault("/api/v1/nodes", Fault::Delay(Duration::from_millis(400)));
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    let failing = |(_, s): &(ResourceKind, WatchState)| matches!(s, WatchState::Failing { .. });
    assert!(!follower.history.iter().any(failing), "{:?}", follower.history);

    let options = WatchOptions { response_timeout: Duration::from_millis(300), ..Follower::options() };
    server.fault("/api/v1/nodes", Fault::Delay(Duration::from_secs(3600)));
    let mut follower = Follower::with(&server, options);
    follower
        .until("the failure", |f| f.why(ResourceKind::Node).is_some_and(|w| w.contains("no response")))
        .await;
    follower.snapshot().await;
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_list_removes_nothing() {
    let server = server();
    server.streaming(Streaming::Refused(422));
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    server.fault("/api/v1/pods?&limit", Fault::Truncate(700));
    server.fault(
        "/api/v1/pods?&limit",
        Fault::Respond(500, vec![], "etcdserver: request timed out".to_owned()),
    );
    server.compact();
    server.put(PODS, pod("shop", "late", "client", "10.0.0.9"));
    server.interrupt(false);
    follower.caught_up(&server).await;
    let removed = |c: &palisade_policy::Change| matches!(c, palisade_policy::Change::RemovePod(_));
    assert!(!follower.changes.iter().any(removed), "{:?}", follower.changes);
}

#[tokio::test(start_paused = true)]
async fn the_watches_recover_when_the_server_is_back() {
    let server = server();
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    server.stop();
    follower.until("the failure", |f| f.why(ResourceKind::Pod).is_some_and(|w| w.contains("refused"))).await;
    assert_eq!(follower.cluster().pods.len(), 3, "the last known state stays");
    server.delete(PODS, "shop", "web-1");
    server.restart();
    follower.caught_up(&server).await;
    follower.until("recovery", |f| f.states[&ResourceKind::Pod] == WatchState::Watching).await;
}

/// So an agent that programs changes in order and then reports findings never reports a policy as programmed before its change.
#[tokio::test(start_paused = true)]
async fn the_change_of_an_object_is_sent_before_its_findings() {
    let server = server();
    server.serve(CNP);
    let mut events =
        palisade_api::watch(server.client(), WatchOptions { queue_capacity: 1, ..WatchOptions::default() });
    let (mut known, mut reported) = (0, 0);
    let priority = |policy: &palisade_policy::Policy| i64::from(policy.priority);
    let mut written = 0;
    while reported < 12 {
        // Several at once, so that they are batched.
        for _ in 0..if written < 12 && written <= reported { 3 } else { 0 } {
            written += 1;
            server.put(CNP, cluster_policy("guard", written as i32));
        }
        let event =
            tokio::time::timeout(Duration::from_secs(20), events.recv()).await.expect("an event").unwrap();
        match event {
            Event::Snapshot(cluster) => {
                known =
                    cluster.policies.values().filter(|p| &*p.key.name == "guard").map(|p| priority(p)).sum();
                reported = known;
            }
            Event::Changes { changes, .. } => {
                for change in changes {
                    if let palisade_policy::Change::SetPolicy(policy) = change {
                        known = priority(&policy);
                    }
                }
            }
            // Findings before the snapshot are about objects in the snapshot.
            Event::Findings { object, .. }
                if known > 0 && object.kind == ResourceKind::ClusterNetworkPolicy =>
            {
                assert!(object.generation <= known, "generation {} before its change", object.generation);
                reported = object.generation;
            }
            _ => {}
        }
    }
}

/// In real time and over TCP, since the client is made from a kubeconfig.
#[tokio::test]
async fn a_rotated_token_is_re_read() {
    let server = server();
    server.token("first");
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "first").unwrap();
    let kubeconfig = directory.path().join("config");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "k", "cluster": {"server": server.listen().await}}],
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
    server.interrupt(false);
    follower
        .until("the failure", |f| {
            f.why(ResourceKind::Pod).is_some_and(|w| w.contains("401") && w.contains("token"))
        })
        .await;
    std::fs::write(&token, "second").unwrap();
    server.put(PODS, pod("shop", "late", "client", "10.0.0.9"));
    follower.caught_up(&server).await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_receiver_ends_the_watches() {
    let server = server();
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    drop(follower);
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.interrupt(false);
    let before = server.requests("");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.requests(""), before, "no further requests");
}

#[tokio::test(start_paused = true)]
async fn a_slow_receiver_loses_nothing() {
    let server = server();
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

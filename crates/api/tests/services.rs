//! The watch of Services, which only some agents need.

use std::time::Duration;

use palisade_api::{ResourceKind, WatchOptions, WatchState};
use palisade_policy::{Change, ObjectKey};
use serde_json::json;

mod support;

use support::{
    follower::Follower,
    objects::{NAMESPACES, SERVICES, namespace, server, service},
    server::{Fault, Server},
};

fn with_services() -> Server {
    let server = server();
    server.serve(SERVICES);
    server.put(SERVICES, service("kube-system", "kube-dns", "10.96.0.10", "192.0.2.10"));
    server
}

fn options() -> WatchOptions {
    WatchOptions { services: true, ..Follower::options() }
}

#[tokio::test(start_paused = true)]
async fn services_are_watched_if_they_are_needed() {
    let server = with_services();
    let mut follower = Follower::with(&server, options());
    follower.snapshot().await;
    assert_eq!(follower.cluster().services.len(), 1, "the snapshot has them");
    follower.caught_up(&server).await;
    let mut granted = service("shop", "web", "10.96.0.11", "192.0.2.11");
    server.put(SERVICES, granted.clone());
    follower.caught_up(&server).await;
    granted["spec"]["type"] = json!("LoadBalancer");
    granted["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.53"}]}});
    server.put(SERVICES, granted.clone());
    follower.caught_up(&server).await;
    let key = ObjectKey::new("shop", "web");
    assert_eq!(
        follower.cluster().services[&key].access.load_balancer,
        ["192.0.2.53".parse::<std::net::IpAddr>().unwrap()]
    );
    server.delete(SERVICES, "shop", "web");
    follower.caught_up(&server).await;
    assert_eq!(follower.findings.len(), 0, "{:?}", follower.findings);
}

#[tokio::test(start_paused = true)]
async fn what_addresses_and_ports_dont_depend_on_is_no_change() {
    let server = with_services();
    let mut follower = Follower::with(&server, options());
    follower.caught_up(&server).await;
    let mut same = service("kube-system", "kube-dns", "10.96.0.10", "192.0.2.10");
    same["metadata"]["annotations"] = json!({"seen": "now"});
    server.put(SERVICES, same.clone());
    // A field of a later version.
    let mut later = service("shop", "later", "10.96.0.12", "192.0.2.12");
    later["spec"]["fieldOfTheFuture"] = json!({"a": 1});
    server.put(SERVICES, later);
    follower.until("the marker", |f| !f.changes.is_empty()).await;
    let is_later =
        |c: &Change| matches!(c, Change::SetService(s) if *s.key.name == *"later" && s.addresses.len() == 1);
    assert!(matches!(&follower.changes[..], [one] if is_later(one)), "{:?}", follower.changes);
    assert_eq!(follower.findings.len(), 0, "{:?}", follower.findings);
}

#[tokio::test(start_paused = true)]
async fn others_are_not_asked_for_services() {
    let server = with_services();
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    follower.for_a_while(Duration::from_secs(5)).await;
    assert!(follower.cluster().services.is_empty());
    assert_eq!(server.requests("/services"), 0);
}

/// Policies don't depend on Services, so a role without them keeps no policy from being enforced.
#[tokio::test(start_paused = true)]
async fn policies_dont_wait_for_services_that_cant_be_read() {
    let server = with_services();
    server.forbid(SERVICES);
    let mut follower = Follower::with(&server, options());
    follower.snapshot().await;
    assert!(follower.cluster().services.is_empty() && follower.cluster().pods.len() == 3);
    let why = follower.why(ResourceKind::Service).expect("the watch fails");
    assert!(why.contains("403 Forbidden") && why.contains("list and watch on services"), "{why}");
    server.put(NAMESPACES, namespace("more"));
    follower.until("a change", |f| f.cluster().namespaces.contains_key("more")).await;
    server.allow(SERVICES);
    follower.caught_up(&server).await;
    let is_watched = |f: &Follower| f.states.get(&ResourceKind::Service) == Some(&WatchState::Watching);
    follower.until("the end of the list", is_watched).await;
}

/// As at a boot, before the node translates the address of the API server: all watches fail, and each tries again at its own time.
#[tokio::test(start_paused = true)]
async fn the_snapshot_has_services_after_a_failure_that_all_kinds_share() {
    for late in [Duration::ZERO, Duration::from_secs(3)] {
        let server = with_services();
        server.stop();
        let mut follower = Follower::with(&server, options());
        let fails =
            |f: &Follower| f.why(ResourceKind::Service).is_some() && f.why(ResourceKind::Pod).is_some();
        follower.until("failures", fails).await;
        server.fault("/services", Fault::Delay(late));
        server.restart();
        follower.snapshot().await;
        assert_eq!(follower.cluster().services.len(), 1, "{late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn services_that_take_too_long_follow_as_changes() {
    let server = with_services();
    // Longer than a response may take, each time.
    for _ in 0..20 {
        server.fault("/services", Fault::Delay(Duration::from_secs(8)));
    }
    let mut follower = Follower::with(&server, options());
    follower.snapshot().await;
    assert!(follower.cluster().services.is_empty() && follower.cluster().pods.len() == 3);
    follower.caught_up(&server).await;
}

/// A slow server is not one that refuses.
#[tokio::test(start_paused = true)]
async fn the_snapshot_waits_for_a_list_of_services_that_takes_a_while() {
    let server = with_services();
    server.fault("/services", Fault::Delay(Duration::from_secs(3)));
    let mut follower = Follower::with(&server, options());
    follower.snapshot().await;
    assert_eq!(follower.cluster().services.len(), 1);
}

/// Its addresses are kept, since another Service could have been made from it.
#[tokio::test(start_paused = true)]
async fn a_service_that_cant_be_decoded_stays_as_it_was() {
    let server = with_services();
    let mut follower = Follower::with(&server, options());
    follower.caught_up(&server).await;
    let mut broken = service("kube-system", "kube-dns", "10.96.0.10", "192.0.2.10");
    broken["metadata"]["labels"] = json!(7);
    server.put(SERVICES, broken);
    follower.until("the finding", |f| f.findings.values().any(|found| !found.is_empty())).await;
    assert_eq!(follower.cluster().services.len(), 1);
    server.put(SERVICES, service("kube-system", "kube-dns", "10.96.0.10", "192.0.2.10"));
    follower.until("no finding", |f| f.findings.values().all(Vec::is_empty)).await;
    server.delete(SERVICES, "kube-system", "kube-dns");
    follower.until("the deletion", |f| f.cluster().services.is_empty()).await;
}

//! Discovery of cluster-wide policy kinds: definitions that are created, changed and deleted under a running watch. In virtual time.

use std::time::Duration;

use palisade_api::{ResourceKind, WatchOptions, WatchState};
use serde_json::json;

mod support;

use support::{
    follower::Follower,
    objects::{CNP, CNP_BETA, cluster_policy, server},
};

#[tokio::test(start_paused = true)]
async fn definitions_are_created_change_their_version_and_are_deleted() {
    let server = server();
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    server.put(CNP, cluster_policy("guard", 5));
    server.serve(CNP);
    follower.caught_up(&server).await;
    assert_eq!(follower.cluster().policies.len(), 2);
    // Empty findings, so that a status can be written.
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
    assert_eq!(follower.cluster().policies.len(), 1, "its policies are removed with the definition");
    let failing = |(kind, state): &(ResourceKind, WatchState)| {
        *kind == ResourceKind::ClusterNetworkPolicy && matches!(state, WatchState::Failing { .. })
    };
    assert!(
        !follower.history.iter().any(failing),
        "a deleted definition is no failure: {:?}",
        follower.history
    );

    // It comes back.
    let mut again = cluster_policy("again", 7);
    again["apiVersion"] = json!("policy.networking.k8s.io/v1beta1");
    server.put(CNP_BETA, again);
    server.serve(CNP_BETA);
    follower.caught_up(&server).await;
    assert_eq!(follower.cluster().policies.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_is_absent_for_a_moment_removes_nothing() {
    let server = server();
    server.serve(CNP);
    server.put(CNP, cluster_policy("guard", 5));
    let options = WatchOptions { absent_after: Duration::from_secs(2), ..Follower::options() };
    let mut follower = Follower::with(&server, options);
    follower.snapshot().await;
    server.hide(CNP);
    follower
        .until("the 404", |f| f.states[&ResourceKind::ClusterNetworkPolicy] == WatchState::Disappeared)
        .await;
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

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_ready_does_not_confirm_absence() {
    let server = server();
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

#[tokio::test(start_paused = true)]
async fn without_the_right_to_query_readiness_absence_is_confirmed_by_time() {
    let server = server();
    server.ready(None);
    let start = tokio::time::Instant::now();
    let mut follower = Follower::of(&server);
    follower.snapshot().await;
    assert!(start.elapsed() >= Follower::options().absent_after);
}

//! Random changes and failures: whenever the watches have caught up, the events add up to the cluster of the server.

use std::time::Duration;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

mod support;

use support::{
    follower::Follower,
    server::{Fault, PODS, POLICIES, Server, Streaming, network_policy, pod},
};

const NAMESPACES: &str = "/api/v1/namespaces";
const CNP: &str = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";

/// A change or a failure. Names are few, so that they collide.
#[derive(Clone, Copy, Debug)]
enum Step {
    PutPod(u8, u8),
    DeletePod(u8),
    PutPolicy(u8, u8),
    DeletePolicy(u8),
    PutNamespace(u8, u8),
    DeleteNamespace(u8),
    PutClusterPolicy(u8, u8),
    DeleteClusterPolicy(u8),
    Interrupt(bool),
    Compact,
    MalformedLine,
    Bookmark,
    Unavailable(u8),
    ExpiredResponse,
    Pages(bool),
    Wait,
    /// Waits until the watches have caught up, and compares.
    CatchUp,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..12u8, 0..6u8).prop_map(|(n, v)| Step::PutPod(n, v)),
        4 => (0..12u8).prop_map(Step::DeletePod),
        3 => (0..5u8, 0..4u8).prop_map(|(n, v)| Step::PutPolicy(n, v)),
        2 => (0..5u8).prop_map(Step::DeletePolicy),
        1 => (0..3u8, 0..3u8).prop_map(|(n, v)| Step::PutNamespace(n, v)),
        1 => (0..3u8).prop_map(Step::DeleteNamespace),
        2 => (0..3u8, 0..4u8).prop_map(|(n, v)| Step::PutClusterPolicy(n, v)),
        1 => (0..3u8).prop_map(Step::DeleteClusterPolicy),
        3 => any::<bool>().prop_map(Step::Interrupt),
        2 => Just(Step::Compact),
        1 => Just(Step::MalformedLine),
        1 => Just(Step::Bookmark),
        1 => (0..3u8).prop_map(Step::Unavailable),
        1 => Just(Step::ExpiredResponse),
        1 => any::<bool>().prop_map(Step::Pages),
        4 => Just(Step::Wait),
        2 => Just(Step::CatchUp),
    ]
}

fn cluster_policy(n: u8, version: u8) -> Value {
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
           "metadata": {"name": format!("cluster-{n}")},
           "spec": {"tier": if version.is_multiple_of(2) { "Admin" } else { "Baseline" }, "priority": version,
                    "subject": {"namespaces": {}}, "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}]}})
}

async fn apply(server: &Server, follower: &mut Follower, step: Step) {
    match step {
        Step::PutPod(n, v) => {
            let (namespace, app) = (format!("ns-{}", n % 3), format!("app-{v}"));
            server.put(PODS, pod(&namespace, &format!("pod-{n}"), &app, &format!("10.0.{v}.{n}")));
        }
        Step::DeletePod(n) => {
            server.delete(PODS, &format!("ns-{}", n % 3), &format!("pod-{n}"));
        }
        Step::PutPolicy(n, v) => {
            server.put(POLICIES, network_policy("ns-0", &format!("p-{n}"), &format!("app-{v}"), "client"));
        }
        Step::DeletePolicy(n) => {
            server.delete(POLICIES, "ns-0", &format!("p-{n}"));
        }
        Step::PutNamespace(n, v) => server.put(
            NAMESPACES,
            json!({"apiVersion": "v1", "kind": "Namespace",
                   "metadata": {"name": format!("ns-{n}"), "labels": {"v": v.to_string()}}}),
        ),
        Step::DeleteNamespace(n) => {
            server.delete(NAMESPACES, "", &format!("ns-{n}"));
        }
        Step::PutClusterPolicy(n, v) => server.put(CNP, cluster_policy(n, v)),
        Step::DeleteClusterPolicy(n) => {
            server.delete(CNP, "", &format!("cluster-{n}"));
        }
        Step::Interrupt(mid_line) => server.interrupt(mid_line),
        Step::Compact => server.compact(),
        Step::MalformedLine => server.inject(PODS, "not{json"),
        Step::Bookmark => server.bookmark(POLICIES),
        Step::Unavailable(which) => {
            let path = ["/api/v1/pods", "/networkpolicies", "/clusternetworkpolicies"][usize::from(which)];
            server.fault(path, Fault::Respond(503, vec![], "not now".to_owned()));
        }
        Step::ExpiredResponse => {
            let gone = json!({"kind": "Status", "code": 410, "message": "too old"}).to_string();
            server.fault("pods?&watch", Fault::Respond(410, vec![], gone));
        }
        Step::Pages(pages) => {
            server.streaming(if pages { Streaming::Refused(422) } else { Streaming::Served });
        }
        Step::Wait => tokio::time::sleep(Duration::from_millis(5)).await,
        Step::CatchUp => follower.caught_up(server).await,
    }
}

#[test]
fn no_sequence_of_failures_loses_or_invents_anything() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let config = Config { cases: 48, failure_persistence: None, max_shrink_iters: 60, ..Config::default() };
    TestRunner::new(config)
        .run(&proptest::collection::vec(step(), 1..80), |steps| {
            runtime.block_on(async {
                let server = Server::start();
                server.serve(CNP);
                let mut follower = Follower::of(&server);
                follower.snapshot().await;
                for step in steps {
                    apply(&server, &mut follower, step).await;
                }
                follower.caught_up(&server).await;
            });
            Ok(())
        })
        .unwrap();
}

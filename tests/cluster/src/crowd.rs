//! Many pods and policies that exist only as objects, on a node that is not part of the lab: the data that an agent holds in a large
//! cluster.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt};
use http::Request;
use kube::Client;
use serde_json::{Value, json};

use crate::kubelet::register;

/// The node of these pods.
pub const NODE: &str = "far";
const PER_NAMESPACE: usize = 100;
/// Concurrent requests: as many as the API server handles by default without long queues.
const CONCURRENT: usize = 32;

/// Creates pods with addresses, and policies that select them, in namespaces of a hundred pods each.
///
/// # Errors
/// If the API server refuses an object.
pub async fn create(client: &Client, pods: usize, policies: usize) -> Result<()> {
    register(client, NODE, &[IpAddr::V4(Ipv4Addr::new(192, 168, 201, 10))]).await?;
    let namespaces = pods.div_ceil(PER_NAMESPACE).max(1);
    each(0..namespaces, async |i| {
        let labels = json!({"team": format!("team-{}", i % 10)});
        let body = json!({"metadata": {"name": format!("crowd-{i}"), "labels": labels}});
        post(client, "/api/v1/namespaces", body).await
    })
    .await?;
    each(0..pods, async |i| {
        let namespace = i / PER_NAMESPACE;
        let path = format!("/api/v1/namespaces/crowd-{namespace}/pods");
        let name = format!("pod-{i}");
        let labels = json!({"app": format!("app-{}", i % 20), "pod": name});
        let body = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"nodeName": NODE, "containers": [{"name": "main", "image": "example.com/none"}]},
        });
        post(client, &path, body).await?;
        let address =
            Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 32, 0, 0)) + 1 + u32::try_from(i)?).to_string();
        let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
        let request = Request::patch(format!("{path}/{name}/status"))
            .header("Content-Type", "application/merge-patch+json")
            .body(serde_json::to_vec(&status)?)?;
        client.request::<Value>(request).await?;
        Ok(())
    })
    .await?;
    each(0..policies, async |i| {
        let path = format!("/apis/networking.k8s.io/v1/namespaces/crowd-{}/networkpolicies", i % namespaces);
        let peers = json!([
            {"podSelector": {"matchLabels": {"app": format!("app-{}", (i + 1) % 20)}}},
            {"namespaceSelector": {"matchLabels": {"team": format!("team-{}", i % 10)}}},
        ]);
        let body = json!({
            "metadata": {"name": format!("policy-{i}")},
            "spec": {
                "podSelector": {"matchLabels": {"app": format!("app-{}", i % 20)}},
                "ingress": [{"from": peers, "ports": [{"port": 8000 + i % 50}]}],
            },
        });
        post(client, &path, body).await
    })
    .await
}

/// Creates policies that select the same pods, at a path, as fast as the server accepts them.
///
/// # Errors
/// If the API server refuses one.
pub async fn burst(client: &Client, path: &str, count: usize) -> Result<()> {
    each(0..count, async |i| {
        let peers = json!([{"podSelector": {"matchLabels": {"app": format!("app-{}", i % 20)}}}]);
        let body = json!({
            "metadata": {"name": format!("burst-{i}")},
            "spec": {
                "podSelector": {"matchLabels": {"app": "to"}},
                "ingress": [{"from": peers, "ports": [{"port": 1 + i}]}],
            },
        });
        post(client, path, body).await
    })
    .await
}

async fn each(range: std::ops::Range<usize>, f: impl AsyncFn(usize) -> Result<()>) -> Result<()> {
    futures::stream::iter(range.map(|i| f(i))).buffer_unordered(CONCURRENT).try_collect().await
}

/// Creates an object.
///
/// # Errors
/// If the API server refuses it.
pub async fn post(client: &Client, path: &str, body: Value) -> Result<()> {
    let request =
        Request::post(path).header("Content-Type", "application/json").body(serde_json::to_vec(&body)?)?;
    client.request::<Value>(request).await?;
    Ok(())
}

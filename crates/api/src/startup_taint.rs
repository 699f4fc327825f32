//! The startup taint of a node, which keeps pods off it until its agent is ready.
//!
//! Nodes get it when they register, from the kubelet or from their pool. The agent removes it once and never adds it: pods of a node
//! that has been ready are protected by the rules in its kernel.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use palisade_policy::Name;
use serde_json::json;

use crate::{access::Access, backoff::Backoff, client::ClientPool, error::ApiError, error::ApiErrorKind};

/// The key of the taint. Its value and effect don't matter.
pub const STARTUP_TAINT: &str = "palisade.dev/agent-not-ready";

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Removes the startup taint from a node. Ends when the node doesn't have it. A failure is logged and retried with growing pauses.
///
/// It needs the rights `get` and `patch` on `nodes`. Rules of RBAC can't limit them to the agent's own node.
pub async fn remove_startup_taint(client: Client, access: Option<Access>, node: Name) {
    let clients = ClientPool::new(client, access);
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let client = clients.current().await;
        let attempt = tokio::time::timeout(TIMEOUT, remove(&client.client, &node));
        let error = match attempt.await.unwrap_or_else(|_| Err(ApiErrorKind::TimedOut(TIMEOUT).into())) {
            Ok(true) => {
                tracing::info!(%node, taint = STARTUP_TAINT, "removed the startup taint");
                return;
            }
            Ok(false) => {
                tracing::debug!(%node, taint = STARTUP_TAINT, "node has no startup taint");
                return;
            }
            Err(error) => error,
        };
        log_failure(&node, &error);
        clients.renew(&client).await;
        tokio::time::sleep(backoff.next(error.retry_after())).await;
    }
}

fn log_failure(node: &Name, error: &ApiError) {
    let err: &dyn std::error::Error = error;
    tracing::warn!(%node, taint = STARTUP_TAINT, err, "cannot remove the startup taint, retrying");
}

/// Returns whether the node had it.
async fn remove(client: &Client, name: &Name) -> Result<bool, ApiError> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = nodes.get(name).await?;
    let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
    let kept: Vec<_> = taints.iter().filter(|taint| taint.key != STARTUP_TAINT).collect();
    if kept.len() == taints.len() {
        return Ok(false);
    }
    // The patch replaces the list. With the version, the server refuses it if anything has changed since.
    let patch = json!({
        "metadata": {"resourceVersion": node.metadata.resource_version},
        "spec": {"taints": kept},
    });
    nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(true)
}

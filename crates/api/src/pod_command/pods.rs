//! The pods that a command runs in.

use std::{collections::HashSet, sync::Arc};

use kube::Client;
use serde::Deserialize;

use super::PodCommand;
use crate::{ApiError, error::ApiErrorKind, request::encode, transport::get_json};

/// Pods of one page. An agent's pod takes some KiB, and a page may have 4 MiB.
const PAGE: usize = 100;
/// The most pods: Kubernetes is built for up to 5,000 nodes.
const MAX_PODS: usize = 10_000;

/// A pod that a command runs in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExecPod {
    /// Its identity, which a pod of the same name does not share.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// The node that it runs on.
    pub node: String,
    /// Why its container does not run, if it doesn't.
    pub not_running: Option<String>,
}

#[derive(Deserialize)]
struct List<T> {
    #[serde(default)]
    metadata: ListMetadata,
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Default, Deserialize)]
struct ListMetadata {
    #[serde(default, rename = "continue")]
    continue_token: Option<String>,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    uid: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: String,
    container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Deserialize)]
struct ContainerStatus {
    name: String,
    #[serde(default)]
    state: ContainerState,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContainerState {
    running: Option<serde::de::IgnoredAny>,
    waiting: Option<Stopped>,
    terminated: Option<Stopped>,
}

#[derive(Deserialize)]
struct Stopped {
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct DaemonSet {
    #[serde(default)]
    status: DaemonSetStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DaemonSetStatus {
    desired_number_scheduled: usize,
}

/// Lists the pods of the requested nodes, by node.
///
/// # Errors
/// If a request fails, or there are too many.
pub(super) async fn list(client: &Client, command: &PodCommand) -> Result<Vec<Arc<ExecPod>>, ApiError> {
    let path = format!("/api/v1/namespaces/{}/pods", encode(&command.namespace));
    let wanted: HashSet<&str> = command.nodes.iter().map(String::as_str).collect();
    let mut pods: Vec<Arc<ExecPod>> = Vec::new();
    for pod in all::<Pod>(client, &path, &command.selector.pods, command).await? {
        // A pod without a node does not run anywhere yet.
        let Some(node) = pod.spec.node_name.filter(|node| !node.is_empty()) else { continue };
        if wanted.is_empty() || wanted.contains(&*node) {
            let not_running = not_running(&pod.status, &command.container);
            let Metadata { name, uid } = pod.metadata;
            pods.push(Arc::new(ExecPod { uid, name, node, not_running }));
        }
    }
    pods.sort_by(|a, b| (&a.node, &a.name).cmp(&(&b.node, &b.name)));
    Ok(pods)
}

/// Returns on how many nodes the DaemonSets want a pod.
///
/// # Errors
/// If a request fails.
pub(super) async fn desired(client: &Client, command: &PodCommand) -> Result<usize, ApiError> {
    let path = format!("/apis/apps/v1/namespaces/{}/daemonsets", encode(&command.namespace));
    let sets = all::<DaemonSet>(client, &path, &command.selector.daemon_sets, command).await?;
    Ok(sets.iter().map(|set| set.status.desired_number_scheduled).sum())
}

async fn all<T: for<'a> Deserialize<'a>>(
    client: &Client,
    path: &str,
    selector: &str,
    command: &PodCommand,
) -> Result<Vec<T>, ApiError> {
    let mut items = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let mut url = format!("{path}?limit={PAGE}&labelSelector={}", encode(selector));
        if let Some(token) = &token {
            url += &format!("&continue={}", encode(token));
        }
        let list: List<T> = get_json(client, &url, command.timeout).await?;
        items.extend(list.items);
        if items.len() > MAX_PODS {
            return Err(ApiErrorKind::TooLarge(MAX_PODS * (4 << 10)).into());
        }
        token = list.metadata.continue_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(items);
        }
    }
}

/// Why a container does not run, if it doesn't.
fn not_running(status: &Status, container: &str) -> Option<String> {
    let container = status.container_statuses.iter().flatten().find(|of| of.name == container);
    let stopped = |state: &ContainerState| {
        let reason = state.waiting.as_ref().or(state.terminated.as_ref()).map(|s| s.reason.clone());
        reason.filter(|reason| !reason.is_empty())
    };
    match container {
        Some(container) if container.state.running.is_some() => None,
        Some(container) => Some(stopped(&container.state).unwrap_or_else(|| status.phase.clone())),
        None => Some(status.phase.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(status: serde_json::Value) -> Option<String> {
        not_running(&serde_json::from_value(status).unwrap(), "agent")
    }

    #[test]
    fn a_container_that_does_not_run_has_the_reason_of_its_kubelet() {
        let of = |state| serde_json::json!({"phase": "Running", "containerStatuses": [{"name": "agent", "state": state}]});
        assert_eq!(state(of(serde_json::json!({"running": {"startedAt": "x"}}))), None);
        let waiting = serde_json::json!({"waiting": {"reason": "CrashLoopBackOff"}});
        assert_eq!(state(of(waiting)).as_deref(), Some("CrashLoopBackOff"));
        let terminated = serde_json::json!({"terminated": {"reason": "OOMKilled", "exitCode": 137}});
        assert_eq!(state(of(terminated)).as_deref(), Some("OOMKilled"));
        assert_eq!(state(of(serde_json::json!({}))).as_deref(), Some("Running"));
        assert_eq!(state(serde_json::json!({"phase": "Pending"})).as_deref(), Some("Pending"));
    }
}

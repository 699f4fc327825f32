//! Pods that answer with their names, and their addresses.

use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{Cluster, cluster::SLOW};

/// The image of the test server.
pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.66.1";
/// Where it answers, over TCP and UDP.
pub const PORT: u16 = 8080;

/// A pod on a node, with labels as `name=value`, that answers on [`PORT`].
#[must_use]
pub fn server(namespace: &str, name: &str, node: &str, labels: &[(&str, &str)]) -> Value {
    let labels: serde_json::Map<String, Value> =
        labels.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "server",
                "image": AGNHOST,
                "args": ["netexec", format!("--http-port={PORT}"), format!("--udp-port={PORT}")],
                "ports": [{"name": "http", "containerPort": PORT}],
                "readinessProbe": {
                    "httpGet": {"path": "/hostname", "port": PORT},
                    "periodSeconds": 1,
                    "timeoutSeconds": 10,
                    "failureThreshold": 30,
                },
            }],
        },
    })
}

/// Applies objects as one list.
///
/// # Errors
/// If one is refused.
pub fn apply(cluster: &Cluster, objects: &[Value]) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    cluster.apply(&list.to_string())
}

/// A namespace.
#[must_use]
pub fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// Waits until all pods of a namespace are ready. A pod that is ready has answered its kubelet.
///
/// # Errors
/// If it takes too long, with the events of the namespace.
pub fn wait_ready(cluster: &Cluster, namespace: &str) -> Result<()> {
    let limit = format!("--timeout={}s", SLOW.as_secs());
    let wait = cluster.kubectl(&["-n", namespace, "wait", "--for=condition=Ready", "pod", "--all", &limit]);
    wait.map(|_| ()).map_err(|e| {
        let events = cluster.kubectl(&["-n", namespace, "get", "events"]).unwrap_or_default();
        e.context(format!("pods of {namespace} are not ready\n{events}"))
    })
}

/// The addresses of a pod, by family.
///
/// # Errors
/// If it has not two.
pub fn addresses(cluster: &Cluster, namespace: &str, name: &str) -> Result<[IpAddr; 2]> {
    let pod = cluster.get(&["pod", "-n", namespace, name])?;
    let parse = |index: usize| -> Result<IpAddr> {
        let text = pod["status"]["podIPs"][index]["ip"].as_str();
        Ok(text.with_context(|| format!("pod {namespace}/{name} has no address {index}"))?.parse()?)
    };
    Ok([parse(0)?, parse(1)?])
}

//! Objects, and a server that has some.

use serde_json::json;

use super::server::{PODS, POLICIES, Server, network_policy, pod};

pub(crate) const NAMESPACES: &str = "/api/v1/namespaces";
pub(crate) const NODES: &str = "/api/v1/nodes";
pub(crate) const SERVICES: &str = "/api/v1/services";
pub(crate) const CNP: &str = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";
pub(crate) const CNP_BETA: &str = "/apis/policy.networking.k8s.io/v1beta1/clusternetworkpolicies";

pub(crate) fn namespace(name: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": name}}})
}

pub(crate) fn service(namespace: &str, name: &str, cluster_ip: &str, external_ip: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name, "labels": {"a": "b"}},
           "spec": {"clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "externalIPs": [external_ip], "type": "NodePort",
                    "selector": {"app": name}, "ports": [{"port": 53, "protocol": "UDP", "nodePort": 30053}]},
           "status": {"loadBalancer": {}}})
}

pub(crate) fn cluster_policy(name: &str, priority: i32) -> serde_json::Value {
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": name},
           "spec": {"tier": "Admin", "priority": priority, "subject": {"namespaces": {}},
                    "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}]}})
}

/// A server with a namespace, a node, three pods and a policy.
pub(crate) fn server() -> Server {
    let server = Server::start();
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

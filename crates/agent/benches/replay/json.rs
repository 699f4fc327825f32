//! Objects as JSON like that of an API server, including fields that the agent doesn't use.

use palisade_policy::{
    Change, NamespaceMatch, Node, Peer, Phase, Pod, PodMatch, Policy, PortMatch, Protocol, Rule, Selector,
    Test,
};
use serde_json::{Map, Value, json};

/// Returns one line of a watch.
pub(crate) fn line(event: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": event, "object": object}))
}

/// Returns the bookmark at the end of a streamed list.
pub(crate) fn end_of_list(kind: &str, version: &str) -> String {
    let annotations = json!({"k8s.io/initial-events-end": "true"});
    let metadata = json!({"resourceVersion": "1", "annotations": annotations});
    line("BOOKMARK", &json!({"kind": kind, "apiVersion": version, "metadata": metadata}))
}

/// Returns the watch event for a change of a pod.
pub(crate) fn pod_line(change: &Change) -> Option<String> {
    match change {
        Change::SetPod(new) => Some(line("MODIFIED", &pod(new))),
        Change::RemovePod(key) => {
            let metadata = json!({"name": &*key.name, "namespace": &*key.namespace, "resourceVersion": "2"});
            Some(line("DELETED", &json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata})))
        }
        _ => None,
    }
}

fn pairs<'a>(labels: impl Iterator<Item = (&'a palisade_policy::Name, &'a palisade_policy::Name)>) -> Value {
    labels.map(|(k, v)| (k.to_string(), Value::from(&**v))).collect::<Map<_, _>>().into()
}

/// Returns a pod of about 3 kB: two containers with probes, resources and mounts, and a status with conditions.
pub(crate) fn pod(pod: &Pod) -> Value {
    let name = &*pod.key.name;
    let phase = if pod.phase == Phase::Pending { "Pending" } else { "Running" };
    let ips: Vec<Value> = pod.addresses.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
    let ports: Vec<Value> = pod
        .ports
        .iter()
        .map(|p| json!({"name": p.name.as_deref(), "containerPort": p.port, "protocol": "TCP"}))
        .collect();
    let probe = json!({"httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3});
    let mounts = json!([
        {"name": "config", "mountPath": "/etc/app", "readOnly": true},
        {"name": "kube-api-access-x7k2p", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}
    ]);
    let container = |name: &str, ports: &[Value]| {
        json!({
            "name": name, "image": format!("registry.example.com/team/{name}:v1.4.2"), "ports": ports,
            "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
                    {"name": "LOG_LEVEL", "value": "info"}, {"name": "GOMAXPROCS", "value": "2"}],
            "resources": {"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
            "livenessProbe": probe, "readinessProbe": probe, "volumeMounts": mounts,
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent"
        })
    };
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let conditions = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
        .map(condition);
    let digest = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {
            "name": name, "namespace": &*pod.key.namespace, "uid": "5d1c1c8e-2f57-4b7a-9a3e-3d6f0c2b1a00", "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": pairs(pod.labels.iter()),
            "annotations": {"checksum/config": digest, "prometheus.io/scrape": "true", "prometheus.io/port": "9090"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name.rsplit_once('-').map_or(name, |(set, _)| set),
                "uid": "0a9c7e5e-91c5-4b1c-8a6f-5b8a1c3d2e4f", "controller": true, "blockOwnerDeletion": true}]
        },
        "spec": {
            "containers": [container("app", &ports), container("proxy", &[])],
            "volumes": [{"name": "config", "configMap": {"name": "app-config", "defaultMode": 420}}],
            "nodeName": pod.node.as_deref(), "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "serviceAccountName": "default",
            "schedulerName": "default-scheduler", "priority": 0, "enableServiceLinks": true, "terminationGracePeriodSeconds": 30,
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]
        },
        "status": {
            "phase": phase, "podIP": pod.addresses.first().map(ToString::to_string), "podIPs": ips, "hostIP": "172.16.0.1", "qosClass": "Burstable",
            "startTime": "2026-01-01T00:00:00Z",
            "conditions": conditions,
            "containerStatuses": [{"name": "app", "ready": true, "restartCount": 0, "started": true, "image": "registry.example.com/team/app:v1.4.2",
                "imageID": format!("registry.example.com/team/app@{digest}"), "containerID": format!("containerd://{}", &digest[7..]),
                "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}}, "lastState": {}}]
        }
    })
}

pub(crate) fn node(node: &Node) -> Value {
    let addresses: Vec<Value> =
        node.addresses.iter().map(|a| json!({"type": "InternalIP", "address": a.to_string()})).collect();
    json!({
        "kind": "Node", "apiVersion": "v1", "metadata": {"name": &*node.name, "resourceVersion": "1", "labels": pairs(node.labels.iter())},
        "status": {"addresses": addresses, "capacity": {"cpu": "64", "memory": "256Gi", "pods": "110"}}
    })
}

pub(crate) fn namespace(namespace: &palisade_policy::Namespace) -> Value {
    let metadata =
        json!({"name": &*namespace.name, "resourceVersion": "1", "labels": pairs(namespace.labels.iter())});
    json!({"kind": "Namespace", "apiVersion": "v1", "metadata": metadata, "status": {"phase": "Active"}})
}

/// Returns a policy. Those of the generator have `matchLabels` only, and every rule has peers and ports.
pub(crate) fn policy(policy: &Policy) -> Value {
    let mut types = Vec::new();
    let mut spec = json!({"podSelector": selector(&policy.subject.pods)});
    for (rules, kind, field, peers) in
        [(&policy.ingress, "Ingress", "ingress", "from"), (&policy.egress, "Egress", "egress", "to")]
    {
        let Some(rules) = rules else { continue };
        types.push(kind);
        spec[field] = rules.iter().map(|rule| self::rule(rule, peers)).collect();
    }
    spec["policyTypes"] = types.into();
    let key = &policy.key;
    let metadata =
        json!({"name": &*key.name, "namespace": &*key.namespace, "resourceVersion": "1", "generation": 1});
    json!({"kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1", "metadata": metadata, "spec": spec})
}

fn rule(rule: &Rule, peers: &str) -> Value {
    let of = |choice: &PodMatch| match &choice.namespaces {
        NamespaceMatch::Named(_) => json!({"podSelector": selector(&choice.pods)}),
        NamespaceMatch::Selected(labels) => {
            json!({"namespaceSelector": selector(labels), "podSelector": selector(&choice.pods)})
        }
    };
    let from: Vec<Value> = rule
        .peers
        .iter()
        .flatten()
        .map(|entry| match &entry.peer {
            Peer::Pods(choice) => of(choice),
            Peer::Block(block) => json!({"ipBlock": {"cidr": block.cidr.to_string(),
                "except": block.except.iter().map(ToString::to_string).collect::<Vec<_>>()}}),
            Peer::Nodes(_) | Peer::DomainName(_) => unreachable!("NetworkPolicies have no such peer"),
        })
        .collect();
    let word = |protocol: Protocol| protocol.to_string().to_uppercase();
    let ports: Vec<Value> = rule
        .ports
        .iter()
        .flatten()
        .map(|entry| match &entry.port {
            PortMatch::Numbers { protocol, first, .. } => json!({"protocol": word(*protocol), "port": first}),
            PortMatch::Named { name, .. } => json!({"protocol": "TCP", "port": &**name}),
        })
        .collect();
    json!({peers: from, "ports": ports})
}

fn selector(selector: &Selector) -> Value {
    let labels = selector.requirements().iter().map(|requirement| match &requirement.test {
        Test::In(values) => (requirement.key.to_string(), values.iter().map(|v| Value::from(&**v)).collect()),
        _ => unreachable!("the generator writes matchLabels"),
    });
    let one = |values: Vec<Value>| values.into_iter().next().unwrap_or_default();
    json!({"matchLabels": labels.map(|(key, values)| (key, one(values))).collect::<Map<_, _>>()})
}

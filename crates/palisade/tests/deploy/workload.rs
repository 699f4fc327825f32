//! The agent's pods.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{file, kind, name, objects, only, rendered, words};

/// The kinds that the chart generates with any values. A new kind has to be added here deliberately.
const KINDS: [&str; 11] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "DaemonSet",
    "Namespace",
    "PodMonitor",
    "PrometheusRule",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "ServiceAccount",
];

fn pods() -> Vec<(String, Value)> {
    let pod = |(path, objects): (String, Vec<Value>)| {
        let set = only(&objects, "DaemonSet");
        (path, set["spec"]["template"]["spec"].clone())
    };
    rendered().into_iter().map(pod).collect()
}

fn containers(pod: &Value) -> Vec<&Value> {
    ["initContainers", "containers"].iter().flat_map(|list| pod[*list].as_array()).flatten().collect()
}

fn is_palisade(container: &Value) -> bool {
    container["command"] == json!(["/usr/local/bin/palisade"])
}

#[test]
fn only_known_kinds_in_one_namespace() {
    for (path, objects) in rendered() {
        for object in &objects {
            assert!(KINDS.contains(&kind(object)), "{path}: {}", kind(object));
            let cluster_wide = ["Namespace", "ClusterRole", "ClusterRoleBinding"].contains(&kind(object));
            let namespace = object["metadata"]["namespace"].as_str();
            assert_eq!(namespace, (!cluster_wide).then_some("palisade-system"), "{path}: {}", name(object));
        }
        let keys: BTreeSet<_> = objects.iter().map(|o| (kind(o), name(o))).collect();
        assert_eq!(keys.len(), objects.len(), "{path} has an object twice");
    }
}

#[test]
fn no_container_has_more_rights_than_it_uses() {
    for (path, pod) in pods() {
        let all = containers(&pod);
        assert!(all.iter().any(|c| is_palisade(c)), "{path} runs no agent");
        for container in all {
            let at = format!("{path}, {}", container["name"]);
            let security = &container["securityContext"];
            let capabilities = &security["capabilities"];
            assert_eq!(capabilities["drop"], json!(["ALL"]), "{at}");
            assert_eq!(security["allowPrivilegeEscalation"], json!(false), "{at}");
            assert_eq!(security["readOnlyRootFilesystem"], json!(true), "{at}");
            for absent in ["privileged", "procMount", "appArmorProfile", "seccompProfile"] {
                assert_eq!(security[absent], Value::Null, "{at}: {absent}");
            }
            if is_palisade(container) {
                assert_eq!(capabilities["add"], json!(["NET_ADMIN"]), "{at}");
                // Added capabilities take effect for uid 0 only.
                assert_eq!((&security["runAsUser"], &security["runAsGroup"]), (&json!(0), &json!(0)), "{at}");
            } else {
                assert_eq!(capabilities["add"], Value::Null, "{at}");
                assert_eq!(security["runAsNonRoot"], json!(true), "{at}");
                assert_eq!(container["volumeMounts"], Value::Null, "{at}");
            }
        }
    }
}

/// The directory of the node's state, in the chart's cases and in the documentation.
const STATE: &str = "/var/lib/palisade";

/// Whether the agents of a rendered file keep the state of their node.
fn keeps_state(path: &str) -> bool {
    // The pods that remove everything remove the state too, if there is one.
    ["palisade-from-boot.yaml", "remove.yaml"].iter().any(|file| path.ends_with(file))
}

/// The service that closes a node's pods before the container runtime starts uses the directory and the program of the manifests.
#[test]
fn the_service_that_runs_before_the_runtime_uses_the_agents_state() {
    let unit = file("deploy/systemd/palisade-restore.service");
    let line = |key: &str| {
        let found = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {key}"))
    };
    let words: Vec<&str> = line("ExecStart").split(' ').collect();
    assert_eq!(words[1..4], ["agent", "--restore", &format!("--state-dir={STATE}")]);
    assert_eq!(line("ConditionPathExists"), format!("{STATE}/node-state"));
    for runtime in ["kubelet.service", "containerd.service", "crio.service", "docker.service"] {
        assert!(line("Before").split(' ').any(|unit| unit == runtime), "{runtime}");
    }
    // These remove all rules when they start.
    for firewall in ["nftables.service", "firewalld.service"] {
        assert!(line("After").split(' ').any(|unit| unit == firewall), "{firewall}");
    }
    let (_, objects) = rendered().into_iter().find(|(path, _)| path.ends_with("from-boot.yaml")).unwrap();
    let settings = only(&objects, "ConfigMap")["data"]["agent.yaml"].as_str().unwrap().to_owned();
    assert!(settings.contains(&format!("state-dir: {STATE}\n")), "{settings}");
}

#[test]
fn the_host_is_shared_as_little_as_possible() {
    for (path, pod) in pods() {
        assert_eq!(pod["hostNetwork"], json!(true), "{path}: the rules belong to the node's network");
        for absent in ["hostPID", "hostIPC", "shareProcessNamespace", "serviceAccount", "runtimeClassName"] {
            assert_eq!(pod[absent], Value::Null, "{path}: {absent}");
        }
        assert_eq!(pod["securityContext"], json!({"seccompProfile": {"type": "RuntimeDefault"}}), "{path}");
        let mut volumes = vec![
            json!({"name": "config", "configMap": {"name": "palisade-agent"}}),
            json!({"name": "run", "hostPath": {"path": "/run/palisade", "type": "DirectoryOrCreate"}}),
        ];
        let mut mounts = vec![
            json!({"name": "config", "mountPath": "/etc/palisade", "readOnly": true}),
            json!({"name": "run", "mountPath": "/run/palisade"}),
        ];
        if keeps_state(&path) {
            volumes.push(json!({"name": "state", "hostPath": {"path": STATE, "type": "DirectoryOrCreate"}}));
            mounts.push(json!({"name": "state", "mountPath": STATE}));
        }
        // The directories of CNI, where the plugin is installed or removed.
        if path.contains("confined") || path.contains("remove") {
            for (name, folder) in [("cni-conf", "/etc/cni/net.d"), ("cni-bin", "/opt/cni/bin")] {
                volumes
                    .push(json!({"name": name, "hostPath": {"path": folder, "type": "DirectoryOrCreate"}}));
                mounts.push(json!({"name": name, "mountPath": folder}));
            }
        }
        // The container runtime's socket, unless it is not to be used.
        let is_used = !path.contains("confined") && !path.contains("remove");
        if is_used {
            let folder = if path.contains("monitored") { "/run/crio/nri" } else { "/var/run/nri" };
            volumes.push(json!({"name": "nri", "hostPath": {"path": folder, "type": "DirectoryOrCreate"}}));
            mounts.push(json!({"name": "nri", "mountPath": folder, "readOnly": true}));
        }
        // The pods' network namespaces, for a runtime that doesn't report addresses.
        if path.contains("monitored") {
            let (name, folder) = ("netns", "/run/netns");
            volumes.push(json!({"name": name, "hostPath": {"path": folder, "type": "DirectoryOrCreate"}}));
            let propagation = "HostToContainer";
            mounts.push(
                json!({"name": name, "mountPath": folder, "readOnly": true, "mountPropagation": propagation}),
            );
        }
        assert_eq!(pod["volumes"], json!(volumes), "{path}");
        let agent = containers(&pod).into_iter().find(|c| is_palisade(c)).unwrap();
        assert_eq!(agent["volumeMounts"], json!(mounts), "{path}");
    }
}

#[test]
fn every_node_is_protected_and_stays_so_during_an_upgrade() {
    for (path, objects) in rendered() {
        let spec = &only(&objects, "DaemonSet")["spec"];
        let strategy = &spec["updateStrategy"];
        assert_eq!(strategy["type"], "RollingUpdate", "{path}");
        // Two agents on one node would need the same port and the same lock.
        assert_eq!(strategy["rollingUpdate"]["maxSurge"], Value::Null, "{path}");
        let pod = &spec["template"]["spec"];
        assert_eq!(pod["priorityClassName"], "system-node-critical", "{path}");
        let wanted = spec["selector"]["matchLabels"].as_object().unwrap();
        assert!(wanted.iter().all(|(k, v)| spec["template"]["metadata"]["labels"][k] == *v), "{path}");
        for container in containers(pod) {
            assert!(container["resources"]["requests"]["memory"].is_string(), "{path}");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{path}");
        }
    }
    let manifests = objects("deploy/manifests/palisade.yaml");
    let spec = &only(&manifests, "DaemonSet")["spec"];
    assert_eq!(spec["updateStrategy"]["rollingUpdate"], json!({"maxUnavailable": 1}));
    assert_eq!(spec["template"]["spec"]["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(spec["template"]["spec"]["nodeSelector"], json!({"kubernetes.io/os": "linux"}));
}

#[test]
fn the_agent_knows_its_node_and_is_asked_how_it_fares() {
    for (path, pod) in pods().into_iter().filter(|(path, _)| !path.ends_with("remove.yaml")) {
        let agent = containers(&pod)[0];
        assert_eq!(words(&agent["args"]), ["agent"], "{path}");
        let node = json!({"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}});
        assert!(agent["env"].as_array().unwrap().contains(&node), "{path}");
        let port = &agent["ports"][0];
        assert_eq!(port["name"], "metrics");
        for (probe, page) in
            [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]
        {
            let get = &agent[probe]["httpGet"];
            // At an address where no pod can block the kubelet's probes.
            let expected = json!({"path": page, "port": "health", "host": "127.0.0.1"});
            assert_eq!(*get, expected, "{path}: {probe}");
        }
        assert_eq!(agent["ports"][1]["name"], "health", "{path}");
        assert_eq!(pod["automountServiceAccountToken"], json!(true), "{path}");
    }
}

#[test]
fn removing_takes_no_token_and_no_agent() {
    let objects = objects("deploy/manifests/remove.yaml");
    let pod = &only(&objects, "DaemonSet")["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], json!(false));
    assert_eq!(words(&pod["initContainers"][0]["args"]), ["agent", "--remove"]);
    let running = pod["containers"].as_array().unwrap();
    assert!(running.iter().all(|c| !is_palisade(c)), "an agent would put the rules back");
}

/// The agents' settings are a file, which has what the values set.
#[test]
fn settings_follow_from_the_values() {
    let settings = |path: &str| -> Value {
        let objects = objects(path);
        let map = objects.iter().find(|o| kind(o) == "ConfigMap" && name(o) == "palisade-agent").unwrap();
        serde_saphyr::from_str(map["data"]["agent.yaml"].as_str().unwrap()).unwrap()
    };
    let defaults = json!({
        "source": "api", "listen": "0.0.0.0:9643", "health-listen": "127.0.0.1:9644",
        "socket": "/run/palisade/agent.sock", "log-format": "json",
        "log-level": "info", "mode": "enforce", "deny": "drop", "domain-names": "off", "dns-fail": "closed", "egress-to-own-node": "enforce", "source-check": "enforce", "log-drops": true,
        "report-status": true, "startup-taint": "keep", "nri": "auto", "nri-socket": "/var/run/nri/nri.sock",
        "pod-start": "closed", "pod-start-timeout": 1750, "flows": "drops", "flow-buffer": 4194304,
    });
    assert_eq!(settings("deploy/manifests/palisade.yaml"), defaults);
    let monitored = settings("deploy/tests/monitored/expected.yaml");
    assert_eq!((&monitored["listen"], &monitored["log-drops"]), (&json!("[::]:19643"), &json!(false)));
    assert_eq!((&monitored["mode"], &monitored["deny"]), (&json!("audit"), &json!("drop")));
    assert_eq!(
        (
            &monitored["domain-names"],
            &monitored["dns-resolver"],
            &monitored["dns-allow"],
            &monitored["dns-fail"]
        ),
        (&json!("on"), &json!(["10.96.0.10", "[fd00::a]:5353"]), &json!(["10.20.0.0/16"]), &json!("open"))
    );
    assert_eq!(monitored["flows"], json!("new"));
    assert_eq!((&monitored["nri"], &monitored["pod-start"]), (&json!("on"), &json!("open")));
    let confined = settings("deploy/tests/confined/expected.yaml");
    assert_eq!((&confined["listen"], &confined["report-status"]), (&json!("127.0.0.1:9643"), &json!(false)));
    assert_eq!(confined["allow-source"], json!(["192.0.2.10/32", "2001:db8::/64"]));
}

/// The kubelet probes the address at which the agents' settings serve health.
#[test]
fn health_is_served_on_loopback_at_the_port_that_is_probed() {
    for (path, objects) in rendered() {
        let map = objects.iter().find(|o| kind(o) == "ConfigMap" && name(o) == "palisade-agent");
        let Some(map) = map else { continue };
        let settings: Value = serde_saphyr::from_str(map["data"]["agent.yaml"].as_str().unwrap()).unwrap();
        let set = only(&objects, "DaemonSet");
        let pod = &set["spec"]["template"]["spec"];
        let port = &containers(pod)[0]["ports"][1]["containerPort"];
        assert_eq!(settings["health-listen"], format!("127.0.0.1:{port}"), "{path}");
    }
}

/// Every value has its line in values.yaml with a comment above it, and its description in the schema.
#[test]
fn every_value_is_documented() {
    fn described(schema: &Value, path: &str) {
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{key}");
            // The content of these is defined and documented by the Kubernetes API.
            let theirs =
                [".resources.", ".affinity.", ".seLinuxOptions."].iter().any(|api| path.starts_with(api));
            assert!(theirs || property["description"].is_string(), "no description of {path}");
            described(property, &path);
        }
        let closed = schema["properties"].is_null() || schema["additionalProperties"] == json!(false);
        assert!(closed, "{path} takes any key");
    }
    let schema: Value = serde_json::from_str(&file("deploy/helm/palisade/values.schema.json")).unwrap();
    described(&schema, "");

    // A line of values.yaml that follows a comment, or a part of a value that the API explains.
    let values = file("deploy/helm/palisade/values.yaml");
    let lines: Vec<&str> = values.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let is_key = |line: &str| !line.starts_with(['#', '-']) && line.contains(':');
    let bare = lines.windows(2).filter(|pair| is_key(pair[1]) && !pair[0].starts_with('#'));
    let bare: BTreeSet<&str> = bare.map(|pair| pair[1].split(':').next().unwrap()).collect();
    let expected =
        ["cpu", "grafana_dashboard", "kubernetes.io/os", "limits", "memory", "podAnnotations", "requests"];
    assert_eq!(bare, expected.into());
}

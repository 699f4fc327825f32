//! Writes clusters as manifests, in the shapes that files have.
//!
//! It shares no code with the program, so that a mistake in rendering is not made twice.

use std::{fs, path::Path};

use palisade_policy::{
    Action, Cluster, Labels, NAMESPACE_NAME_LABEL, NamespaceMatch, Node, Peer, Phase, Pod, PodMatch, Policy,
    PortMatch, Rule, Selector, Test, Tier,
};
use palisade_testkit::Rng;
use serde_json::{Map, Value, json};

/// Writes the namespaces, nodes, pods and policies of a cluster into a directory.
///
/// Namespaces that are only used are declared. Rules that no API can express are left out.
pub(crate) fn write(cluster: &Cluster, rng: &mut Rng, dir: &Path) {
    let objects = objects(cluster);
    let yaml = |value: &Value| serde_saphyr::to_string(value).unwrap();
    let stream = |texts: Vec<String>| texts.join("\n---\n");
    match rng.usize(..5) {
        0 => fs::write(dir.join("all.yaml"), stream(objects.iter().map(yaml).collect())).unwrap(),
        1 => {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
            fs::write(dir.join("list.yaml"), yaml(&list)).unwrap();
        }
        2 => {
            let lines = objects.iter().map(ToString::to_string).collect();
            fs::write(dir.join("lines.yaml"), stream(lines)).unwrap();
        }
        form => {
            for (i, object) in objects.iter().enumerate() {
                let (extension, text) = match form {
                    3 => ("json", serde_json::to_string_pretty(object).unwrap()),
                    _ => ("yaml", yaml(object)),
                };
                fs::write(dir.join(format!("{i:02}.{extension}")), text).unwrap();
            }
        }
    }
}

fn objects(cluster: &Cluster) -> Vec<Value> {
    let pods = || cluster.pods.values().filter(|p| !p.addresses.is_empty());
    let mut names: Vec<&str> = cluster.policies.keys().map(|k| &*k.namespace).collect();
    names.extend(pods().map(|p| &*p.key.namespace));
    names.retain(|name| !name.is_empty() && !cluster.namespaces.contains_key(*name));
    names.sort_unstable();
    names.dedup();
    let only_used = names.into_iter().map(|name| (name, Labels::default()));
    let declared = cluster.namespaces.values().map(|n| (&*n.name, n.labels.clone()));
    let mut out: Vec<Value> = declared
        .chain(only_used)
        .map(|(name, labels)| {
            json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name, "labels": self::labels(&labels)}})
        })
        .collect();
    out.extend(cluster.nodes.values().map(node));
    out.extend(pods().map(pod));
    out.extend(cluster.policies.values().map(|p| policy(p)));
    out
}

fn labels(labels: &Labels) -> Map<String, Value> {
    labels.iter().map(|(k, v)| (k.to_string(), Value::from(&**v))).collect()
}

fn node(node: &Node) -> Value {
    let addresses = node.addresses.iter().map(|a| json!({"type": "InternalIP", "address": a.to_string()}));
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": &*node.name, "labels": labels(&node.labels)},
        "status": {"addresses": Value::from_iter(addresses)},
    })
}

fn pod(pod: &Pod) -> Value {
    // Names of ports are unique in a container, not in a pod.
    let containers = pod.ports.iter().enumerate().map(|(i, port)| {
        let mut declared = json!({"containerPort": port.port, "protocol": port.protocol.to_string()});
        if let Some(name) = &port.name {
            declared["name"] = Value::from(&**name);
        }
        json!({"name": format!("c{i}"), "image": "example.com/app", "ports": [declared]})
    });
    let mut containers: Vec<Value> = containers.collect();
    if containers.is_empty() {
        containers.push(json!({"name": "main", "image": "example.com/app"}));
    }
    let mut metadata = json!({
        "name": &*pod.key.name,
        "namespace": &*pod.key.namespace,
        "labels": labels(&pod.labels),
    });
    if let Some(workload) = &pod.workload {
        metadata["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": &*workload.kind, "name": &*workload.name, "controller": true, "uid": "1",
        }]);
    }
    let mut spec = json!({"hostNetwork": pod.host_network, "containers": containers});
    if let Some(node) = &pod.node {
        spec["nodeName"] = Value::from(&**node);
    }
    let phase = match pod.phase {
        Phase::Pending => "Pending",
        Phase::Running => "Running",
        Phase::Succeeded => "Succeeded",
        Phase::Failed => "Failed",
        Phase::Unknown => "Unknown",
    };
    let addresses = pod.addresses.iter().map(|a| json!({"ip": a.to_string()}));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec,
        "status": {"phase": phase, "podIPs": Value::from_iter(addresses)},
    })
}

/// The API of a policy, by its kind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Api {
    Namespaced,
    Cluster,
    /// AdminNetworkPolicy, and BaselineAdminNetworkPolicy, which has no `Pass`.
    Older {
        baseline: bool,
    },
}

fn policy(policy: &Policy) -> Value {
    let api = match &*policy.key.kind {
        "NetworkPolicy" => Api::Namespaced,
        "ClusterNetworkPolicy" => Api::Cluster,
        kind => Api::Older { baseline: kind == "BaselineAdminNetworkPolicy" },
    };
    let mut spec = Map::new();
    let mut set = |key: &str, value: Value| {
        spec.insert(key.to_owned(), value);
    };
    let namespace = &*policy.key.namespace;
    let version = match api {
        Api::Namespaced => {
            let types = [("Ingress", &policy.ingress), ("Egress", &policy.egress)];
            let types = types.into_iter().filter_map(|(name, rules)| rules.is_some().then_some(name));
            set("policyTypes", types.collect());
            set("podSelector", selector(&policy.subject.pods));
            "networking.k8s.io/v1"
        }
        Api::Cluster => {
            set("tier", if policy.tier == Tier::Admin { "Admin" } else { "Baseline" }.into());
            set("priority", policy.priority.into());
            "policy.networking.k8s.io/v1alpha2"
        }
        Api::Older { baseline } => {
            if !baseline {
                set("priority", policy.priority.into());
            }
            "policy.networking.k8s.io/v1alpha1"
        }
    };
    if api != Api::Namespaced {
        set("subject", wide(&policy.subject));
    }
    for (name, peers, rules) in [("ingress", "from", &policy.ingress), ("egress", "to", &policy.egress)] {
        let possible = |rule: &&Rule| match api {
            Api::Namespaced => true,
            _ if rule.peers.is_none() || names_ports_of_networks(rule) => false,
            Api::Older { baseline: true } => rule.action != Action::Pass,
            _ => true,
        };
        let rules = rules.iter().flatten().filter(possible);
        let rules: Vec<Value> = rules.map(|r| rule(r, api, peers, namespace)).collect();
        if !rules.is_empty() {
            set(name, rules.into());
        }
    }
    let mut metadata = json!({"name": &*policy.key.name});
    if api == Api::Namespaced {
        metadata["namespace"] = namespace.into();
    }
    json!({"apiVersion": version, "kind": &*policy.key.kind, "metadata": metadata, "spec": spec})
}

/// Whether ports have names, and peers are networks or nodes: no cluster-wide API admits that.
fn names_ports_of_networks(rule: &Rule) -> bool {
    rule.ports.iter().flatten().any(|entry| matches!(entry.port, PortMatch::Named { .. }))
        && rule.peers.iter().flatten().any(|entry| !matches!(entry.peer, Peer::Pods(_)))
}

fn rule(rule: &Rule, api: Api, peers: &str, namespace: &str) -> Value {
    let mut out = json!({});
    if api != Api::Namespaced {
        out["action"] = match (rule.action, api) {
            (Action::Accept, Api::Cluster) => "Accept",
            (Action::Accept, _) => "Allow",
            (Action::Deny, _) => "Deny",
            (Action::Pass, _) => "Pass",
        }
        .into();
    }
    if let Some(list) = &rule.peers {
        out[peers] = list.iter().map(|entry| peer(&entry.peer, api, namespace)).collect();
    }
    if let Some(list) = &rule.ports {
        let key = if api == Api::Cluster { "protocols" } else { "ports" };
        out[key] = list.iter().map(|entry| port(&entry.port, api)).collect();
    }
    out
}

fn peer(peer: &Peer, api: Api, namespace: &str) -> Value {
    match peer {
        Peer::Nodes(nodes) => json!({"nodes": selector(nodes)}),
        Peer::DomainName(pattern) => json!({"domainNames": [pattern.to_string()]}),
        Peer::Block(block) if api != Api::Namespaced => json!({"networks": [block.cidr.to_string()]}),
        Peer::Block(block) => {
            let mut out = json!({"cidr": block.cidr.to_string()});
            if !block.except.is_empty() {
                out["except"] = block.except.iter().map(ToString::to_string).collect();
            }
            json!({"ipBlock": out})
        }
        Peer::Pods(pods) if api != Api::Namespaced => wide(pods),
        Peer::Pods(PodMatch { namespaces: NamespaceMatch::Named(name), pods }) if **name == *namespace => {
            json!({"podSelector": selector(pods)})
        }
        Peer::Pods(PodMatch { namespaces, pods }) => {
            json!({"namespaceSelector": of_namespaces(namespaces), "podSelector": selector(pods)})
        }
    }
}

fn wide(PodMatch { namespaces, pods }: &PodMatch) -> Value {
    let namespaces = of_namespaces(namespaces);
    if pods.is_everything() {
        json!({"namespaces": namespaces})
    } else {
        json!({"pods": {"namespaceSelector": namespaces, "podSelector": selector(pods)}})
    }
}

fn of_namespaces(namespaces: &NamespaceMatch) -> Value {
    match namespaces {
        NamespaceMatch::Named(name) => json!({"matchLabels": {NAMESPACE_NAME_LABEL: &**name}}),
        NamespaceMatch::Selected(selected) => selector(selected),
    }
}

fn selector(selector: &Selector) -> Value {
    let expressions: Vec<Value> = selector
        .requirements()
        .iter()
        .map(|requirement| {
            let (operator, values) = match &requirement.test {
                Test::In(values) => ("In", values.iter().map(|v| &**v).collect()),
                Test::NotIn(values) => ("NotIn", values.iter().map(|v| &**v).collect()),
                Test::Exists => ("Exists", Vec::new()),
                Test::DoesNotExist => ("DoesNotExist", Vec::<&str>::new()),
            };
            let mut out = json!({"key": &*requirement.key, "operator": operator});
            if !values.is_empty() {
                out["values"] = values.into();
            }
            out
        })
        .collect();
    if expressions.is_empty() { json!({}) } else { json!({"matchExpressions": expressions}) }
}

fn port(port: &PortMatch, api: Api) -> Value {
    match (port, api) {
        (PortMatch::Named { protocol, name }, Api::Namespaced) => {
            json!({"protocol": protocol.unwrap().to_string(), "port": &**name})
        }
        (PortMatch::Named { name, .. }, Api::Cluster) => json!({"destinationNamedPort": &**name}),
        (PortMatch::Named { name, .. }, Api::Older { .. }) => json!({"namedPort": &**name}),
        (PortMatch::Numbers { protocol, first: 0, .. }, Api::Namespaced) => {
            json!({"protocol": protocol.to_string()})
        }
        (PortMatch::Numbers { protocol, first, last }, Api::Namespaced) => {
            json!({"protocol": protocol.to_string(), "port": first, "endPort": last})
        }
        // A range of ClusterNetworkPolicy has at least two ports.
        (PortMatch::Numbers { protocol, first, last }, Api::Cluster) => {
            let first = first.max(&1);
            let range = json!({"range": {"start": first, "end": last}});
            let ports = if first == last { json!({"number": first}) } else { range };
            json!({protocol.to_string().to_lowercase(): {"destinationPort": ports}})
        }
        (PortMatch::Numbers { protocol, first, last }, Api::Older { .. }) => {
            json!({"portRange": {"protocol": protocol.to_string(), "start": first.max(&1), "end": last}})
        }
    }
}

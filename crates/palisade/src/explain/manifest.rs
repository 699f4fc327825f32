//! Renders rules, peers and ports as YAML of the API.

use palisade_analysis::edit::{Edit, RuleEdit};
use palisade_policy::{
    Action, Direction, IpBlock, NAMESPACE_NAME_LABEL, NamespaceMatch, Peer, PodMatch, Policy, PolicyKey,
    PortMatch, Protocol, Rule, Selector, Test, Tier,
};
use serde_json::{Map, Value, json};

/// Returns what an edit adds, as YAML. Empty if it only removes something.
pub(crate) fn text(edit: &Edit) -> String {
    let value = match edit {
        Edit::Rules { policy: key, direction, action, .. } => match action {
            RuleEdit::AddRule { rule, .. } => json!([self::rule(rule, key, *direction)]),
            RuleEdit::AddPeers { peers, .. } => peers_of(peers, key).into(),
            RuleEdit::ReplacePeer { peer, .. } => json!([self::peer(peer, key)]),
            RuleEdit::AddPorts { ports, .. } | RuleEdit::ReplacePort { ports, .. } => {
                ports.iter().map(|p| port(p, key)).collect()
            }
            RuleEdit::RemovePeers { .. } | RuleEdit::RemovePorts { .. } | RuleEdit::RemoveRules(_) => {
                return String::new();
            }
        },
        Edit::Subject { selector, .. } => json!({"podSelector": self::selector(selector)}),
        Edit::Direction { .. } => json!({"policyTypes": ["Ingress", "Egress"]}),
        Edit::NewPolicy(policy) => self::policy(policy),
        Edit::Labels { labels, .. } => {
            let labels: Map<String, Value> =
                labels.iter().map(|(k, v)| (k.to_string(), Value::from(&**v))).collect();
            json!({"metadata": {"labels": labels}})
        }
    };
    yaml(&value)
}

/// Renders a value as YAML. Writing to memory does not fail, and JSON is valid YAML.
pub(crate) fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_else(|_| value.to_string())
}

fn is_network_policy(key: &PolicyKey) -> bool {
    &*key.kind == "NetworkPolicy"
}

fn is_cluster_network_policy(key: &PolicyKey) -> bool {
    &*key.kind == "ClusterNetworkPolicy"
}

/// Renders a policy as an object of the API.
pub(crate) fn policy(policy: &Policy) -> Value {
    let rules = |rules: &Option<Vec<Rule>>, direction| {
        let rules = rules.as_ref()?;
        Some(Value::from_iter(rules.iter().map(|r| rule(r, &policy.key, direction))))
    };
    let mut spec = Map::new();
    if is_network_policy(&policy.key) {
        let types: Vec<&str> = [("Ingress", policy.ingress.is_some()), ("Egress", policy.egress.is_some())]
            .into_iter()
            .filter_map(|(name, applies)| applies.then_some(name))
            .collect();
        spec.insert("podSelector".to_owned(), selector(&policy.subject.pods));
        spec.insert("policyTypes".to_owned(), types.into());
        for (name, list, direction) in
            [("ingress", &policy.ingress, Direction::Ingress), ("egress", &policy.egress, Direction::Egress)]
        {
            if let Some(list) = rules(list, direction).filter(|list| list != &json!([])) {
                spec.insert(name.to_owned(), list);
            }
        }
        return json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": &*policy.key.name, "namespace": &*policy.key.namespace},
            "spec": spec,
        });
    }
    let tier = if policy.tier == Tier::Baseline { "Baseline" } else { "Admin" };
    spec.insert("tier".to_owned(), tier.into());
    spec.insert("priority".to_owned(), policy.priority.into());
    spec.insert("subject".to_owned(), pods_of_cluster(&policy.subject));
    for (name, list, direction) in
        [("ingress", &policy.ingress, Direction::Ingress), ("egress", &policy.egress, Direction::Egress)]
    {
        if let Some(list) = rules(list, direction) {
            spec.insert(name.to_owned(), list);
        }
    }
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": &*policy.key.kind,
        "metadata": {"name": &*policy.key.name},
        "spec": spec,
    })
}

pub(super) fn rule(rule: &Rule, key: &PolicyKey, direction: Direction) -> Value {
    let mut out = Map::new();
    if !is_network_policy(key) {
        if let Some(name) = &rule.name {
            out.insert("name".to_owned(), (&**name).into());
        }
        let action = match rule.action {
            Action::Accept if is_cluster_network_policy(key) => "Accept",
            Action::Accept => "Allow",
            Action::Deny => "Deny",
            Action::Pass => "Pass",
        };
        out.insert("action".to_owned(), action.into());
    }
    if let Some(peers) = &rule.peers {
        let name = if direction == Direction::Ingress { "from" } else { "to" };
        out.insert(name.to_owned(), peers_of(peers.iter().map(|entry| &entry.peer), key).into());
    }
    if let Some(ports) = &rule.ports {
        let name = if is_cluster_network_policy(key) { "protocols" } else { "ports" };
        out.insert(name.to_owned(), ports.iter().map(|entry| port(&entry.port, key)).collect());
    }
    out.into()
}

/// The most networks of one peer of a cluster-wide policy.
const MOST_NETWORKS: usize = 25;

/// Renders peers. Networks of cluster-wide policies become lists, behind the others.
pub(super) fn peers_of<'p>(peers: impl IntoIterator<Item = &'p Peer>, key: &PolicyKey) -> Vec<Value> {
    let (mut out, mut networks) = (Vec::new(), Vec::new());
    for one in peers {
        match one {
            Peer::Block(block) if !is_network_policy(key) => networks.push(block.cidr.to_string()),
            other => out.push(peer(other, key)),
        }
    }
    out.extend(networks.chunks(MOST_NETWORKS).map(|networks| json!({"networks": networks})));
    out
}

pub(crate) fn peer(peer: &Peer, key: &PolicyKey) -> Value {
    match peer {
        Peer::Pods(choice) if is_network_policy(key) => pods_of_namespaced(choice, &key.namespace),
        Peer::Pods(choice) => pods_of_cluster(choice),
        Peer::Nodes(nodes) => json!({"nodes": selector(nodes)}),
        Peer::DomainName(pattern) => json!({"domainNames": [pattern.to_string()]}),
        Peer::Block(IpBlock { cidr, .. }) if !is_network_policy(key) => {
            json!({"networks": [cidr.to_string()]})
        }
        Peer::Block(IpBlock { cidr, except }) if except.is_empty() => {
            json!({"ipBlock": {"cidr": cidr.to_string()}})
        }
        Peer::Block(IpBlock { cidr, except }) => {
            let except: Vec<String> = except.iter().map(ToString::to_string).collect();
            json!({"ipBlock": {"cidr": cidr.to_string(), "except": except}})
        }
    }
}

/// Renders pods as a peer of a NetworkPolicy in this namespace.
fn pods_of_namespaced(choice: &PodMatch, namespace: &str) -> Value {
    let PodMatch { namespaces, pods } = choice;
    match namespaces {
        NamespaceMatch::Named(name) if &**name == namespace => json!({"podSelector": selector(pods)}),
        _ if pods.is_everything() => json!({"namespaceSelector": namespace_selector(namespaces)}),
        _ => json!({"namespaceSelector": namespace_selector(namespaces), "podSelector": selector(pods)}),
    }
}

/// Renders pods as a peer or subject of a cluster-wide policy.
fn pods_of_cluster(choice: &PodMatch) -> Value {
    let PodMatch { namespaces, pods } = choice;
    let namespaces = namespace_selector(namespaces);
    if pods.is_everything() {
        json!({"namespaces": namespaces})
    } else {
        json!({"pods": {"namespaceSelector": namespaces, "podSelector": selector(pods)}})
    }
}

fn namespace_selector(namespaces: &NamespaceMatch) -> Value {
    match namespaces {
        NamespaceMatch::Named(name) => json!({"matchLabels": {NAMESPACE_NAME_LABEL: &**name}}),
        NamespaceMatch::Selected(selector) => self::selector(selector),
    }
}

pub(crate) fn selector(selector: &Selector) -> Value {
    let (mut labels, mut expressions) = (Map::new(), Vec::new());
    for requirement in selector.requirements() {
        let key = requirement.key.to_string();
        let (operator, values) = match &requirement.test {
            Test::In(values) => ("In", Some(values)),
            Test::NotIn(values) => ("NotIn", Some(values)),
            Test::Exists => ("Exists", None),
            Test::DoesNotExist => ("DoesNotExist", None),
        };
        match (operator, values) {
            ("In", Some(values)) if values.len() == 1 && !labels.contains_key(&key) => {
                labels.insert(key, values.iter().map(|v| &**v).collect::<String>().into());
            }
            (_, Some(values)) => {
                let values: Vec<&str> = values.iter().map(|v| &**v).collect();
                expressions.push(json!({"key": key, "operator": operator, "values": values}));
            }
            (_, None) => expressions.push(json!({"key": key, "operator": operator})),
        }
    }
    let mut out = Map::new();
    if !labels.is_empty() {
        out.insert("matchLabels".to_owned(), labels.into());
    }
    if !expressions.is_empty() {
        out.insert("matchExpressions".to_owned(), expressions.into());
    }
    out.into()
}

pub(crate) fn port(port: &PortMatch, key: &PolicyKey) -> Value {
    if is_network_policy(key) {
        return match port {
            PortMatch::Numbers { protocol, first: 0, last: u16::MAX } => {
                json!({"protocol": protocol.to_string()})
            }
            PortMatch::Numbers { protocol, first, last } if first == last => {
                json!({"protocol": protocol.to_string(), "port": first})
            }
            PortMatch::Numbers { protocol, first, last } => {
                json!({"protocol": protocol.to_string(), "port": first, "endPort": last})
            }
            PortMatch::Named { protocol, name } => {
                json!({"protocol": protocol.unwrap_or(Protocol::Tcp).to_string(), "port": &**name})
            }
        };
    }
    let is_new = is_cluster_network_policy(key);
    match port {
        PortMatch::Named { name, .. } if is_new => json!({"destinationNamedPort": &**name}),
        PortMatch::Named { name, .. } => json!({"namedPort": &**name}),
        PortMatch::Numbers { protocol, first, last } => {
            // No API has port 0.
            let (first, protocol) = (first.max(&1), protocol.to_string());
            match (is_new, first == last) {
                (true, true) => json!({protocol.to_lowercase(): {"destinationPort": {"number": first}}}),
                (true, false) => {
                    json!({protocol.to_lowercase(): {"destinationPort": {"range": {"start": first, "end": last}}}})
                }
                (false, true) => json!({"portNumber": {"protocol": protocol, "port": first}}),
                (false, false) => json!({"portRange": {"protocol": protocol, "start": first, "end": last}}),
            }
        }
    }
}

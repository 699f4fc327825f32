//! The policies for destinations that were recorded by name. NetworkPolicies have no names, so they are cluster-wide.

use palisade_names::DNS_PORT;
use palisade_policy::{
    NAMESPACE_NAME_LABEL, Name, NamespaceMatch, PodMatch, Policy, PolicyKey, PortMatch, Protocol, Rule,
    Selector, Tier,
};

use super::{
    Purpose, SeenConnection, SuggestedPolicy,
    demand::Demands,
    dns::{dns_ports, server_peers, usual_peer},
    groups::{Groups, PodGroup},
    rules::{Rules, rule},
};

/// The most rules of a cluster-wide policy, and the most peers and ports of a rule (SEMANTICS C.1).
const MAX_ENTRIES: usize = 25;
/// The last of the tier: what an administrator denies before is denied.
const PRIORITY: i32 = 1000;

/// Returns the policies that let a group reach DNS and the names that it used: several if one has no room for all.
pub(super) fn by_name(
    group: &PodGroup,
    name: &str,
    rules: Rules,
    demands: &Demands,
    groups: &Groups<'_>,
) -> Vec<SuggestedPolicy> {
    let mut all: Vec<(Rule, Vec<SeenConnection>)> = Vec::new();
    for (rule, seen) in rules.rules.into_iter().zip(rules.seen) {
        all.extend(divided(rule, &seen));
    }
    // One rule is that of DNS.
    let chunks = all.chunks(MAX_ENTRIES - 1).enumerate();
    let policy = |(at, chunk): (usize, &[(Rule, Vec<SeenConnection>)])| {
        let suffix = if at == 0 { String::new() } else { format!("-{}", at + 1) };
        let (rules, seen): (Vec<Rule>, Vec<_>) = chunk.iter().cloned().unzip();
        let (dns, usual) = dns_rule(demands, groups);
        SuggestedPolicy {
            policy: Policy {
                key: key(group.namespace(), &format!("{name}{suffix}")),
                mode: None,
                tier: Tier::Admin,
                priority: PRIORITY,
                subject: subject(group, groups),
                ingress: None,
                egress: Some(std::iter::once(dns).chain(rules).collect()),
                origin: None,
            },
            purpose: Purpose::Names {
                pods: group.pods().cloned(),
                namespace: group.namespace().clone(),
                usual,
            },
            ingress: Vec::new(),
            egress: std::iter::once(Vec::new()).chain(seen).collect(),
        }
    };
    chunks.map(policy).collect()
}

/// The name is unique in the namespace, and the name of a namespace has no dot.
fn key(namespace: &Name, name: &str) -> PolicyKey {
    PolicyKey {
        kind: "ClusterNetworkPolicy".into(),
        namespace: "".into(),
        name: format!("{namespace}.{name}.by-name").into(),
    }
}

fn subject(group: &PodGroup, groups: &Groups<'_>) -> PodMatch {
    let own = Selector::of_labels([(NAMESPACE_NAME_LABEL, &**group.namespace())]);
    PodMatch { namespaces: NamespaceMatch::Selected(own), pods: groups.selector(group) }
}

/// A rule with names doesn't let pods ask DNS servers. Returns also whether none is known.
fn dns_rule(demands: &Demands, groups: &Groups<'_>) -> (Rule, bool) {
    let servers = &demands.dns.servers;
    // No namespace is the home of a cluster-wide policy.
    let home = Name::from("");
    let usual = servers.is_empty();
    let peers = if usual { vec![usual_peer(&home)] } else { server_peers(servers, &home, groups) };
    let mut ports = dns_ports(&demands.dns.ports);
    if ports.len() > MAX_ENTRIES {
        let usual = |protocol| PortMatch::Numbers { protocol, first: DNS_PORT, last: DNS_PORT };
        ports = [Protocol::Udp, Protocol::Tcp].map(usual).into();
    }
    (Rule { name: Some("dns".into()), ..rule(peers, Some(ports)) }, usual)
}

/// Divides a rule into some that the API admits, each with what it stands for.
fn divided(whole: Rule, seen: &[SeenConnection]) -> Vec<(Rule, Vec<SeenConnection>)> {
    let peers = whole.peers.unwrap_or_default();
    let ports = whole.ports;
    let mut out = Vec::new();
    for (at, peers) in peers.chunks(MAX_ENTRIES).enumerate() {
        let all: Vec<Option<_>> = match &ports {
            None => vec![None],
            Some(ports) => ports.chunks(MAX_ENTRIES).map(|ports| Some(ports.to_vec())).collect(),
        };
        for (of_ports, ports) in all.into_iter().enumerate() {
            // The comments are at the first part.
            let seen = if (at, of_ports) == (0, 0) { seen.to_vec() } else { Vec::new() };
            let rule = Rule {
                name: Some("names".into()),
                action: whole.action,
                peers: Some(peers.to_vec()),
                ports,
                origin: None,
            };
            out.push((rule, seen));
        }
    }
    out
}

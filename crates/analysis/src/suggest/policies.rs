//! The policies of each namespace: one that denies, one for DNS, and those for what was seen.

use std::collections::{BTreeMap, BTreeSet};

use palisade_policy::{
    Direction, Name, NamespaceMatch, ObjectKey, Peer, PodMatch, Policy, PolicyKey, Selector, Tier,
};

use super::{
    LimitHit, Purpose, SeenPods, SuggestBasis, SuggestedPolicy,
    blocks::ClusterRanges,
    demand::{Demands, Dns, WantedPeer, WantedPeers},
    dns::{dns_ports, server_peers, usual_peer},
    groups::{Groups, PodGroup},
    names,
    rules::{RuleMaker, Rules, connections, rule},
};

const DEFAULT_DENY: &str = "default-deny";
const ALLOW_DNS: &str = "allow-dns";
const DNS_SERVERS: &str = "allow-dns-clients";
/// The policy of a whole namespace.
const WHOLE: [&str; 2] = ["allow-recorded", "allow-needed"];
/// The longest name of an object of Kubernetes (a DNS subdomain, RFC 1123), with room for what makes it unique, and for the namespace.
const MAX_NAME: usize = 150;
/// The longest kind in a name.
const MAX_KIND: usize = 32;

/// Returns the policies, and what was left out of them.
pub(super) fn policies(
    demands: &Demands,
    groups: &Groups<'_>,
    basis: SuggestBasis,
) -> (Vec<SuggestedPolicy>, Vec<LimitHit>) {
    let whole = WHOLE[usize::from(basis == SuggestBasis::Needs)];
    let mut maker = RuleMaker { groups, ranges: ClusterRanges::of(groups.cluster), limits: Vec::new() };
    let mut subjects: BTreeMap<&PodGroup, SubjectRules> = BTreeMap::new();
    for ((group, direction), wanted) in &demands.wanted {
        let is_host = |peer: &WantedPeer| matches!(peer, WantedPeer::Host(_));
        let (hosts, others): (WantedPeers, WantedPeers) =
            wanted.iter().map(|(peer, ports)| (peer.clone(), ports.clone())).partition(|(p, _)| is_host(p));
        let rules = maker.rules(group, *direction, &others);
        let subject = subjects.entry(group).or_default();
        match direction {
            Direction::Ingress => subject.ingress = rules,
            Direction::Egress => {
                subject.egress = rules;
                subject.hosts = maker.rules(group, *direction, &hosts);
            }
        }
    }
    let mut out = Vec::new();
    for namespace in &demands.namespaces {
        let mut taken: BTreeSet<String> = [DEFAULT_DENY, ALLOW_DNS, DNS_SERVERS].map(str::to_owned).into();
        out.push(default_deny(namespace));
        out.push(allow_dns(namespace, demands, groups));
        out.extend(dns_servers(namespace, demands, groups));
        for (group, rules) in subjects.iter_mut().filter(|(group, _)| group.namespace() == namespace) {
            let SubjectRules { ingress, egress, hosts } = std::mem::take(rules);
            if [&ingress, &egress, &hosts].into_iter().all(|rules| rules.rules.is_empty()) {
                continue;
            }
            let name = unused(name_of(group, whole), group, &mut taken);
            if !(ingress.rules.is_empty() && egress.rules.is_empty()) {
                out.push(of_seen(group, &name, groups.selector(group), ingress, egress));
            }
            out.extend(names::by_name(group, &name, hosts, demands, groups));
        }
    }
    (out, maker.limits)
}

/// The rules of a subject.
#[derive(Default)]
struct SubjectRules {
    ingress: Rules,
    egress: Rules,
    /// Egress to hosts by name.
    hosts: Rules,
}

fn policy(namespace: &Name, name: &str, pods: Selector) -> Policy {
    Policy {
        key: PolicyKey::network_policy(namespace.clone(), name),
        mode: None,
        tier: Tier::Developer,
        priority: 0,
        subject: PodMatch { namespaces: NamespaceMatch::Named(namespace.clone()), pods },
        ingress: None,
        egress: None,
        origin: None,
    }
}

fn default_deny(namespace: &Name) -> SuggestedPolicy {
    let denies = Policy {
        ingress: Some(Vec::new()),
        egress: Some(Vec::new()),
        ..policy(namespace, DEFAULT_DENY, Selector::everything())
    };
    SuggestedPolicy { policy: denies, purpose: Purpose::DefaultDeny, ingress: Vec::new(), egress: Vec::new() }
}

fn of_seen(group: &PodGroup, name: &str, pods: Selector, ingress: Rules, egress: Rules) -> SuggestedPolicy {
    let rules = |rules: Rules| (!rules.rules.is_empty()).then_some(rules.rules);
    let seen = [ingress.seen.clone(), egress.seen.clone()];
    let policy =
        Policy { ingress: rules(ingress), egress: rules(egress), ..policy(group.namespace(), name, pods) };
    let [ingress, egress] = seen;
    SuggestedPolicy { policy, purpose: Purpose::Seen(group.pods().cloned()), ingress, egress }
}

/// Lets the pods of a namespace reach DNS.
fn allow_dns(namespace: &Name, demands: &Demands, groups: &Groups<'_>) -> SuggestedPolicy {
    let Dns { servers, ports } = &demands.dns;
    let (peers, usual) = match servers.is_empty() {
        true => (vec![usual_peer(namespace)], true),
        false => (server_peers(servers, namespace, groups), false),
    };
    let egress = rule(peers, Some(dns_ports(ports)));
    let seen = demands.dns_seen.get(namespace).map(connections).unwrap_or_default();
    let policy =
        Policy { egress: Some(vec![egress]), ..policy(namespace, ALLOW_DNS, Selector::everything()) };
    SuggestedPolicy { policy, purpose: Purpose::Dns { usual }, ingress: Vec::new(), egress: vec![seen] }
}

/// Lets all pods reach the DNS servers of a namespace that gets policies.
fn dns_servers(namespace: &Name, demands: &Demands, groups: &Groups<'_>) -> Option<SuggestedPolicy> {
    let Dns { servers, ports } = &demands.dns;
    let own: BTreeSet<ObjectKey> =
        servers.iter().filter(|key| key.namespace == *namespace).cloned().collect();
    if own.is_empty() {
        return None;
    }
    let all = PodMatch {
        namespaces: NamespaceMatch::Selected(Selector::everything()),
        pods: Selector::everything(),
    };
    let ingress = rule(vec![Peer::Pods(all)], Some(dns_ports(ports)));
    let pods = groups.selectors().of(&own);
    let policy = Policy { ingress: Some(vec![ingress]), ..policy(namespace, DNS_SERVERS, pods) };
    let seen = vec![connections(&demands.dns_served)];
    Some(SuggestedPolicy { policy, purpose: Purpose::DnsServers, ingress: seen, egress: Vec::new() })
}

/// Returns the name of a policy, of characters that names of objects may have: records may have any.
fn name_of(group: &PodGroup, whole: &str) -> String {
    let name = match group {
        PodGroup::Namespace(_) => whole,
        PodGroup::Pods(SeenPods::Workload { workload, .. }) => &workload.name,
        PodGroup::Pods(SeenPods::Alike { first, .. }) => first,
    };
    let valid = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().take(MAX_NAME).map(valid).collect();
    // Each part between dots begins and ends with a letter or digit.
    let parts = name.split('.').map(|part| part.trim_matches('-')).filter(|part| !part.is_empty());
    let name = parts.collect::<Vec<_>>().join(".");
    if name.is_empty() { whole.to_owned() } else { name }
}

/// Returns a name that no other policy of the namespace has: with the kind of the workload, or with a number.
fn unused(name: String, group: &PodGroup, taken: &mut BTreeSet<String>) -> String {
    let kind = match group {
        PodGroup::Pods(SeenPods::Workload { workload, .. }) => workload.kind.to_lowercase(),
        PodGroup::Pods(SeenPods::Alike { .. }) | PodGroup::Namespace(_) => "pod".to_owned(),
    };
    let kind = kind.chars().filter(char::is_ascii_alphanumeric).take(MAX_KIND).collect::<String>();
    let with_kind = format!("{name}-{}", if kind.is_empty() { "pod" } else { &kind });
    let numbered = (2_u32..).map(|number| format!("{with_kind}-{number}"));
    let mut names = [name, with_kind.clone()].into_iter().chain(numbered);
    // There are more numbers than policies.
    let free = names.find(|name| !taken.contains(name)).unwrap_or_default();
    taken.insert(free.clone());
    free
}

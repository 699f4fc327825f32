//! `domain-name-without-dns`: finds rules with domain names for pods that can't ask a DNS server.

use crate::resolvers::Resolvers;
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, Labels, Peer, Policy, Protocol};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL067",
    name: "domain-name-without-dns",
    level: Level::Warning,
    what: "Finds rules with domainNames for pods that can't reach the DNS of the cluster on UDP 53.",
    why: "A domain name matches the addresses that a DNS server answered to the pods. A rule with domain names doesn't allow its pods to ask one, so where DNS is denied, the names never match anything.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    dns!(),
    r#"apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: vendor}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: shop}}}
  egress:
  - action: Accept
    to: [{domainNames: [api.example.com]}]
  - action: Deny
    to: [{networks: [0.0.0.0/0, "::/0"]}]
"#
);

const GOOD: &str = concat!(
    shop!(),
    dns!(),
    r#"apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: vendor}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: shop}}}
  egress:
  - action: Accept
    to:
    - pods:
        namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
        podSelector: {matchLabels: {k8s-app: kube-dns}}
    protocols: [{udp: {destinationPort: {number: 53}}}, {tcp: {destinationPort: {number: 53}}}]
  - action: Accept
    to: [{domainNames: [api.example.com]}]
  - action: Deny
    to: [{networks: [0.0.0.0/0, "::/0"]}]
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let resolvers = Resolvers::new(cx);
    // Without DNS servers in the input, it is not known where they are.
    if resolvers.servers.is_empty() && !resolvers.node_local {
        return Vec::new();
    }
    let mut out = Vec::new();
    let egress = cx.rules().filter(|(_, direction, _)| *direction == Direction::Egress);
    for (policy, _, rule) in egress {
        let mut peers = rule.peers.iter().flatten();
        let Some(entry) = peers.find(|entry| matches!(entry.peer, Peer::DomainName(_))) else { continue };
        if is_without_dns(cx, &resolvers, policy) {
            let origin = entry.origin.as_ref().or(rule.origin.as_ref());
            let message = "pods that the policy selects can't reach the cluster's DNS, so the domain names of the rule never match";
            out.push(Found::of(&policy.key, origin, message.to_owned()));
        }
    }
    out
}

/// Returns whether some of the pods that a policy selects can't ask DNS servers.
fn is_without_dns(cx: &Context<'_>, resolvers: &Resolvers<'_>, policy: &Policy) -> bool {
    let is_server = |namespace: &str, labels: &Labels| {
        resolvers.servers.iter().any(|s| *s.pod.key.namespace == *namespace && s.pod.labels == *labels)
    };
    let mut clients = cx.selected(policy).filter(|class| !is_server(class.namespace, class.labels));
    clients.any(|class| {
        let profile = cx.profile(class);
        let reaches = resolvers.reach_server(cx, &profile, Protocol::Udp)
            || (resolvers.node_local && Resolvers::reach_node_local(cx, &profile, Protocol::Udp));
        !reaches
    })
}

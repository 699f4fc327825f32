//! `dns-blocked`: finds pods that policies keep from the DNS of the cluster.

use std::collections::HashSet;

use crate::admits::isolating;
use crate::resolvers::{Resolvers, names_dns, shown_at};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_names::DNS_PORT;
use palisade_policy::{
    Direction, NamespaceMatch, Peer, PodMatch, Policy, PortSet, Protocol, Rule, Tier, Traffic,
};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL031",
    name: "dns-blocked",
    level: Level::Warning,
    what: "Finds pods that are isolated for egress and can't reach the DNS of the cluster on UDP and TCP 53.",
    why: "Without DNS, pods can't use the name of any Service or host, and what other rules allow is of little use. It is a note if the pods may connect to nothing at all, if only TCP is denied, which long answers need, and if the input has no DNS servers and no rule allows port 53.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    dns!(),
    r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: web
  policyTypes: [Egress]
  egress:
  - to:
    - podSelector:
        matchLabels:
          app: db
    ports:
    - port: 8080
      protocol: TCP
"#
);

const GOOD: &str = concat!(
    shop!(),
    dns!(),
    r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: web
  policyTypes: [Egress]
  egress:
  - to:
    - podSelector:
        matchLabels:
          app: db
    ports:
    - port: 8080
      protocol: TCP
  - to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
      podSelector:
        matchLabels:
          k8s-app: kube-dns
    ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
"#
);

/// The namespace of the DNS of the cluster, if it is not among the manifests.
const SYSTEM: &str = "kube-system";

fn check(cx: &Context<'_>) -> Vec<Found> {
    let resolvers = Resolvers::new(cx);
    let mut out = Vec::new();
    let mut shown = HashSet::new();
    for profile in resolvers.isolated_clients(cx) {
        let Some((level, message)) = problem(cx, &resolvers, &profile) else { continue };
        if let Some(policy) = shown_at(cx, &profile, names_dns)
            && shown.insert(&policy.key)
        {
            let found = Found::of(&policy.key, policy.origin.as_ref(), message.to_owned());
            out.push(found.at_level(level));
        }
    }
    out
}

fn problem(cx: &Context<'_>, resolvers: &Resolvers<'_>, profile: &[u32]) -> Option<(Level, &'static str)> {
    let policies = isolating(cx, profile, Direction::Egress);
    let rules_of = |policy| move |rule| (policy, rule);
    let mut rules = policies
        .flat_map(|policy| policy.rules(Direction::Egress).unwrap_or_default().iter().map(rules_of(policy)))
        .peekable();
    if rules.peek().is_none() {
        return Some((Level::Note, "pods that may connect to nothing can't reach DNS either"));
    }
    if resolvers.servers.is_empty() && !resolvers.node_local {
        let message = "no rule allows UDP 53, so the pods can't resolve names";
        return (!rules.any(may_allow_dns)).then_some((Level::Note, message));
    }
    let reach = |protocol| {
        resolvers.reach_server(cx, profile, protocol)
            || (resolvers.node_local && Resolvers::reach_node_local(cx, profile, protocol))
    };
    match (reach(Protocol::Udp), reach(Protocol::Tcp)) {
        (true, true) => None,
        (true, false) => Some((
            Level::Note,
            "the pods reach DNS over UDP only: answers that are too long for it fail, as TCP 53 is denied",
        )),
        _ => Some((
            Level::Warning,
            "the pods can't reach the cluster's DNS, so the names that they use don't resolve",
        )),
    }
}

/// Whether a rule allows UDP 53 to something that may be a DNS server.
fn may_allow_dns((policy, rule): (&Policy, &Rule)) -> bool {
    // A selector for pods of the policy's own namespace that doesn't mention DNS is for something else, unless the DNS of the
    // cluster is there.
    let own = |peer: &Peer| matches!(peer, Peer::Pods(PodMatch { namespaces: NamespaceMatch::Named(name), .. }) if **name != *SYSTEM);
    let elsewhere = rule.peers.as_ref().is_none_or(|peers| peers.iter().any(|entry| !own(&entry.peer)));
    if !elsewhere && policy.tier == Tier::Developer && !names_dns(rule) {
        return false;
    }
    let dns = Traffic::of(Protocol::Udp, PortSet::range(DNS_PORT, DNS_PORT));
    names_dns(rule) || !crate::admits::ports(rule, None).intersection(&dns).is_none()
}

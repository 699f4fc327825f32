//! `dns-blocked`: finds pods that policies keep from the DNS of the cluster.

use std::{collections::HashSet, rc::Rc};

use crate::admits::{self, Other, isolating};
use crate::resolvers::{Resolvers, names_dns, shown_at};
use crate::{context::Context, finding::Found, index::Profile, level::Level, rule::LintRule};
use palisade_names::{DNS_PORT, DnsServer};
use palisade_policy::{
    Action, Direction, NamespaceMatch, Origin, Peer, PodMatch, Policy, PortSet, Protocol, Rule, Tier, Traffic,
};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL031",
    name: "dns-blocked",
    level: Level::Warning,
    what: "Finds pods that can't reach the cluster's DNS on UDP and TCP 53 because of policies for their egress, or for the ingress of the DNS pods.",
    why: "Without DNS, pods can't use the name of any Service or host, and what other rules allow is of little use. It is a note if the pods may connect to nothing at all, if only TCP is denied, which long answers need, and if the input has no DNS servers and no rule allows port 53. Pods whose dnsPolicy is None or Default are checked only if dnsConfig names the cluster's DNS. An ipBlock with the cluster IP of the DNS Service allows nothing, because the address is translated before policies are applied.",
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

/// How many connections of clients to DNS servers are looked at. What lies behind is not checked.
const MOST_PAIRS: usize = 100_000;

fn check(cx: &Context<'_>) -> Vec<Found> {
    let resolvers = Resolvers::new(cx);
    let mut out = Vec::new();
    let mut shown = HashSet::new();
    for profile in resolvers.client_profiles(cx) {
        let Some((level, message, protocol)) = problem(cx, &resolvers, &profile) else { continue };
        if let Some((policy, origin)) = place(cx, &resolvers, &profile, protocol)
            && shown.insert(&policy.key)
        {
            let found = Found::of(&policy.key, origin, message.to_owned());
            out.push(found.at_level(level));
        }
    }
    out.extend(closed_servers(cx, &resolvers));
    out
}

/// Returns what is wrong, and the protocol that is denied.
fn problem(
    cx: &Context<'_>,
    resolvers: &Resolvers<'_>,
    profile: &[u32],
) -> Option<(Level, &'static str, Protocol)> {
    let policies = isolating(cx, profile, Direction::Egress);
    let isolated = policies.clone().next().is_some();
    let rules_of = |policy| move |rule| (policy, rule);
    let mut rules = policies
        .flat_map(|policy| policy.rules(Direction::Egress).unwrap_or_default().iter().map(rules_of(policy)))
        .peekable();
    let nothing = isolated && rules.peek().is_none();
    let lonely = "pods that may connect to nothing can't reach DNS either";
    if resolvers.servers.is_empty() && !resolvers.node_local {
        let message = "no rule allows UDP 53, so the pods can't resolve names";
        let message = if nothing { lonely } else { message };
        return (isolated && !rules.any(may_allow_dns)).then_some((Level::Note, message, Protocol::Udp));
    }
    let reach = |protocol| reaches(cx, resolvers, profile, protocol);
    match (reach(Protocol::Udp), reach(Protocol::Tcp)) {
        (true, true) => None,
        (false, _) if nothing => Some((Level::Note, lonely, Protocol::Udp)),
        (true, false) => Some((
            Level::Note,
            "the pods reach DNS over UDP only: answers that are too long for it fail, as TCP 53 is denied",
            Protocol::Tcp,
        )),
        _ => Some((
            Level::Warning,
            "the pods can't reach the cluster's DNS, so the names that they use don't resolve",
            Protocol::Udp,
        )),
    }
}

/// Whether the pods of a profile may connect to a DNS server or to the cache on their node.
fn reaches(cx: &Context<'_>, resolvers: &Resolvers<'_>, profile: &[u32], protocol: Protocol) -> bool {
    resolvers.reach_server(cx, profile, protocol)
        || (resolvers.node_local && Resolvers::reach_node_local(cx, profile, protocol))
}

/// Returns where a finding about a profile is shown: at a rule of a cluster-wide policy that denies DNS, if the NetworkPolicies
/// alone would allow it, or at one of these.
fn place<'a>(
    cx: &Context<'a>,
    resolvers: &Resolvers<'_>,
    profile: &[u32],
    protocol: Protocol,
) -> Option<(&'a Policy, Option<&'a Origin>)> {
    let is_namespaced = |at: &u32| cx.in_profile(&[*at]).any(|policy| policy.tier == Tier::Developer);
    let alone: Vec<u32> = profile.iter().copied().filter(is_namespaced).collect();
    let by_tier = reaches(cx, resolvers, &alone, protocol);
    let denying = cx.in_profile(profile).find_map(|policy| {
        let rules = policy.rules(Direction::Egress).unwrap_or_default();
        let rule = rules.iter().find(|rule| denies_dns(resolvers, rule, protocol))?;
        Some((policy, rule.origin.as_ref().or(policy.origin.as_ref())))
    });
    let own = || shown_at(cx, profile, names_dns).map(|policy| (policy, policy.origin.as_ref()));
    denying.filter(|_| by_tier).or_else(own)
}

/// Whether a rule of a cluster-wide policy denies the port of a DNS server.
fn denies_dns(resolvers: &Resolvers<'_>, rule: &Rule, protocol: Protocol) -> bool {
    let has = |server: &DnsServer<'_>| admits::ports(rule, Some(server.pod)).contains(protocol, server.port);
    rule.action == Action::Deny && resolvers.servers.iter().any(has)
}

/// Finds policies of DNS servers that keep out pods that may ask them.
fn closed_servers<'a>(cx: &Context<'a>, resolvers: &Resolvers<'a>) -> Option<Found> {
    // The cache on the node asks for the pods, from the network of the node.
    if resolvers.node_local {
        return None;
    }
    let mut known = HashSet::new();
    let mut servers = Vec::new();
    for server in &resolvers.servers {
        // Policies don't apply to a server in the host network.
        let class = cx.class_of(server.pod)?;
        if known.insert((std::ptr::from_ref(class), server.port)) {
            let profile = cx.profile(class);
            let policies = cx.in_profile(&profile).find(|policy| policy.rules(Direction::Ingress).is_some());
            servers.push((server, Rc::clone(&profile), policies?));
        }
    }
    let (first, _, policy) = servers.first()?;
    let (mut blocked, mut example) = (0, None);
    for class in resolvers.clients(cx).take(MOST_PAIRS / servers.len()) {
        let other = Other::of(cx, class.pods[0]);
        let admits = |(server, profile, _): &(&DnsServer<'_>, Profile, &Policy)| {
            let traffic = admits::allowed(cx, profile, Direction::Ingress, other, Some(server.pod));
            traffic.contains(Protocol::Udp, server.port)
        };
        if !servers.iter().any(admits) && resolvers.reach_server(cx, &cx.profile(class), Protocol::Udp) {
            blocked += class.pods.len();
            example.get_or_insert(&class.pods[0].key);
        }
    }
    let message = format!(
        "DNS server {} does not accept UDP {} from {blocked} pod{}, such as {}, so the names that they use don't resolve",
        first.pod.key,
        first.port,
        if blocked == 1 { "" } else { "s" },
        example?
    );
    Some(Found::of(&policy.key, policy.origin.as_ref(), message))
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
    names_dns(rule) || !admits::ports(rule, None).intersection(&dns).is_none()
}

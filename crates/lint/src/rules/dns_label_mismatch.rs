//! `dns-label-mismatch`: finds rules for DNS whose peers match no DNS server.

use crate::admits::Other;
use crate::matching::Selecting;
use crate::resolvers::{Resolvers, names_dns};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_analysis::causes::near;
use palisade_names::usual_dns_server;
use palisade_policy::{Direction, Origin, Peer, PodMatch, Policy, Requirement};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL032",
    name: "dns-label-mismatch",
    level: Level::Warning,
    what: "Finds egress rules for port 53 whose peers match no DNS server.",
    why: "The rule is meant for the DNS of the cluster, and its selector matches none of the DNS servers, so the pods can't resolve names. If the input has no DNS servers, only labels that are nearly k8s-app: kube-dns are found.",
    fix: Some("Writes the label of the DNS servers, where it is one or two letters away."),
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
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
      podSelector:
        matchLabels:
          k8s-app: kubedns
    ports:
    - port: 53
      protocol: UDP
    - port: 53
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

fn check(cx: &Context<'_>) -> Vec<Found> {
    let resolvers = Resolvers::new(cx);
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.rules() {
        if direction != Direction::Egress || !names_dns(rule) {
            continue;
        }
        let peers = rule.peers.iter().flatten();
        let choices: Vec<(&PodMatch, Option<&Origin>)> = peers
            .clone()
            .filter_map(|entry| match &entry.peer {
                Peer::Pods(choice) => Some((choice, entry.origin.as_ref())),
                _ => None,
            })
            .collect();
        // A rule for other pods on port 53 is for a DNS server of its own.
        let matches_some = || choices.iter().any(|(choice, _)| cx.matching(choice).next().is_some());
        if choices.len() < peers.count() || choices.is_empty() || matches_some() {
            continue;
        }
        out.extend(
            choices.iter().filter_map(|(choice, origin)| found(cx, &resolvers, policy, choice, *origin)),
        );
    }
    out
}

fn found<'a>(
    cx: &Context<'a>,
    resolvers: &Resolvers<'a>,
    policy: &'a Policy,
    choice: &'a PodMatch,
    origin: Option<&'a Origin>,
) -> Option<Found> {
    let usual = usual_dns_server();
    let server = resolvers.servers.first().map_or(&usual, |server| server.pod);
    let label = near_label(cx, server, choice);
    if resolvers.servers.is_empty() && label.is_none() {
        return None;
    }
    let selecting = Selecting::Peer(policy, choice, origin);
    let suggestion = label.as_ref().map_or_else(String::new, |(_, new)| format!("; they have {new}"));
    let message = format!("the rule for DNS matches no DNS server, such as {}{suggestion}", server.key);
    let fix = label.as_ref().and_then(|(old, new)| selecting.replaced(cx, old, new));
    Some(selecting.found(cx, label.as_ref().map(|(old, _)| old), message).with_fix(fix))
}

/// Returns the only requirement that a server doesn't meet, and the near one that it does.
fn near_label(
    cx: &Context<'_>,
    server: &palisade_policy::Pod,
    choice: &PodMatch,
) -> Option<(Requirement, Requirement)> {
    // The namespace may not be in the input.
    let anywhere =
        PodMatch { namespaces: choice.namespaces.clone(), pods: palisade_policy::Selector::everything() };
    let known = cx.loaded.cluster.namespaces.contains_key(&server.key.namespace);
    if known && Other::of(cx, server).is_matched_by(&anywhere) == Some(false) {
        return None;
    }
    let mut unmet = choice.pods.requirements().iter().filter(|r| !r.matches(&server.labels));
    let old = unmet.next().filter(|_| unmet.next().is_none())?;
    Some((old.clone(), near(old, &server.labels)?))
}

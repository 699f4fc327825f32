//! `ports-in-own-rule`: finds a rule with only ports after a rule with only peers.

use crate::fix::joined;
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_names::{describe_peer, describe_port};
use palisade_policy::{Direction, Policy, PortMatch, Rule, Tier};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL017",
    name: "ports-in-own-rule",
    level: Level::Warning,
    what: "Finds a rule with only ports after a rule with only peers.",
    why: "Each list item is a rule of its own, and rules are alternatives: the first one allows its peers on every port, and the second one allows its ports for everyone. Ports for DNS alone are left out, since many policies allow them for everyone.",
    fix: Some("Makes the two items one rule: its peers on its ports."),
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: web
  - ports:
    - port: 8080
      protocol: TCP
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: web
    ports:
    - port: 8080
      protocol: TCP
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for policy in cx.policies().filter(|policy| policy.tier == Tier::Developer) {
        for direction in Direction::BOTH {
            let rules = policy.rules(direction).unwrap_or_default();
            out.extend(rules.windows(2).filter_map(|pair| found(cx, policy, direction, &pair[0], &pair[1])));
        }
    }
    out
}

fn found(
    cx: &Context<'_>,
    policy: &Policy,
    direction: Direction,
    first: &Rule,
    second: &Rule,
) -> Option<Found> {
    let (Some(peers), None, None, Some(ports)) = (&first.peers, &first.ports, &second.peers, &second.ports)
    else {
        return None;
    };
    if ports.iter().all(|entry| is_dns(&entry.port)) {
        return None;
    }
    let list = |words: Vec<String>| words.join(", ");
    let peers = list(peers.iter().map(|entry| describe_peer(&entry.peer)).collect());
    let ports = list(ports.iter().map(|entry| describe_port(&entry.port)).collect());
    let (way, end) = match direction {
        Direction::Ingress => ("from", "source"),
        Direction::Egress => ("to", "destination"),
    };
    let message = format!(
        "the two list items are alternatives: the first allows every port {way} {peers}, and the second allows {ports} {way} every {end}"
    );
    let origin = second.origin.as_ref();
    let fix = origin.and_then(|origin| joined(cx, origin, "make the two items one rule"));
    Some(Found::of(&policy.key, origin, message).with_fix(fix))
}

fn is_dns(port: &PortMatch) -> bool {
    match port {
        PortMatch::Numbers { first, last, .. } => first == last && [53, 5353].contains(first),
        PortMatch::Named { name, .. } => name.starts_with("dns"),
    }
}

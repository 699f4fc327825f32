//! `named-port-unresolved`: finds port names that no destination has.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::PortMatch;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL024",
    name: "named-port-unresolved",
    level: Level::Warning,
    what: "Finds port names that no destination has.",
    why: "A port name is looked up among the ports that the containers of the destination declare, with the protocol. If none has it, the rule allows nothing on it. If the destinations declare no ports at all, the finding is a note.",
    fix: None,
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
    ports:
    - port: htpp
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
    - port: http
      protocol: TCP
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.rules() {
        let destinations = cx.destinations(policy, direction, rule);
        if destinations.is_empty() {
            continue;
        }
        for entry in rule.ports.iter().flatten() {
            let PortMatch::Named { name, protocol } = &entry.port else { continue };
            let mut named = destinations.iter().flat_map(|pod| pod.named_ports(name, *protocol));
            if named.next().is_some() {
                continue;
            }
            let declares = destinations.iter().any(|pod| !pod.ports.is_empty());
            let level = if declares { Level::Warning } else { Level::Note };
            let message = format!(
                "no destination has a port \"{name}\" of this protocol, so the rule allows nothing on it"
            );
            out.push(Found::of(&policy.key, entry.origin.as_ref(), message).at_level(level));
        }
    }
    out
}

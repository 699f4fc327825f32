//! `named-port-unresolved`: finds port names that no destination has.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Action, Direction, PortMatch};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL024",
    name: "named-port-unresolved",
    level: Level::Warning,
    what: "Finds port names that no destination has.",
    why: "A port name is looked up among the ports that the containers of the destination declare, with the protocol. If none has it, the rule allows nothing on it. If the destinations declare no ports at all, the finding is a note; also for an egress rule without peers, whose destinations may be pods that are not in the input.",
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
        let named = rule.ports.iter().flatten().filter_map(|entry| match &entry.port {
            PortMatch::Named { name, protocol } => Some((entry, name, *protocol)),
            PortMatch::Numbers { .. } => None,
        });
        let mut named = named.peekable();
        if named.peek().is_none() {
            continue;
        }
        let destinations = cx.named_destinations(policy, direction, rule);
        if destinations.is_empty() {
            continue;
        }
        // Of the pods of other namespaces, the input may have a part.
        let all_are_known = direction == Direction::Ingress || rule.peers.is_some();
        let declares = destinations.iter().any(|pod| !pod.ports.is_empty());
        for (entry, name, protocol) in named {
            let has =
                |protocol| destinations.iter().any(|pod| pod.named_ports(name, protocol).next().is_some());
            if has(protocol) {
                continue;
            }
            let is_clear = declares && all_are_known || has(None);
            let level = if is_clear { Level::Warning } else { Level::Note };
            let what = if all_are_known { "destination" } else { "pod" };
            let of = if protocol.is_some() { " of this protocol" } else { "" };
            let does = if rule.action == Action::Accept { "allows" } else { "matches" };
            let message = format!("no {what} has a port \"{name}\"{of}, so the rule {does} nothing on it");
            out.push(Found::of(&policy.key, entry.origin.as_ref(), message).at_level(level));
        }
    }
    out
}

//! `port-not-listened`: finds ports that no destination declares.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::PortMatch;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL030",
    name: "port-not-listened",
    level: Level::Note,
    what: "Finds ports that no destination declares.",
    why: "The destinations declare ports, and this is none of them. A container may listen on a port that it does not declare, so this may be right.",
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
    - port: 9999
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
    for (policy, direction, rule) in cx.rules() {
        for entry in rule.ports.iter().flatten() {
            let PortMatch::Numbers { protocol, first, last } = &entry.port else { continue };
            let destinations = cx.destinations(policy, direction, rule);
            let all_declare = destinations.iter().all(|pod| !pod.ports.is_empty());
            let declared = destinations.iter().flat_map(|pod| pod.ports.iter());
            let mut declared = declared.filter(|port| port.protocol == *protocol);
            let fits = declared.any(|port| (*first..=*last).contains(&port.port));
            if first == last && !destinations.is_empty() && all_declare && !fits {
                let message = format!("no container of the destinations declares port {first}/{protocol}");
                out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
            }
        }
    }
    out
}

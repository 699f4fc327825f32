//! `port-not-listened`: finds ports that no destination declares.

use super::service_port_used::service;
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::PortMatch;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL030",
    name: "port-not-listened",
    level: Level::Note,
    what: "Finds ports that no destination declares.",
    why: "The destinations declare ports, and this is none of them. A container may listen on a port that it does not declare, so this may be right. Ports of Services and of the sidecars of meshes are left out.",
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

/// The ports of the sidecars that service meshes add to pods, which no manifest declares.
const OF_SIDECARS: [u16; 6] = [4143, 4191, 15_006, 15_008, 15_020, 15_090];

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.allowing() {
        for entry in rule.ports.iter().flatten() {
            let PortMatch::Numbers { protocol, first, last } = &entry.port else { continue };
            let within = |port: u16| (*first..=*last).contains(&port);
            let destinations = cx.destinations(policy, direction, rule);
            let all_declare = destinations.iter().all(|pod| !pod.ports.is_empty());
            let declared = destinations.iter().flat_map(|pod| pod.ports.iter());
            let mut declared = declared.filter(|port| port.protocol == *protocol);
            let fits = declared.any(|port| within(port.port)) || OF_SIDECARS.into_iter().any(within);
            // Of a Service's port, `service-port-used` says more.
            let of_service =
                || first == last && service(cx, policy, direction, rule, (*protocol, *first)).is_some();
            if !destinations.is_empty() && all_declare && !fits && !of_service() {
                let what = if first == last {
                    format!("port {first}")
                } else {
                    format!("a port from {first} to {last}")
                };
                let message = format!("no container of the destinations declares {what}/{protocol}");
                out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
            }
        }
    }
    out
}

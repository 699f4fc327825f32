//! `named-port-divergent`: finds port names that stand for different numbers.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::PortMatch;
use std::collections::BTreeSet;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL025",
    name: "named-port-divergent",
    level: Level::Note,
    what: "Finds port names that stand for different numbers.",
    why: "A port name is looked up in each destination. If pods use it for different numbers, the rule opens a different port on each, which may be intended.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Pod
metadata: {name: db-2, namespace: shop, labels: {app: db}}
spec:
  containers:
  - name: main
    image: example
    ports: [{containerPort: 9090, name: http}]
---
apiVersion: networking.k8s.io/v1
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
        for entry in rule.ports.iter().flatten() {
            let PortMatch::Named { name, protocol } = &entry.port else { continue };
            let destinations = cx.named_destinations(policy, direction, rule);
            let numbers = destinations.iter().flat_map(|pod| pod.named_ports(name, *protocol));
            let numbers: BTreeSet<u16> = numbers.map(|(_, port)| port).collect();
            if numbers.len() > 1 {
                let list: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                let message =
                    format!("port name \"{name}\" stands for {} in different pods", list.join(", "));
                out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
            }
        }
    }
    out
}

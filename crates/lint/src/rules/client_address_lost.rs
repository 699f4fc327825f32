//! `client-address-lost`: finds blocks of clients behind a Service that hides their addresses.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, Peer, Service};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL061",
    name: "client-address-lost",
    level: Level::Warning,
    what: "Finds blocks of clients behind a Service that hides their addresses.",
    why: "With externalTrafficPolicy: Cluster, a connection from outside may reach the pod with the address of a node, so a block of client addresses does not match it. externalTrafficPolicy: Local keeps the address.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.20
  selector: {app: db}
  ports: [{port: 80, targetPort: 8080}]
status: {loadBalancer: {ingress: [{ip: 203.0.113.9}]}}
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
    - ipBlock: {cidr: 198.51.100.0/24}
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  clusterIP: 10.96.0.20
  selector: {app: db}
  ports: [{port: 80, targetPort: 8080}]
status: {loadBalancer: {ingress: [{ip: 203.0.113.9}]}}
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
    - ipBlock: {cidr: 198.51.100.0/24}
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let hides = |service: &Service| {
        let access = &service.access;
        (access.exposed || !access.external_ips.is_empty()) && !access.external_local
    };
    let hidden = cx.behind(hides);
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.rules() {
        for entry in rule.peers.iter().flatten().filter(|_| direction == Direction::Ingress) {
            let Peer::Block(block) = &entry.peer else { continue };
            if block.cidr.prefix_len() == 0 {
                continue;
            }
            let hiding = hidden.iter().find(|(class, _)| cx.selects(policy, class));
            if let Some((_, service)) = hiding {
                let message = format!(
                    "Service {} has externalTrafficPolicy: Cluster, so clients in {} may arrive with the address of a node",
                    service.key, block.cidr
                );
                out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
            }
        }
    }
    out
}

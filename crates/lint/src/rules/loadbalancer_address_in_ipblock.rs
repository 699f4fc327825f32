//! `loadbalancer-address-in-ipblock`: finds addresses of load balancers in blocks.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, Peer};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL062",
    name: "loadbalancer-address-in-ipblock",
    level: Level::Warning,
    what: "Finds addresses of load balancers in blocks.",
    why: "Inside the cluster, a connection to the address of a load balancer or to an external IP is translated to a pod before policies see it, so a block with that address never matches.",
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
  policyTypes: [Egress]
  egress:
  - to:
    - ipBlock: {cidr: 203.0.113.9/32}
    ports:
    - port: 8080
      protocol: TCP
"#
);

const GOOD: &str = concat!(
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
  policyTypes: [Egress]
  egress:
  - to:
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
        for entry in rule.peers.iter().flatten().filter(|_| direction == Direction::Egress) {
            let Peer::Block(block) = &entry.peer else { continue };
            if block.cidr.prefix_len() != block.cidr.max_prefix_len() {
                continue;
            }
            let address = block.cidr.addr();
            let mut services = cx.loaded.cluster.services.values();
            let found = services.find(|service| {
                let mut own = service.access.addresses();
                own.any(|one| one == address)
            });
            if let Some(service) = found {
                let message = format!(
                    "{address} is the load balancer or external address of Service {}, which is translated before policies look: the peer never matches",
                    service.key
                );
                out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
            }
        }
    }
    out
}

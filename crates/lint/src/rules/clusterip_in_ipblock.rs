//! `clusterip-in-ipblock`: finds addresses of Services in blocks.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, Peer};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL028",
    name: "clusterip-in-ipblock",
    level: Level::Warning,
    what: "Finds addresses of Services in blocks.",
    why: "A connection to the cluster IP of a Service is translated to a pod before policies see it, so a block with that address never matches.",
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
  clusterIP: 10.96.0.20
  selector: {app: db}
  ports: [{port: 80, targetPort: 8080}]
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
    - ipBlock: {cidr: 10.96.0.20/32}
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
  clusterIP: 10.96.0.20
  selector: {app: db}
  ports: [{port: 80, targetPort: 8080}]
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
                let mut own = service.addresses.iter().copied();
                own.any(|one| one == address)
            });
            if let Some(service) = found {
                let message = format!(
                    "{address} is the cluster IP of Service {}, which is translated before policies look: the peer never matches",
                    service.key
                );
                out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
            }
        }
    }
    out
}

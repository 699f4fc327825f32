//! `clusterip-in-ipblock`: finds addresses of Services in blocks.

use crate::service_addresses::ServiceAddresses;
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
    let known = ServiceAddresses::new(cx, |service| service.addresses.clone());
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.rules() {
        for entry in rule.peers.iter().flatten().filter(|_| direction == Direction::Egress) {
            let Peer::Block(block) = &entry.peer else { continue };
            let Some((_, service)) = known.within(block) else { continue };
            let (cidr, key) = (block.cidr, &service.key);
            let message = if cidr.prefix_len() == cidr.max_prefix_len() {
                format!(
                    "{} is the cluster IP of Service {key}, which is translated before policies look: the peer never matches",
                    cidr.addr()
                )
            } else {
                format!(
                    "{cidr} has the cluster IP of Service {key} and no address of a pod or node that is known: cluster IPs are translated before policies look, so the peer doesn't match connections to Services"
                )
            };
            out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
        }
    }
    out
}

//! `metadata-endpoint-reachable`: finds egress rules that include the metadata service of clouds.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, Peer, PortMatch, Protocol};
use std::net::IpAddr;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL043",
    name: "metadata-endpoint-reachable",
    level: Level::Note,
    what: "Finds egress rules that include the metadata service of clouds.",
    why: "At 169.254.169.254 (and fd00:ec2::254) cloud providers serve the node's credentials to every client, pods included. A block with every address includes it, unless it is an exception.",
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
  policyTypes: [Egress]
  egress:
  - to:
    - ipBlock: {cidr: 0.0.0.0/0}
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
  policyTypes: [Egress]
  egress:
  - to:
    - ipBlock: {cidr: 0.0.0.0/0, except: [169.254.0.0/16]}
    ports:
    - port: 443
      protocol: TCP
"#
);

/// The addresses of the metadata services.
const METADATA: [&str; 2] = ["169.254.169.254", "fd00:ec2::254"];

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.rules() {
        let http = |port: &PortMatch| matches!(port, PortMatch::Numbers { protocol: Protocol::Tcp, first, last } if (*first..=*last).contains(&80));
        let on_port = rule.ports.as_ref().is_none_or(|ports| ports.iter().any(|entry| http(&entry.port)));
        if direction != Direction::Egress || !on_port {
            continue;
        }
        for entry in rule.peers.iter().flatten() {
            let Peer::Block(block) = &entry.peer else { continue };
            let mut addresses = METADATA.iter().filter_map(|address| address.parse::<IpAddr>().ok());
            // A block that is that address alone is meant.
            let single = block.cidr.prefix_len() == block.cidr.max_prefix_len();
            if let Some(address) = addresses.find(|address| !single && block.contains(*address)) {
                let message =
                    format!("{} includes the metadata service, {address}; add it to `except`", block.cidr);
                out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
            }
        }
    }
    out
}

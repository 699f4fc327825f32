//! `deny-by-exception-voided`: finds exceptions that another rule of the policy allows again.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{IpBlock, IpRange, Peer, PortMatch, Rule, address::without};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL059",
    name: "deny-by-exception-voided",
    level: Level::Warning,
    what: "Finds exceptions that another rule of the policy allows again.",
    why: "An exception takes addresses out of its own block. It denies nothing: another peer or rule that includes these addresses allows them.",
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
    - ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 169.254.0.0/16]}
    ports:
    - port: 443
      protocol: TCP
  - to:
    - ipBlock: {cidr: 10.0.0.0/8}
    ports:
    - port: 443
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
  policyTypes: [Egress]
  egress:
  - to:
    - ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 169.254.0.0/16]}
    ports:
    - port: 443
      protocol: TCP
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.rules() {
        for entry in rule.peers.iter().flatten() {
            let Peer::Block(block) = &entry.peer else { continue };
            for except in block.except.iter() {
                let rules = policy.rules(direction).unwrap_or_default();
                let voided =
                    rules.iter().any(|other| ports(other) == ports(rule) && allows(other, block, except));
                if voided {
                    let message = format!(
                        "{except} is excepted here, and another peer of the policy allows it on the same ports"
                    );
                    out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
                }
            }
        }
    }
    out
}

fn ports(rule: &Rule) -> Option<Vec<&PortMatch>> {
    Some(rule.ports.as_ref()?.iter().map(|entry| &entry.port).collect())
}

/// Whether another block of a rule contains all of an exception.
fn allows(rule: &Rule, block: &IpBlock, except: &ipnet::IpNet) -> bool {
    let whole = IpRange::of_net(except);
    rule.peers.iter().flatten().any(|entry| match &entry.peer {
        Peer::Block(other) => other != block && without(whole, other.ranges()).is_empty(),
        _ => false,
    })
}

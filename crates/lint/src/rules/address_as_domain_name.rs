//! `address-as-domain-name`: finds domain names that are IP addresses.

use std::net::IpAddr;

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::Peer;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL068",
    name: "address-as-domain-name",
    level: Level::Warning,
    what: "Finds IP addresses in domainNames.",
    why: "The API admits 1.2.3.4 as a domain name. But a domain name matches the addresses that DNS servers answered for it, and nobody asks a DNS server for an address: it never matches. Addresses belong in networks.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: vendor}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: shop}}}
  egress:
  - action: Accept
    to: [{domainNames: [198.51.100.7]}]
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: vendor}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: shop}}}
  egress:
  - action: Accept
    to: [{networks: [198.51.100.7/32]}]
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (policy, _, rule) in cx.rules() {
        for entry in rule.peers.iter().flatten() {
            let Peer::DomainName(pattern) = &entry.peer else { continue };
            let Ok(address) = pattern.name().parse::<IpAddr>() else { continue };
            let message = if pattern.is_wildcard() {
                format!("no name ends with the address {address}, so `{pattern}` never matches")
            } else {
                format!(
                    "the name {address} is never resolved, so it never matches; use networks: [{address}/32]"
                )
            };
            out.push(Found::of(&policy.key, entry.origin.as_ref().or(rule.origin.as_ref()), message));
        }
    }
    out
}

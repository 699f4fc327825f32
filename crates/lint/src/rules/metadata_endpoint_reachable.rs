//! `metadata-endpoint-reachable`: finds egress rules that include the metadata service of clouds.

use crate::{
    admits::{Other, allowed, ports},
    index::Profile,
};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, Peer, Policy, Protocol};
use std::{collections::HashSet, net::IpAddr, rc::Rc};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL043",
    name: "metadata-endpoint-reachable",
    level: Level::Warning,
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

/// The port of metadata services.
const HTTP: u16 = 80;

/// The addresses of the metadata services.
const METADATA: [&str; 2] = ["169.254.169.254", "fd00:ec2::254"];

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.allowing() {
        if direction != Direction::Egress || !ports(rule, None).contains(Protocol::Tcp, HTTP) {
            continue;
        }
        let addresses = || METADATA.iter().filter_map(|address| address.parse::<IpAddr>().ok());
        let mut reached = addresses().filter(|address| is_reached(cx, policy, *address));
        if rule.peers.is_none() {
            if let Some(address) = reached.next() {
                let message =
                    format!("the rule allows every destination, and so the metadata service, {address}");
                // `egress-anywhere` and `ports-in-own-rule` say more about most of these.
                let found = Found::of(&policy.key, rule.origin.as_ref(), message);
                out.push(found.at_level(Level::Note));
            }
            continue;
        }
        let reached: Vec<IpAddr> = reached.collect();
        for entry in rule.peers.iter().flatten() {
            let Peer::Block(block) = &entry.peer else { continue };
            // A block that is that address alone is meant.
            let single = block.cidr.prefix_len() == block.cidr.max_prefix_len();
            if let Some(address) = reached.iter().find(|address| !single && block.contains(**address)) {
                let message =
                    format!("{} includes the metadata service, {address}; add it to `except`", block.cidr);
                out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
            }
        }
    }
    out
}

/// Whether the policies of some pods that a policy selects allow this address: a cluster-wide policy may deny it. Without pods
/// in the input, nothing else is known, so the policy alone counts.
fn is_reached(cx: &Context<'_>, policy: &Policy, address: IpAddr) -> bool {
    let mut profiles = HashSet::new();
    let distinct = cx.selected(policy).map(|class| cx.profile(class));
    let mut distinct = distinct.filter(|profile| profiles.insert(Rc::as_ptr(profile))).peekable();
    let allows = |profile: &Profile| {
        allowed(cx, profile, Direction::Egress, Other::Address(Some(address)), None)
            .contains(Protocol::Tcp, HTTP)
    };
    distinct.peek().is_none() || distinct.any(|profile| allows(&profile))
}

//! `deny-by-exception-voided`: finds exceptions that another rule of the policy allows again.

use crate::cover::{PodCover, RuleCover};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use ipnet::IpNet;
use palisade_policy::{
    Direction, IpBlock, Name, NamespaceMatch, Peer, PeerEntry, PodMatch, Policy, Requirement, Rule, Selector,
    Test, Tier,
};
use std::{collections::HashMap, sync::Arc};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL059",
    name: "deny-by-exception-voided",
    level: Level::Warning,
    what: "Finds addresses and pods that a peer leaves out (by except, NotIn or DoesNotExist), and that another peer, rule or policy allows.",
    why: "An exception takes addresses out of its own block, and NotIn takes pods out of its own peer. Neither denies anything: another peer, rule or policy for the same pods that includes them allows them.",
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

/// How many rules of a namespace are looked at.
const MOST_RULES: usize = 2000;

/// A rule that may let in what another one leaves out.
struct Known<'a> {
    policy: &'a Policy,
    subject: PodCover,
    matches: RuleCover,
}

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut known: HashMap<(&Name, Direction), Vec<Known<'_>>> = HashMap::new();
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.rules().filter(|(policy, ..)| policy.tier == Tier::Developer) {
        for entry in rule.peers.iter().flatten() {
            for (what, peer) in left_out(&entry.peer) {
                let of_namespace = known
                    .entry((&policy.key.namespace, direction))
                    .or_insert_with(|| rules_of(cx, &policy.key.namespace, direction));
                let subject = PodCover::new(&policy.subject);
                let alone = Rule { peers: Some(vec![PeerEntry { peer, origin: None }]), ..rule.clone() };
                let alone = RuleCover::new(&alone);
                let admits =
                    |known: &&Known<'_>| subject.is_within(&known.subject) && alone.is_within(&known.matches);
                if let Some(other) = of_namespace.iter().find(admits) {
                    let other = if other.policy.key == policy.key {
                        "another peer of the policy".to_owned()
                    } else {
                        other.policy.key.to_string()
                    };
                    let message = format!("{what} is excepted here, and {other} allows it on the same ports");
                    out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
                }
            }
        }
    }
    out
}

fn rules_of<'a>(cx: &Context<'a>, namespace: &Name, direction: Direction) -> Vec<Known<'a>> {
    let own = |policy: &&Policy| policy.tier == Tier::Developer && policy.key.namespace == *namespace;
    let rules = cx.policies().filter(own).flat_map(|policy| {
        policy.rules(direction).unwrap_or_default().iter().map(move |rule| Known {
            policy,
            subject: PodCover::new(&policy.subject),
            matches: RuleCover::new(rule),
        })
    });
    rules.take(MOST_RULES).collect()
}

/// Returns what a peer leaves out, each as words and as a peer.
fn left_out(peer: &Peer) -> Vec<(String, Peer)> {
    match peer {
        Peer::Block(block) => {
            let alone = |net: &IpNet| Peer::Block(IpBlock { cidr: *net, except: Arc::from([]) });
            block.except.iter().map(|net| (net.to_string(), alone(net))).collect()
        }
        Peer::Pods(choice) => {
            let pods = inverted(&choice.pods)
                .into_iter()
                .map(|(what, pods)| (what, PodMatch { namespaces: choice.namespaces.clone(), pods }));
            let namespaces = match &choice.namespaces {
                NamespaceMatch::Selected(selector) => inverted(selector),
                NamespaceMatch::Named(_) => Vec::new(),
            };
            let namespaces = namespaces.into_iter().map(|(what, selector)| {
                let namespaces = NamespaceMatch::Selected(selector);
                (format!("namespaces {what}"), PodMatch { namespaces, pods: choice.pods.clone() })
            });
            pods.chain(namespaces).map(|(what, choice)| (what, Peer::Pods(choice))).collect()
        }
        Peer::Nodes(_) | Peer::DomainName(_) => Vec::new(),
    }
}

/// Returns a selector once for each of its requirements that takes something out: with what it takes out.
fn inverted(selector: &Selector) -> Vec<(String, Selector)> {
    let requirements = selector.requirements();
    let of_one = |(at, requirement): (usize, &Requirement)| {
        let test = match &requirement.test {
            Test::NotIn(values) => Test::In(values.clone()),
            Test::DoesNotExist => Test::Exists,
            Test::In(_) | Test::Exists => return None,
        };
        let inverse = Requirement { key: requirement.key.clone(), test };
        let mut all = requirements.to_vec();
        all[at] = inverse.clone();
        Some((inverse.to_string(), Selector::new(all)))
    };
    requirements.iter().enumerate().filter_map(of_one).collect()
}

//! What rules with `domainNames` would allow to a host, if its addresses had been learned.

use palisade_policy::{
    Cluster, Direction, DomainName, LearnedName, Peer, Policy, Reason, RuleRef, reference,
};

use super::{note::Note, question::QuestionFlow};
use crate::reasons::called;

/// Returns a note if rules would allow denied connections to `host` once its addresses are learned.
///
/// Nothing here knows what agents have learned, and by default they learn nothing, so the verdict doesn't depend on it.
pub(super) fn note<'a>(
    cluster: &Cluster,
    host: &str,
    denied: impl Iterator<Item = &'a QuestionFlow>,
) -> Option<Note> {
    let name = DomainName::new(host)?;
    if !cluster.policies.values().any(|policy| has_name(policy, &name)) {
        return None;
    }
    let denied: Vec<&QuestionFlow> = denied.collect();
    let addresses = denied.iter().map(|asked| asked.flow.destination.address()).collect();
    let learned = LearnedName { name: name.clone(), addresses };
    let resolved = Cluster { learned: [(name, learned)].into(), ..cluster.clone() };
    let rule = denied.iter().find_map(|asked| allowing_rule(&resolved, asked))?;
    let text = format!(
        "{}, egress[{}]{}, has {host} among its domainNames; agents that learn addresses (--domain-names=on) allow it \
         once the name is resolved; no address is known here, so the rule matches nothing",
        rule.policy,
        rule.index,
        called(&rule),
    );
    Some(Note::domain_names(text))
}

/// Returns whether a domain name of a policy matches a name.
fn has_name(policy: &Policy, name: &DomainName) -> bool {
    let rules = policy.rules(Direction::Egress).unwrap_or_default();
    let mut peers = rules.iter().filter_map(|rule| rule.peers.as_ref()).flatten();
    peers.any(|entry| matches!(&entry.peer, Peer::DomainName(pattern) if pattern.matches(name)))
}

/// Returns the rule that allows a flow.
fn allowing_rule(cluster: &Cluster, asked: &QuestionFlow) -> Option<RuleRef> {
    let side = reference::decide(cluster, &asked.flow).egress;
    match side.reason {
        Reason::Rule(rule) if side.verdict.is_allow() => Some(rule),
        _ => None,
    }
}

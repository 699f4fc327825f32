//! Hosts outside the cluster, and rules with `domainNames` that have them.
//!
//! Nothing here knows which addresses agents have learned, so a question about a host is answered as if every address
//! that it may have had been learned for its name: what the policies allow once the name is resolved.

use std::net::IpAddr;

use palisade_policy::{Cluster, Direction, DomainName, DomainPattern, Endpoint, LearnedName, Peer, Policy};

use super::{
    host::{Host, Known},
    note::Note,
    question::{Question, QuestionFlow},
};

/// Returns what agents would learn about the host of a question: its name with every address in question. `None` if the
/// question is about no host, or if no rule has its name.
pub(crate) fn learned(cluster: &Cluster, question: &Question) -> Option<LearnedName> {
    let host = question.host.as_ref()?;
    let name = DomainName::new(&host.name)?;
    if matches!(host.known, Known::Learned(_)) {
        return None;
    }
    if !has_rule(cluster, host) {
        return None;
    }
    let destinations = question.flows.iter().map(|asked| &asked.flow.destination);
    let outside = destinations.filter(|end| matches!(end, Endpoint::External(_)));
    let addresses = outside.map(Endpoint::address).filter(|address| host.is_learned(cluster, *address));
    Some(LearnedName { name, addresses: addresses.collect() })
}

/// Returns the patterns of the egress rules of a policy.
fn patterns(policy: &Policy) -> impl Iterator<Item = &DomainPattern> {
    let rules = policy.rules(Direction::Egress).unwrap_or_default();
    rules.iter().filter_map(|rule| rule.peers.as_ref()).flatten().filter_map(|entry| match &entry.peer {
        Peer::DomainName(pattern) => Some(pattern),
        _ => None,
    })
}

/// Returns what is known about the addresses of a question's host, and which of them agents don't learn, although a rule has its
/// name.
pub(crate) fn address_notes(cluster: &Cluster, question: &Question) -> Vec<Note> {
    let Some((host, addresses)) = question.host.as_ref().and_then(|host| Some((host, host.addresses()?)))
    else {
        return Vec::new();
    };
    let mut notes = vec![Note::host(host)];
    let others: Vec<IpAddr> =
        addresses.iter().copied().filter(|address| !host.is_learned(cluster, *address)).collect();
    if matches!(host.known, Known::Answered(_)) && !others.is_empty() && has_rule(cluster, host) {
        notes.push(Note::not_learned(&host.name, &others));
    }
    notes
}

/// Returns what has to be known about an answer that depends on a name, or about names that nearly match.
pub(super) fn notes<'a>(
    cluster: &Cluster,
    host: Option<&Host>,
    once_resolved: bool,
    denied: impl Iterator<Item = &'a QuestionFlow>,
) -> Vec<Note> {
    let denied: Vec<&QuestionFlow> = denied.collect();
    let of_rules = host.filter(|_| once_resolved).map(|host| resolved(&host.name));
    if let Some(host) = host.filter(|host| has_rule(cluster, host)) {
        let all = denied.iter().map(|asked| asked.flow.destination.address());
        let mut addresses: Vec<IpAddr> = all.filter(|address| !host.is_learned(cluster, *address)).collect();
        addresses.sort();
        addresses.dedup();
        if !addresses.is_empty() {
            return of_rules.into_iter().chain([Note::not_learned(&host.name, &addresses)]).collect();
        }
    }
    let name = host.map(|host| &*host.name);
    let near = || {
        let all = denied.iter().copied();
        all.filter_map(|asked| near_miss(cluster, name, asked)).min()
    };
    of_rules.or_else(|| near().map(Note::domain_names)).into_iter().collect()
}

/// Returns whether a rule has the name of a host.
pub(crate) fn has_rule(cluster: &Cluster, host: &Host) -> bool {
    let Some(name) = DomainName::new(&host.name) else { return false };
    cluster.policies.values().any(|policy| patterns(policy).any(|pattern| pattern.matches(&name)))
}

fn resolved(host: &str) -> Note {
    Note::domain_names(format!(
        "the rule matches the addresses that DNS servers answered for {host}; agents learn them only with \
         --domain-names=on, and without it the connection is denied"
    ))
}

/// Describes a domain name of the rules for a pod that is near the destination of a denied connection, and doesn't match.
fn near_miss(cluster: &Cluster, host: Option<&str>, asked: &QuestionFlow) -> Option<String> {
    let (source, to) = (&asked.flow.source, &asked.flow.destination);
    let is_one = host.is_none() && asked.region.is_none() && matches!(to, Endpoint::External(_));
    let Endpoint::Pod { key, .. } = source else { return None };
    if host.is_none() && !is_one {
        return None;
    }
    let pod = cluster.pods.get(key)?;
    let namespace = cluster.namespaces.get(&key.namespace).map(|n| &n.labels);
    let selects = |policy: &Policy| policy.subject.matches(&key.namespace, namespace, &pod.labels);
    let name = host.and_then(DomainName::new);
    let address = is_one.then(|| to.address().to_string());
    let describe = |policy: &Policy, pattern: &DomainPattern| {
        let what = match (&name, &address) {
            (Some(name), _) => why_not(pattern, name)?,
            (None, Some(address)) if !pattern.is_wildcard() && **pattern.name() == **address => {
                format!("the domain name {address} doesn't match the address {address}; use networks")
            }
            _ => return None,
        };
        Some(format!("{}: {what}", policy.key))
    };
    let all = cluster.policies.values().map(|policy| &**policy).filter(|policy| selects(policy));
    all.flat_map(|policy| patterns(policy).filter_map(|pattern| describe(policy, pattern)).min()).min()
}

/// Says why a pattern doesn't allow a name that it matches, or that is directly above or somewhere below its own.
fn why_not(pattern: &DomainPattern, name: &DomainName) -> Option<String> {
    let own = pattern.name();
    if pattern.matches(name) {
        return Some(format!(
            "{pattern} matches {name}; its rule is for other ports, or a rule before it decides"
        ));
    }
    if pattern.is_wildcard() {
        return (**own == *name.as_str())
            .then(|| format!("{pattern} matches names below {own}, not {own} itself"));
    }
    let below = name.as_str().strip_suffix(&**own)?.ends_with('.');
    below.then(|| format!("{pattern} matches that name alone; names below it need *.{own}"))
}

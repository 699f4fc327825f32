//! Decides the flows of a question and groups those with the same decision.

use std::collections::{BTreeMap, BTreeSet};

use palisade_analysis::{Judge, Judgement};
use palisade_policy::{Cluster, Endpoint, Family, PortSet, Protocol, Traffic};

use serde::Serialize;

use super::{
    domain_names,
    note::Note,
    notes::{self, Decided, Facts},
    question::{Question, QuestionFlow},
};
use crate::{
    audited::{AuditQuestion, Audited},
    verdict::Conclusion,
};

/// The answer to a question.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The source in full spelling.
    pub(crate) source: String,
    /// The destination in full spelling.
    pub(crate) destination: String,
    /// Allowed only if every flow is.
    pub(crate) verdict: Conclusion,
    /// Whether it is allowed by a domain name only, once that is resolved.
    pub(crate) once_resolved: bool,
    /// What could not be decided, and why.
    pub(crate) undecided: Vec<Undecided>,
    /// What the verdicts vary by. Empty if all flows have the same verdict.
    pub(crate) differs: Vec<VariesBy>,
    /// The flows, grouped by decision.
    pub(crate) groups: Vec<DecidedFlows>,
    /// Whether policies distinguish parts of the internet in question.
    pub(crate) parts: bool,
    /// The spelling of the end outside the cluster that is more than one address.
    pub(crate) outside: Option<String>,
    /// Where a real cluster may differ, and how the ends were found.
    pub(crate) notes: Vec<Note>,
    /// What policies in audit mode would deny of it.
    pub(crate) audited: Option<Audited>,
    /// What to look at next, the most important one first.
    pub(crate) hints: Vec<Note>,
}

/// What could not be decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Undecided {
    /// A word for programs.
    pub(crate) code: &'static str,
    /// The reason, and what would decide it.
    pub(crate) text: String,
}

/// Flows with the same decision.
#[derive(Debug)]
pub(crate) struct DecidedFlows {
    /// The destination ports, sorted. Each has the same flows.
    pub(crate) calls: Vec<DestinationPort>,
    /// What can be said about each of them.
    pub(crate) judgement: Judgement,
    /// Whether they are allowed by a domain name only, once that is resolved.
    pub(crate) once_resolved: bool,
    /// The flows to the first port; those to the others have the same ends.
    pub(crate) asked: Vec<QuestionFlow>,
}

/// The destination port of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DestinationPort {
    /// The protocol. [`Protocol::Other`] is ICMP in both IP families.
    pub(crate) protocol: Protocol,
    /// The port of the service, if one was given.
    pub(crate) service_port: Option<u16>,
    /// The port of the pod.
    pub(crate) port: u16,
}

impl Undecided {
    /// What is unknown about an end whose nodes policies treat differently.
    pub(crate) fn of_node(name: &str) -> Self {
        let text = format!(
            "depends on the node of {name}, which the input does not say; set `spec.nodeName`, or ask about `node/NAME`"
        );
        Self { code: "node", text }
    }
}

impl DestinationPort {
    fn of(asked: &QuestionFlow) -> Self {
        // ICMP and ICMPv6 count as the same.
        let protocol =
            if asked.flow.protocol == Protocol::Other(58) { Protocol::Other(1) } else { asked.flow.protocol };
        Self { protocol, service_port: asked.service_port, port: asked.flow.port }
    }
}

impl DecidedFlows {
    /// Returns the verdict.
    pub(crate) fn verdict(&self) -> Conclusion {
        Conclusion::of(self.judgement.verdict())
    }

    /// Returns the IP families of the flows.
    pub(crate) fn families(&self) -> BTreeSet<Family> {
        self.asked.iter().map(QuestionFlow::family).collect()
    }

    fn ends(&self) -> Vec<(&Endpoint, &Endpoint)> {
        self.asked.iter().map(|a| (&a.flow.source, &a.flow.destination)).collect()
    }
}

/// What verdicts vary by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VariesBy {
    /// The IP family.
    Family,
    /// The port.
    Port,
    /// The pod of a workload or the backend of a service.
    Pod,
    /// The part of the internet, or the address of a node that has several.
    Region,
}

impl VariesBy {
    /// Returns the word for it, which is in the JSON too.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Family => "family",
            Self::Port => "port",
            Self::Pod => "pod",
            Self::Region => "address",
        }
    }
}

/// Decides every flow of a question.
pub(crate) fn answer(cluster: &Cluster, question: Question) -> Answer {
    let learned = domain_names::learned(cluster, &question);
    let resolved = learned.map(|learned| {
        let mut resolved = cluster.clone();
        resolved.learned.insert(learned.name.clone(), learned);
        resolved
    });
    let audited = audited(resolved.as_ref().unwrap_or(cluster), &question.flows);
    let decided = decide(cluster, resolved.as_ref(), question.flows);
    let facts: Vec<Decided<'_>> = decided
        .iter()
        .map(|DecidedFlow { asked, judgement: Judgement { egress, ingress }, .. }| Decided {
            asked,
            egress: &egress.side,
            ingress: &ingress.side,
        })
        .collect();
    let mut notes = question.notes;
    let audit = |audited: &Audited| Note { code: "audit", text: audited.text() };
    notes.extend(audited.as_ref().map(audit));
    notes.extend(notes::of(&Facts { cluster, access: question.access.as_ref(), decided: &facts }));
    let once_resolved = decided.iter().any(|flow| flow.once_resolved);
    let denied = facts.iter().filter(|decided| !decided.egress.verdict.is_allow());
    let denied = denied.map(|decided| decided.asked);
    notes.extend(domain_names::notes(cluster, question.host.as_ref(), once_resolved, denied));
    let verdict = Conclusion::of_all(decided.iter().map(DecidedFlow::verdict));
    let differs = differences(&decided);
    // Which of a host's addresses is meant is not known, so the answer must be the same for all.
    let host = question.host.filter(|_| differs.contains(&VariesBy::Region));
    let host = host.filter(|host| host.addresses().is_none());
    let any_node = question.any_node.deciding(decided.iter().map(|flow| {
        let rest = (DestinationPort::of(&flow.asked), flow.asked.region.as_ref().map(|region| region.sample));
        (&flow.asked.alike, rest, flow.verdict())
    }));
    let undecided: Vec<Undecided> =
        host.iter().map(|host| of_host(&host.name)).chain(any_node.map(Undecided::of_node)).collect();
    Answer {
        source: question.source,
        destination: question.destination,
        verdict: if undecided.is_empty() { verdict } else { Conclusion::Undecided },
        once_resolved: once_resolved && verdict == Conclusion::Allowed,
        undecided,
        differs,
        parts: parts(&decided),
        groups: groups(decided),
        outside: question.outside,
        notes,
        audited,
        hints: Vec::new(),
    }
}

/// A flow with what can be said about it.
struct DecidedFlow {
    asked: QuestionFlow,
    judgement: Judgement,
    /// Whether it is allowed only in the cluster where its destination is resolved.
    once_resolved: bool,
}

impl DecidedFlow {
    fn verdict(&self) -> Conclusion {
        Conclusion::of(self.judgement.verdict())
    }
}

/// Decides flows in the cluster where the name of their destination is resolved, if a rule has it.
fn decide(cluster: &Cluster, resolved: Option<&Cluster>, flows: Vec<QuestionFlow>) -> Vec<DecidedFlow> {
    let judge = Judge::new(resolved.unwrap_or(cluster));
    let before = resolved.map(|_| Judge::new(cluster));
    let is_allowed = |judgement: &Judgement| Conclusion::of(judgement.verdict()) == Conclusion::Allowed;
    let decide = |asked: QuestionFlow| {
        let judgement = judge.decide(&asked.flow);
        let denied_before = before.as_ref().is_some_and(|judge| !is_allowed(&judge.decide(&asked.flow)));
        DecidedFlow { once_resolved: denied_before && is_allowed(&judgement), asked, judgement }
    };
    flows.into_iter().map(decide).collect()
}

/// Returns what policies in audit mode would deny of these flows.
fn audited(cluster: &Cluster, flows: &[QuestionFlow]) -> Option<Audited> {
    let mut audit = AuditQuestion::new(cluster);
    for QuestionFlow { flow, .. } in flows {
        let traffic = Traffic::of(flow.protocol, PortSet::range(flow.port, flow.port));
        audit.add(&flow.source, &flow.destination, flow.through_service, &traffic);
    }
    audit.finish()
}

/// What is unknown about a host of which policies treat some addresses differently.
fn of_host(host: &str) -> Undecided {
    let text = format!(
        "depends on the addresses of {host}, which policies treat differently; give the address or range that it has, or --resolve"
    );
    Undecided { code: "host-addresses", text }
}

fn groups(decided: Vec<DecidedFlow>) -> Vec<DecidedFlows> {
    let mut by_call: Vec<DecidedFlows> = Vec::new();
    for DecidedFlow { asked, judgement, once_resolved } in decided {
        let call = DestinationPort::of(&asked);
        match by_call.iter_mut().find(|g| g.calls == [call] && g.judgement == judgement) {
            Some(group) => group.asked.push(asked),
            None => {
                by_call.push(DecidedFlows {
                    calls: vec![call],
                    judgement,
                    once_resolved,
                    asked: vec![asked],
                });
            }
        }
    }
    let mut out: Vec<DecidedFlows> = Vec::new();
    for mut group in by_call {
        match out.iter_mut().find(|g| g.judgement == group.judgement && g.ends() == group.ends()) {
            Some(same) => same.calls.append(&mut group.calls),
            None => out.push(group),
        }
    }
    for group in &mut out {
        group.calls.sort();
    }
    // Denied flows come first, then undecided ones, then sorted by port.
    out.sort_by(|a, b| (a.verdict(), &a.calls).cmp(&(b.verdict(), &b.calls)));
    out
}

/// Whether an IP family has more than one part of the internet.
fn parts(decided: &[DecidedFlow]) -> bool {
    let regions = decided.iter().filter_map(|flow| Some((&flow.asked, flow.asked.region.as_ref()?)));
    let samples: BTreeSet<_> = regions.map(|(a, r)| (a.family(), r.sample)).collect();
    samples.len() > samples.iter().map(|s| s.0).collect::<BTreeSet<_>>().len()
}

fn differences(decided: &[DecidedFlow]) -> Vec<VariesBy> {
    let all: BTreeSet<Conclusion> = decided.iter().map(DecidedFlow::verdict).collect();
    if all.len() < 2 {
        return Vec::new();
    }
    let mut out = Vec::new();
    let mut test = |what, differ: bool| {
        if differ {
            out.push(what);
        }
    };
    test(VariesBy::Family, differ_by(decided, |a| a.family()));
    test(VariesBy::Port, differ_by(decided, DestinationPort::of));
    test(
        VariesBy::Pod,
        differ_by(decided, |a| (endpoint_name(&a.flow.source), endpoint_name(&a.flow.destination))),
    );
    let region = |a: &QuestionFlow| a.region.as_ref().map(|r| (a.family(), r.sample));
    test(VariesBy::Region, differ_by(decided, region) || differ_by_node_address(decided));
    out
}

/// Whether verdicts vary by which address of a node is meant: by nothing else that was asked about.
fn differ_by_node_address(decided: &[DecidedFlow]) -> bool {
    let mut verdicts: BTreeMap<_, BTreeSet<Conclusion>> = BTreeMap::new();
    for flow in decided {
        let asked = &flow.asked;
        let ends = (endpoint_name(&asked.flow.source), endpoint_name(&asked.flow.destination));
        let region = asked.region.as_ref().map(|r| r.sample);
        let key = (ends, DestinationPort::of(asked), asked.family(), region);
        verdicts.entry(key).or_default().insert(flow.verdict());
    }
    verdicts.values().any(|verdicts| verdicts.len() > 1)
}

/// Whether the verdicts vary by a property.
fn differ_by<K: Ord>(decided: &[DecidedFlow], property: impl Fn(&QuestionFlow) -> K) -> bool {
    let mut verdicts: BTreeMap<K, BTreeSet<Conclusion>> = BTreeMap::new();
    for flow in decided {
        verdicts.entry(property(&flow.asked)).or_default().insert(flow.verdict());
    }
    let mut sets = verdicts.values();
    let first = sets.next();
    sets.any(|s| Some(s) != first)
}

/// Returns the name of an endpoint without its address. Empty for external addresses.
pub(crate) fn endpoint_name(end: &Endpoint) -> String {
    match end {
        Endpoint::Pod { key, .. } => key.to_string(),
        Endpoint::Node { name, .. } => format!("node/{name}"),
        Endpoint::External(_) => String::new(),
    }
}

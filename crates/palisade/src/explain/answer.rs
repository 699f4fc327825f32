//! Resolves two specs to pairs of endpoints and traffic, and groups pairs with the same explanation.

use std::collections::BTreeMap;

use anyhow::Result;
use palisade_analysis::causes::Finding;
use palisade_analysis::edit::{self, Question};
use palisade_analysis::regions::Region;
use palisade_analysis::{Explanation, alike::Relation, explain};
use palisade_names::PortSpec;
use palisade_policy::{Cluster, Endpoint, Family, LearnedName, PortSet, Protocol, Traffic};

use super::suggestion::Suggestion;
use crate::{
    audited::{AuditQuestion, Audited},
    can::{
        ProtocolSpec, QuestionFlow, Spec, alike::AlikeEnds, answer::Undecided, domain_names, ends,
        note::Note, question,
    },
    verdict::Conclusion,
};

/// The explanation of a question.
pub(crate) struct Answer {
    /// The source in full spelling.
    pub(crate) source: String,
    /// The destination in full spelling.
    pub(crate) destination: String,
    /// The pairs, grouped by explanation.
    pub(crate) groups: Vec<ExplainedPairs>,
    /// Whether every port was asked about.
    pub(crate) every_port: bool,
    /// What policies in audit mode would deny of it.
    pub(crate) audited: Option<Audited>,
    /// The host outside the cluster that rules have by name: the answer is for when it is resolved.
    pub(crate) resolved: Option<String>,
    /// What the resolver answered for the host.
    pub(crate) notes: Vec<Note>,
    /// What the verdicts depend on, if an end may be on any node and policies treat these differently.
    pub(crate) undecided: Option<Undecided>,
    /// Likely mistakes, the clearest first.
    pub(crate) causes: Vec<Finding>,
    /// What is to be allowed or denied: the question, or of every port those that the destination declares.
    pub(crate) wanted: Question,
    /// Edits that give the requested verdict: alternatives, the best first.
    pub(crate) suggestions: Vec<Suggestion>,
}

/// Pairs of endpoints with the same explanation.
pub(crate) struct ExplainedPairs {
    /// The explanation of the first pair.
    pub(crate) explanation: Explanation,
    /// The pairs: the first ones of each class that no policy distinguishes.
    pub(crate) pairs: Vec<Pair>,
    /// All pairs, by class.
    classes: Vec<PairClass>,
    /// The number of pairs in each family.
    counts: BTreeMap<Family, usize>,
    /// The traffic in question.
    pub(crate) traffic: Traffic,
}

/// Pairs that no policy distinguishes.
struct PairClass {
    ends: AlikeEnds,
    through_service: bool,
    region: Option<Region>,
}

/// A source and a destination.
pub(crate) struct Pair {
    pub(crate) source: Endpoint,
    pub(crate) destination: Endpoint,
    /// The part of the internet that one of them represents.
    pub(crate) region: Option<Region>,
}

impl Answer {
    /// Returns the verdict for all traffic in question.
    pub(crate) fn conclusion(&self) -> Conclusion {
        let undecided = self.undecided.as_ref().map(|_| Conclusion::Undecided);
        Conclusion::of_all(self.groups.iter().map(ExplainedPairs::conclusion).chain(undecided))
    }

    /// Returns the question, for the search of causes and edits. Of every port, only those are to be allowed that a
    /// destination declares; all are to be denied.
    pub(crate) fn question(&self, cluster: &Cluster, to_deny: bool) -> Question {
        let declared = |pair: &edit::Pair| {
            let Endpoint::Pod { key, .. } = &pair.destination else { return Traffic::none() };
            let ports = cluster.pods.get(key).map(|pod| &*pod.ports).unwrap_or_default();
            let each = ports.iter().map(|p| Traffic::of(p.protocol, PortSet::range(p.port, p.port)));
            each.fold(Traffic::none(), |sum, port| sum.union(&port))
        };
        let of_group = |group: &ExplainedPairs| {
            let pairs = group.classes.iter().flat_map(|class| class.pairs(cluster, &group.traffic));
            pairs.take(MAX_WANTED + 1).collect::<Vec<_>>()
        };
        let mut pairs: Vec<edit::Pair> = self.groups.iter().flat_map(of_group).collect();
        if self.every_port && !to_deny {
            pairs.iter_mut().for_each(|pair| pair.traffic = pair.traffic.intersection(&declared(pair)));
            pairs.retain(|pair| !pair.traffic.is_none());
        }
        if pairs.len() > MAX_WANTED { Question::default() } else { Question { pairs } }
    }
}

impl ExplainedPairs {
    fn new(explanation: Explanation, traffic: Traffic) -> Self {
        Self { explanation, pairs: Vec::new(), classes: Vec::new(), counts: BTreeMap::new(), traffic }
    }

    /// Returns the number of pairs, of which [`Self::pairs`] has the first ones. Both families of a pair count once.
    pub(crate) fn count(&self) -> usize {
        self.counts.values().copied().max().unwrap_or(0)
    }

    /// Returns the verdict for all traffic in question.
    pub(crate) fn conclusion(&self) -> Conclusion {
        let undecided = (!self.explanation.undecided.is_none()).then_some(Conclusion::Undecided);
        let parts = self.explanation.parts.iter().map(|part| Conclusion::of(Some(part.verdict)));
        Conclusion::of_all(parts.chain(undecided))
    }

    /// Returns the IP families of the pairs.
    pub(crate) fn families(&self) -> Vec<Family> {
        let has = |family| self.pairs.iter().any(|p| Family::of(p.destination.address()) == family);
        Family::BOTH.into_iter().filter(|family| has(*family)).collect()
    }

    /// Whether an explanation differs from this one only in its endpoints.
    fn explains(&self, other: &Explanation, asked: &Traffic) -> bool {
        let own = &self.explanation;
        let same = |a: &palisade_policy::walk::Walk, b: &palisade_policy::walk::Walk| {
            a.policies == b.policies && a.parts == b.parts
        };
        let undecided = (&own.undecided, &own.questions) == (&other.undecided, &other.questions);
        undecided
            && self.traffic == *asked
            && same(&own.egress, &other.egress)
            && same(&own.ingress, &other.ingress)
    }
}

/// The most pairs of workloads for which edits are searched.
const MAX_WANTED: usize = 1000;

impl PairClass {
    /// Returns a pair for each pair of workloads, which stands for all of their pods in the class.
    fn pairs(&self, cluster: &Cluster, traffic: &Traffic) -> Vec<edit::Pair> {
        let (sources, destinations) =
            (by_workload(cluster, &self.ends.sources), by_workload(cluster, &self.ends.destinations));
        let mut out = Vec::new();
        for sources in &sources {
            for destinations in &destinations {
                let related = |s: &Endpoint, d: &Endpoint| Relation::of(cluster, s, d) == self.ends.relation;
                let all = sources.iter().flat_map(|s| destinations.iter().map(move |d| (s, d)));
                let Some((source, destination)) = all.into_iter().find(|(s, d)| related(s, d)) else {
                    continue;
                };
                let pair = edit::Pair::new(
                    source.clone(),
                    destination.clone(),
                    self.through_service,
                    traffic.clone(),
                );
                let region = self.region.clone();
                let (ranges, asked_ranges) = region.map(|r| (r.ranges, r.asked)).unwrap_or_default();
                let (sources, destinations) = (sources.clone(), destinations.clone());
                out.push(edit::Pair { ranges, asked_ranges, sources, destinations, ..pair });
            }
        }
        out
    }
}

/// Divides endpoints by their workloads.
fn by_workload(cluster: &Cluster, ends: &[Endpoint]) -> Vec<Vec<Endpoint>> {
    let mut out: BTreeMap<_, Vec<Endpoint>> = BTreeMap::new();
    for end in ends {
        let workload = match end {
            Endpoint::Pod { key, .. } => {
                let workload = cluster.pods.get(key).and_then(|pod| pod.workload.clone());
                Some((key.namespace.clone(), workload.map_or_else(|| key.name.clone(), |w| w.name)))
            }
            Endpoint::Node { .. } | Endpoint::External(_) => None,
        };
        out.entry(workload).or_default().push(end.clone());
    }
    out.into_values().collect()
}

/// A resolved question.
pub(crate) struct Asked {
    question: question::Question,
    /// The traffic to every port, if no port was given.
    whole: Option<Traffic>,
    /// What agents would learn about its host, if rules have it by name.
    pub(crate) learned: Option<LearnedName>,
    notes: Vec<Note>,
}

/// Resolves a question between two specs.
///
/// # Errors
/// As [`question::resolve`].
pub(crate) fn resolve(
    cluster: &Cluster,
    source: &Spec,
    destination: &Spec,
    namespace: &str,
    lookup: Option<question::Lookup>,
) -> Result<Asked> {
    let icmp = destination.protocol == Some(ProtocolSpec::Icmp);
    let every_port =
        destination.port.is_none() && !icmp && !ends::is_service(cluster, destination, namespace);
    let mut spec = destination.clone();
    if every_port {
        // Any port resolves the endpoints; the traffic is set below.
        spec.port = Some(PortSpec::Number(1));
        spec.protocol = destination.protocol.or(Some(ProtocolSpec::WithPorts(Protocol::Tcp)));
    }
    let question = question::resolve(cluster, source, &spec, namespace, lookup)?;
    let whole = match destination.protocol {
        _ if !every_port => None,
        Some(ProtocolSpec::WithPorts(protocol)) => Some(Traffic::of(protocol, PortSet::all())),
        _ => Some(Traffic::all()),
    };
    let learned = domain_names::learned(cluster, &question);
    let mut notes = domain_names::address_notes(cluster, &question);
    notes.extend(question.notes.iter().filter(|note| note.code == "any-node").cloned());
    Ok(Asked { question, whole, learned, notes })
}

/// Explains the connections of a question in a cluster in which its host is resolved.
pub(crate) fn answer(cluster: &Cluster, asked: Asked) -> Answer {
    let Asked { question, whole, learned, notes } = asked;
    // A pair may occur with several ports.
    let mut pairs: BTreeMap<(Endpoint, Endpoint, bool), (Traffic, QuestionFlow)> = BTreeMap::new();
    for asked in question.flows {
        let flow = &asked.flow;
        let traffic =
            whole.clone().unwrap_or_else(|| Traffic::of(flow.protocol, PortSet::range(flow.port, flow.port)));
        let key = (flow.source.clone(), flow.destination.clone(), flow.through_service);
        let entry = pairs.entry(key).or_insert_with(|| (Traffic::none(), asked));
        entry.0 = entry.0.union(&traffic);
    }
    let mut groups: Vec<ExplainedPairs> = Vec::new();
    let mut audit = AuditQuestion::new(cluster);
    let mut verdicts = Vec::new();
    for ((source, destination, through_service), (asked, first)) in pairs {
        let explanation = explain(cluster, &source, &destination, through_service, &asked);
        audit.add(&source, &destination, through_service, &asked);
        // The first pair is the one that was explained. Pairs that no policy distinguishes are not listed in full.
        let (alike, family) = (first.alike, Family::of(destination.address()));
        let pair = |(source, destination)| Pair { source, destination, region: first.region.clone() };
        let group = match groups.iter_mut().find(|g| g.explains(&explanation, &asked)) {
            Some(group) => group,
            None => {
                groups.push(ExplainedPairs::new(explanation, asked));
                let last = groups.len() - 1;
                &mut groups[last]
            }
        };
        let rest = (group.traffic.clone(), first.region.as_ref().map(|region| region.sample));
        verdicts.push((alike.clone(), rest, group.conclusion()));
        group.pairs.extend(alike.samples.iter().cloned().map(pair));
        *group.counts.entry(family).or_default() += alike.pairs;
        group.classes.push(PairClass { ends: alike, through_service, region: first.region });
    }
    let of_pairs = verdicts.iter().map(|(ends, rest, verdict)| (ends, rest, *verdict));
    let undecided = question.any_node.deciding(of_pairs).map(Undecided::of_node);
    // Denied pairs come first, then undecided ones.
    groups.sort_by_key(ExplainedPairs::conclusion);
    Answer {
        source: question.source,
        destination: question.destination,
        groups,
        every_port: whole.is_some(),
        audited: audit.finish(),
        resolved: learned.map(|learned| learned.name.to_string()),
        notes,
        undecided,
        causes: Vec::new(),
        wanted: Question::default(),
        suggestions: Vec::new(),
    }
}

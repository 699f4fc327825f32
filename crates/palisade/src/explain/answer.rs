//! Resolves two specs to pairs of endpoints and traffic, and groups pairs with the same explanation.

use std::collections::BTreeMap;

use anyhow::Result;
use palisade_analysis::edit::{self, Question};
use palisade_analysis::regions::Region;
use palisade_analysis::{Explanation, explain};
use palisade_names::PortSpec;
use palisade_policy::{Cluster, Endpoint, Family, PortSet, Protocol, Traffic};

use super::suggestion::Suggestion;
use crate::can::{ProtocolSpec, QuestionFlow, Spec, ends, question};

/// The explanation of a question.
pub(crate) struct Answer {
    /// The source in full spelling.
    pub(crate) source: String,
    /// The destination in full spelling.
    pub(crate) destination: String,
    /// The pairs, grouped by explanation.
    pub(crate) groups: Vec<ExplainedPairs>,
    /// Whether every port was asked about, so that there is nothing to suggest.
    pub(crate) every_port: bool,
    /// Edits that give the requested verdict: alternatives, the best first.
    pub(crate) suggestions: Vec<Suggestion>,
}

/// Pairs of endpoints with the same explanation.
pub(crate) struct ExplainedPairs {
    /// The explanation of the first pair.
    pub(crate) explanation: Explanation,
    /// The pairs: the first ones of each class that no policy distinguishes.
    pub(crate) pairs: Vec<Pair>,
    /// The number of pairs in each family.
    counts: BTreeMap<Family, usize>,
    /// The traffic in question.
    pub(crate) traffic: Traffic,
}

/// A source and a destination.
pub(crate) struct Pair {
    pub(crate) source: Endpoint,
    pub(crate) destination: Endpoint,
    /// Whether the connection passes through a service.
    pub(crate) through_service: bool,
    /// The part of the internet that one of them represents.
    pub(crate) region: Option<Region>,
}

impl Answer {
    /// Whether all traffic in question is allowed.
    pub(crate) fn is_allowed(&self) -> bool {
        self.groups.iter().all(|group| group.is_allowed())
    }

    /// Returns the question, for the search of edits.
    pub(crate) fn question(&self) -> Question {
        let pairs = self.groups.iter().flat_map(|group| {
            group.pairs.iter().map(|pair| edit::Pair {
                source: pair.source.clone(),
                destination: pair.destination.clone(),
                through_service: pair.through_service,
                traffic: group.traffic.clone(),
                ranges: pair.region.as_ref().map(|r| r.ranges.clone()).unwrap_or_default(),
            })
        });
        Question { pairs: pairs.collect() }
    }
}

impl ExplainedPairs {
    fn new(explanation: Explanation, traffic: Traffic) -> Self {
        Self { explanation, pairs: Vec::new(), counts: BTreeMap::new(), traffic }
    }

    /// Returns the number of pairs, of which [`Self::pairs`] has the first ones. Both families of a pair count once.
    pub(crate) fn count(&self) -> usize {
        self.counts.values().copied().max().unwrap_or(0)
    }

    /// Whether all traffic in question is allowed.
    pub(crate) fn is_allowed(&self) -> bool {
        self.explanation.parts.iter().all(|part| part.verdict.is_allow())
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
        self.traffic == *asked && same(&own.egress, &other.egress) && same(&own.ingress, &other.ingress)
    }
}

/// Explains the connections between two specs.
pub(crate) fn answer(
    cluster: &Cluster,
    source: &Spec,
    destination: &Spec,
    namespace: &str,
) -> Result<Answer> {
    let icmp = destination.protocol == Some(ProtocolSpec::Icmp);
    let every_port =
        destination.port.is_none() && !icmp && !ends::is_service(cluster, destination, namespace);
    let mut spec = destination.clone();
    if every_port {
        // Any port resolves the endpoints; the traffic is set below.
        spec.port = Some(PortSpec::Number(1));
        spec.protocol = destination.protocol.or(Some(ProtocolSpec::WithPorts(Protocol::Tcp)));
    }
    let question = question::resolve(cluster, source, &spec, namespace)?;
    let whole = match destination.protocol {
        _ if !every_port => None,
        Some(ProtocolSpec::WithPorts(protocol)) => Some(Traffic::of(protocol, PortSet::all())),
        _ => Some(Traffic::all()),
    };
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
    for ((source, destination, through_service), (asked, first)) in pairs {
        let explanation = explain(cluster, &source, &destination, through_service, &asked);
        // The first pair is the one that was explained. Pairs that no policy distinguishes are not listed in full.
        let (alike, family) = (first.alike, Family::of(destination.address()));
        let pair = |(source, destination)| Pair {
            source,
            destination,
            through_service,
            region: first.region.clone(),
        };
        let group = match groups.iter_mut().find(|g| g.explains(&explanation, &asked)) {
            Some(group) => group,
            None => {
                groups.push(ExplainedPairs::new(explanation, asked));
                let last = groups.len() - 1;
                &mut groups[last]
            }
        };
        group.pairs.extend(alike.samples.into_iter().map(pair));
        *group.counts.entry(family).or_default() += alike.pairs;
    }
    // Denied pairs come first.
    groups.sort_by_key(ExplainedPairs::is_allowed);
    Ok(Answer {
        source: question.source,
        destination: question.destination,
        groups,
        every_port: whole.is_some(),
        suggestions: Vec::new(),
    })
}

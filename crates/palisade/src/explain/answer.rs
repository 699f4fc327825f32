//! From two specs to the pairs of ends and the traffic to explain, and pairs with one explanation put together.

use std::collections::BTreeMap;

use anyhow::Result;
use palisade_analysis::regions::Region;
use palisade_analysis::{Explanation, explain};
use palisade_names::{EndpointKind, PortSpec};
use palisade_policy::{Cluster, Endpoint, Family, Flow, PortSet, Protocol, Traffic};

use super::suggestion::Suggestion;
use crate::can::{EndpointSpec, ProtocolSpec, QuestionFlow, Spec, question};

/// The answer to a question.
pub(crate) struct Answer {
    /// The source in full spelling.
    pub(crate) source: String,
    /// The destination in full spelling.
    pub(crate) destination: String,
    /// The pairs that have the same explanation.
    pub(crate) groups: Vec<ExplainedPairs>,
}

/// Pairs of ends with one explanation.
pub(crate) struct ExplainedPairs {
    /// That of the first pair.
    pub(crate) explanation: Explanation,
    /// The pairs.
    pub(crate) pairs: Vec<Pair>,
    /// What was asked about.
    pub(crate) traffic: Traffic,
    /// The connection of the first pair for which edits are looked for; none if no single port was asked about.
    pub(crate) flow: Option<Flow>,
    /// What to edit: all of it together.
    pub(crate) suggestions: Vec<Suggestion>,
    /// Whether that has the wanted effect for every pair; else for [`Self::flow`].
    pub(crate) suggestions_hold_for_all: bool,
    /// Whether what is suggested for the groups before has the wanted effect here too.
    pub(crate) suggestions_before_do: bool,
}

/// Two ends.
pub(crate) struct Pair {
    pub(crate) source: Endpoint,
    pub(crate) destination: Endpoint,
    /// The part of the internet for which one of them stands.
    pub(crate) region: Option<Region>,
}

impl Answer {
    /// Whether everything that was asked about is allowed.
    pub(crate) fn is_allowed(&self) -> bool {
        self.groups.iter().all(|group| group.is_allowed())
    }
}

impl ExplainedPairs {
    fn new(explanation: Explanation, pair: Pair, traffic: Traffic, flow: Option<Flow>) -> Self {
        Self {
            explanation,
            pairs: vec![pair],
            traffic,
            flow,
            suggestions: Vec::new(),
            suggestions_hold_for_all: false,
            suggestions_before_do: false,
        }
    }

    /// Whether all of it is allowed.
    pub(crate) fn is_allowed(&self) -> bool {
        self.explanation.parts.iter().all(|part| part.verdict.is_allow())
    }

    /// The families of its pairs.
    pub(crate) fn families(&self) -> Vec<Family> {
        let has = |family| self.pairs.iter().any(|p| Family::of(p.destination.address()) == family);
        Family::BOTH.into_iter().filter(|family| has(*family)).collect()
    }

    /// Whether two explanations are the same but for whom they are about.
    fn explains(&self, other: &Explanation, asked: &Traffic) -> bool {
        let own = &self.explanation;
        let same = |a: &palisade_policy::walk::Walk, b: &palisade_policy::walk::Walk| {
            a.policies == b.policies && a.parts == b.parts
        };
        self.traffic == *asked && same(&own.egress, &other.egress) && same(&own.ingress, &other.ingress)
    }
}

/// Explains what two specs mean.
pub(crate) fn answer(
    cluster: &Cluster,
    source: &Spec,
    destination: &Spec,
    namespace: &str,
) -> Result<Answer> {
    let icmp = destination.protocol == Some(ProtocolSpec::Icmp);
    let every_port = destination.port.is_none() && !icmp && !is_service(cluster, &destination.who);
    let mut spec = destination.clone();
    if every_port {
        // Any port finds the ends; all are asked about.
        spec.port = Some(PortSpec::Number(1));
        spec.protocol = destination.protocol.or(Some(ProtocolSpec::WithPorts(Protocol::Tcp)));
    }
    let question = question::resolve(cluster, source, &spec, namespace)?;
    let whole = match destination.protocol {
        _ if !every_port => None,
        Some(ProtocolSpec::WithPorts(protocol)) => Some(Traffic::of(protocol, PortSet::all())),
        _ => Some(Traffic::all()),
    };
    // A pair may be asked about on several ports.
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
        let pair = Pair { source, destination, region: first.region };
        match groups.iter_mut().find(|g| g.explains(&explanation, &asked)) {
            Some(group) => group.pairs.push(pair),
            None => {
                // Edits are for one connection: with every port asked about there is none.
                let flow = whole.is_none().then_some(first.flow);
                groups.push(ExplainedPairs::new(explanation, pair, asked, flow));
            }
        }
    }
    // What is denied is what the user came for.
    groups.sort_by_key(ExplainedPairs::is_allowed);
    Ok(Answer { source: question.source, destination: question.destination, groups })
}

fn is_service(cluster: &Cluster, who: &EndpointSpec) -> bool {
    match who {
        EndpointSpec::Named { kind, .. } => *kind == Some(EndpointKind::Service),
        EndpointSpec::Address(address) => palisade_names::service_at(cluster, *address).is_some(),
        EndpointSpec::Internet => false,
    }
}

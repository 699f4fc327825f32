//! Recorded connections, judged by the policies of a cluster.
//!
//! A record is older than the cluster: pods may be gone, and manifests have pods under other names. Each recorded end is
//! therefore placed in the cluster by the first of these that is known: the pod of that name, another pod of
//! its workload, the labels in the record, the address. What none of them decides is reported, and never guessed.

mod ends;
mod place;
mod placed;
mod record;
mod services;

use std::collections::BTreeSet;

use palisade_policy::{
    Cluster, ContainerPort, Decision, Direction, Endpoint, Flow, Name, ObjectKey, PortMatch, Protocol,
    Reason, Side, Verdict, Workload, reference,
};

pub use placed::{PlacedFlow, PlacedRecording, place_all};
pub use record::{NotJudged, RecordedEnd, RecordedFlow, RecordedOwner, RecordedPod};

use crate::judge::{Judge, possible};
use ends::PlacedEnds;
use place::{Placed, Stage};

/// The verdict about a recorded connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgedFlow {
    /// The decision.
    pub decision: Decision,
    /// The ends, as they were judged. A pod that is gone has its recorded name, with `#` and a number if other records of it
    /// have other labels.
    pub ends: [JudgedEnd; 2],
}

/// An end as it was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgedEnd {
    /// The end.
    pub endpoint: Endpoint,
    /// The workload of a pod.
    pub workload: Option<Workload>,
    /// Whether the pod is gone, and so is its workload: it was judged by the labels in the record.
    pub by_recorded_labels: bool,
}

/// Judges recorded connections by the policies of a cluster, in order. `O(flows × (pods + policies × rules))`; ends that
/// recur are placed once.
#[must_use]
pub fn judge(cluster: &Cluster, flows: &[RecordedFlow]) -> Vec<Result<JudgedFlow, NotJudged>> {
    let mut judge = FlowJudge { port_names: port_names(cluster), stage: Stage::new(cluster) };
    flows.iter().map(|flow| judge.judge(flow)).collect()
}

/// The most names of ports that are tried for a pod whose ports are not known.
const MAX_PORT_NAMES: usize = 32;

/// Returns the names of ports in rules.
fn port_names(cluster: &Cluster) -> BTreeSet<Name> {
    let policies = cluster.policies.values();
    let rules = policies
        .flat_map(|p| Direction::BOTH.into_iter().filter_map(move |direction| p.rules(direction)))
        .flatten();
    let ports = rules.filter_map(|rule| rule.ports.as_ref()).flatten();
    ports
        .filter_map(|entry| match &entry.port {
            PortMatch::Named { name, .. } => Some(name.clone()),
            PortMatch::Numbers { .. } => None,
        })
        .collect()
}

struct FlowJudge<'c> {
    stage: Stage<'c>,
    port_names: BTreeSet<Name>,
}

impl FlowJudge<'_> {
    fn judge(&mut self, flow: &RecordedFlow) -> Result<JudgedFlow, NotJudged> {
        match self.stage.ends(flow)? {
            PlacedEnds::OwnNode { source, destination } => Ok(self.of_own_node(source, destination)),
            PlacedEnds::Direct { source, destination } => {
                self.decide(source, destination, flow.protocol, flow.port, false)
            }
            PlacedEnds::Behind { service, source, backends } => {
                self.through(&service.key, &source, &backends, flow.protocol)
            }
            PlacedEnds::HostPort { source, pods } => {
                // The pods of one port are those of one node: usually one.
                let name = match pods.first() {
                    Some((Endpoint::Pod { key, .. }, _)) => key.clone(),
                    _ => ObjectKey::new("", ""),
                };
                self.through(&name, &source, &pods, flow.protocol)
            }
        }
    }

    /// Connections of a pod's own node are always allowed (SEMANTICS A39). Manifests seldom say on which node a pod is.
    fn of_own_node(&self, source: Placed, destination: Placed) -> JudgedFlow {
        let allow = |reason| Side { verdict: Verdict::Allow, reason, passed: Vec::new() };
        let decision = Decision { egress: allow(Reason::NoSubject), ingress: allow(Reason::OwnNode) };
        JudgedFlow { decision, ends: [self.judged(source), self.judged(destination)] }
    }

    /// Judges a connection to each pod behind a service, or a port of a node. `name`: what errors name.
    fn through(
        &mut self,
        name: &ObjectKey,
        source: &Placed,
        backends: &[(Endpoint, u16)],
        protocol: Protocol,
    ) -> Result<JudgedFlow, NotJudged> {
        let mut verdict: Option<JudgedFlow> = None;
        for (endpoint, port) in backends {
            let judged = match possible(&self.stage.cluster, endpoint) {
                None => self.decide(source.clone(), endpoint.clone().into(), protocol, *port, true)?,
                Some(_) => self
                    .at_any_address(source.clone(), endpoint.clone().into(), protocol, *port)
                    .ok_or_else(|| NotJudged::BackendAddresses(name.clone()))?,
            };
            match &verdict {
                Some(other) if other.decision.verdict() != judged.decision.verdict() => {
                    return Err(NotJudged::BackendsDiffer(name.clone()));
                }
                Some(_) => {}
                None => verdict = Some(judged),
            }
        }
        verdict.ok_or_else(|| NotJudged::NoBackend(name.clone()))
    }

    fn decide(
        &mut self,
        source: Placed,
        destination: Placed,
        protocol: Protocol,
        port: u16,
        through_service: bool,
    ) -> Result<JudgedFlow, NotJudged> {
        let flow = ends::flow(&source.endpoint, &destination.endpoint, protocol, port, through_service);
        let decision = match (&destination.endpoint, destination.ports_unknown) {
            (Endpoint::Pod { key, .. }, true) if !self.port_names.is_empty() => {
                self.whatever_the_names(&flow, key).ok_or_else(|| NotJudged::PortName(key.clone()))?
            }
            _ => reference::decide(&self.stage.cluster, &flow),
        };
        Ok(JudgedFlow { decision, ends: [self.judged(source), self.judged(destination)] })
    }

    /// Decides a connection through a service to an end whose address is not known: `None` if the verdict depends on it.
    fn at_any_address(
        &self,
        source: Placed,
        destination: Placed,
        protocol: Protocol,
        port: u16,
    ) -> Option<JudgedFlow> {
        let flow = ends::flow(&source.endpoint, &destination.endpoint, protocol, port, true);
        let judgement = Judge::new(&self.stage.cluster).decide(&flow);
        judgement.verdict()?;
        let decision = Decision { egress: judgement.egress.side, ingress: judgement.ingress.side };
        Some(JudgedFlow { decision, ends: [self.judged(source), self.judged(destination)] })
    }

    /// Decides a flow to a pod that may have any names for the port: `None` if the verdict depends on them. No name, each
    /// alone, and all are tried.
    fn whatever_the_names(&mut self, flow: &Flow, key: &ObjectKey) -> Option<Decision> {
        if self.port_names.len() > MAX_PORT_NAMES {
            return None;
        }
        let port = |name: &Name| ContainerPort {
            name: Some(name.clone()),
            protocol: flow.protocol,
            port: flow.port,
            host_port: None,
        };
        let mut choices: Vec<Vec<ContainerPort>> =
            vec![Vec::new(), self.port_names.iter().map(port).collect()];
        choices.extend(self.port_names.iter().map(|name| vec![port(name)]));
        let pod = self.stage.cluster.pods.get(key)?.clone();
        let cluster = &mut self.stage.cluster;
        let decisions = choices.into_iter().map(|ports| {
            let mut named = pod.clone();
            named.ports = ports.into();
            cluster.pods.insert(named);
            reference::decide(cluster, flow)
        });
        let decisions: Vec<Decision> = decisions.collect();
        self.stage.cluster.pods.insert(pod);
        let first = decisions.first()?;
        let verdicts = |d: &Decision| (d.egress.verdict, d.ingress.verdict);
        decisions.iter().all(|d| verdicts(d) == verdicts(first)).then(|| first.clone())
    }

    fn judged(&self, placed: Placed) -> JudgedEnd {
        let Placed { endpoint, by_recorded_labels, .. } = placed;
        let workload = match &endpoint {
            Endpoint::Pod { key, .. } => {
                self.stage.cluster.pods.get(key).and_then(|pod| pod.workload.clone())
            }
            Endpoint::Node { .. } | Endpoint::External(_) => None,
        };
        JudgedEnd { endpoint, workload, by_recorded_labels }
    }
}

#[cfg(test)]
mod tests;

//! Which connections are tried, from which pods: one pod for each class that no policy distinguishes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use palisade_analysis::{
    alike::{Alike, AlikeId, Relation},
    assertion::{Assertion, Expectation},
};
use palisade_policy::{Cluster, Endpoint, Family, Flow, ObjectKey, Protocol};

use super::super::check::TestResult;
use crate::dial::{self, Dial};

/// The most pods that get a container.
const MOST_SENDERS: usize = 20;
/// The most ends of a class among which a pair is looked for: a pod and itself are none.
const MOST_OF_CLASS: usize = 3;
/// The most ranges of ports of which both ends are tried.
const MOST_RANGES: usize = 8;
/// The port that is tried if an assertion is about all traffic and a pod declares no port: its kernel answers at any.
const ANY_PORT: (Protocol, u16) = (Protocol::Tcp, 80);

/// A pod, and the connections that it opens.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) pod: ObjectKey,
    pub(super) flows: Vec<Flow>,
}

/// The connections of all assertions.
#[derive(Debug, Default)]
pub(super) struct ProbePlan {
    pub(super) senders: Vec<Sender>,
    /// For each assertion, in their order.
    pub(super) asked: Vec<AskedConnections>,
    /// Only pods of these namespaces send, if there are any.
    namespaces: Vec<String>,
}

/// The connections that an assertion is about.
#[derive(Debug, Default)]
pub(super) struct AskedConnections {
    /// The place of the sender and of its flow, and whether the assertion says that it is allowed.
    pub(super) connections: BTreeMap<(usize, usize), bool>,
    /// What no pod can try, as text.
    pub(super) beyond: BTreeSet<&'static str>,
    /// How many connections are not tried because there are too many.
    pub(super) too_many: usize,
}

/// The ends of one class.
type Members = Vec<Endpoint>;

impl ProbePlan {
    /// Plans the connections of these assertions, from pods of some namespaces, or of all.
    pub(super) fn of(cluster: &Cluster, results: &[TestResult], namespaces: &[String]) -> Self {
        let mut plan = Self { namespaces: namespaces.to_vec(), ..Self::default() };
        let mut alike = Alike::new(cluster);
        for result in results {
            let mut asked = AskedConnections::default();
            for assertion in &result.assertions {
                plan.add(cluster, &mut alike, assertion, &mut asked);
            }
            plan.asked.push(asked);
        }
        plan
    }

    fn add(
        &mut self,
        cluster: &Cluster,
        alike: &mut Alike<'_>,
        assertion: &Assertion,
        asked: &mut AskedConnections,
    ) {
        let mut sources = sources(cluster, assertion, asked);
        let before = sources.len();
        sources.retain(|end| self.may_send(end));
        if sources.len() < before {
            asked.beyond.insert("connections from namespaces that --probe-namespace leaves out");
        }
        let sources = self.classes(alike, sources);
        let destinations = self.classes(alike, destinations(assertion, asked));
        for from in sources.values() {
            for to in destinations.values() {
                if let Some((source, destination)) = pair(cluster, from, to) {
                    self.add_pair(cluster, assertion, (source, destination), asked);
                }
            }
        }
    }

    /// Returns some ends of each class, with pods that send already first.
    fn classes(&self, alike: &mut Alike<'_>, ends: Vec<Endpoint>) -> BTreeMap<AlikeId, Members> {
        let mut out: BTreeMap<AlikeId, Members> = BTreeMap::new();
        for end in ends {
            let is_sender = self.sender(&end).is_some();
            let members = out.entry(alike.class(&end)).or_default();
            if is_sender {
                members.insert(0, end);
                members.truncate(MOST_OF_CLASS);
            } else if members.len() < MOST_OF_CLASS {
                members.push(end);
            }
        }
        out
    }

    fn may_send(&self, end: &Endpoint) -> bool {
        let Endpoint::Pod { key, .. } = end else { return false };
        self.namespaces.is_empty() || self.namespaces.iter().any(|name| *name == *key.namespace)
    }

    fn sender(&self, end: &Endpoint) -> Option<usize> {
        let Endpoint::Pod { key, .. } = end else { return None };
        self.senders.iter().position(|sender| sender.pod == *key)
    }

    fn add_pair(
        &mut self,
        cluster: &Cluster,
        assertion: &Assertion,
        (source, destination): (&Endpoint, &Endpoint),
        asked: &mut AskedConnections,
    ) {
        let Endpoint::Pod { key, .. } = source else { return };
        for (protocol, port) in ports(cluster, assertion, destination, asked) {
            let flow = Flow {
                source: source.clone(),
                destination: destination.clone(),
                protocol,
                port,
                through_service: false,
            };
            let Some(place) = self.place(key, flow) else {
                asked.too_many += 1;
                continue;
            };
            asked.connections.insert(place, assertion.expect == Expectation::Allow);
        }
    }

    /// Returns the place of a connection; `None` if there are too many.
    fn place(&mut self, pod: &ObjectKey, flow: Flow) -> Option<(usize, usize)> {
        let at = match self.senders.iter().position(|sender| sender.pod == *pod) {
            Some(at) => at,
            None if self.senders.len() < MOST_SENDERS => {
                self.senders.push(Sender { pod: pod.clone(), flows: Vec::new() });
                self.senders.len() - 1
            }
            None => return None,
        };
        let flows = &mut self.senders[at].flows;
        let place = flows.iter().position(|known| *known == flow);
        if place.is_none() && flows.len() >= dial::MOST {
            return None;
        }
        Some((
            at,
            place.unwrap_or_else(|| {
                flows.push(flow);
                flows.len() - 1
            }),
        ))
    }
}

/// Returns the pods that an assertion's connections are from.
fn sources(cluster: &Cluster, assertion: &Assertion, asked: &mut AskedConnections) -> Vec<Endpoint> {
    let is_pod = |end: &&Endpoint| matches!(end, Endpoint::Pod { .. });
    if assertion.expect == Expectation::Only {
        asked.beyond.insert("connections from nodes and from outside the cluster");
        let running = cluster.pods.values().filter(|pod| pod.is_running());
        let ends = running.flat_map(|pod| {
            pod.addresses.iter().map(|address| Endpoint::Pod { key: pod.key.clone(), address: *address })
        });
        return ends.filter(|end| !assertion.from.endpoints.contains(end)).collect();
    }
    if !assertion.from.ranges.is_empty() || !assertion.from.endpoints.iter().all(|end| is_pod(&end)) {
        asked.beyond.insert("connections from nodes and from outside the cluster");
    }
    assertion.from.endpoints.iter().filter(is_pod).cloned().collect()
}

/// Returns what an assertion's connections are to. Of addresses outside only those that the assertion gives one by one: a
/// range, or the internet, has others' machines in it.
fn destinations(assertion: &Assertion, asked: &mut AskedConnections) -> Vec<Endpoint> {
    let mut ends = assertion.to.endpoints.clone();
    for range in &assertion.to.ranges {
        if range.first == range.last {
            ends.push(Endpoint::External(range.first));
        } else {
            asked.beyond.insert("connections to ranges of addresses outside the cluster");
        }
    }
    ends
}

/// Returns the first pair of one family that policies can decide.
fn pair<'e>(
    cluster: &Cluster,
    from: &'e [Endpoint],
    to: &'e [Endpoint],
) -> Option<(&'e Endpoint, &'e Endpoint)> {
    let mut pairs = from.iter().flat_map(|source| to.iter().map(move |destination| (source, destination)));
    pairs.find(|(source, destination)| {
        Family::of(source.address()) == Family::of(destination.address())
            && Relation::of(cluster, source, destination) == Relation::Other
    })
}

/// Returns the ports that are tried at a destination.
fn ports(
    cluster: &Cluster,
    assertion: &Assertion,
    destination: &Endpoint,
    asked: &mut AskedConnections,
) -> BTreeSet<(Protocol, u16)> {
    let pod = match destination {
        Endpoint::Pod { key, .. } => cluster.pods.get(key),
        _ => None,
    };
    let traffic = assertion.asked.to(pod);
    let declared = pod.into_iter().flat_map(|pod| pod.ports.iter()).map(|port| (port.protocol, port.port));
    let mut out: BTreeSet<(Protocol, u16)> =
        declared.filter(|(protocol, port)| traffic.contains(*protocol, *port)).collect();
    for protocol in Protocol::WITH_PORTS {
        let ranges = traffic.ports(protocol);
        // What a range of many ports means is tried at its ends; all ports, at those that are declared.
        if !ranges.is_all() {
            let ends = ranges.ranges().iter().take(MOST_RANGES).flat_map(|(first, last)| [*first, *last]);
            out.extend(ends.filter(|port| *port > 0).map(|port| (protocol, port)));
        }
    }
    if out.is_empty() && traffic.contains(ANY_PORT.0, ANY_PORT.1) {
        out.insert(ANY_PORT);
    }
    let before = out.len();
    out.retain(|(protocol, _)| matches!(protocol, Protocol::Tcp | Protocol::Udp));
    if out.len() < before || out.is_empty() {
        asked.beyond.insert("connections by other protocols than TCP and UDP");
    }
    out
}

/// Returns how a flow is dialed.
pub(super) fn dial(flow: &Flow) -> Dial {
    Dial { udp: flow.protocol == Protocol::Udp, to: SocketAddr::new(flow.destination.address(), flow.port) }
}

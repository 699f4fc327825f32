//! Pairs of ends that are judged.

use std::collections::BTreeMap;

use palisade_policy::{
    Cluster, Decision, Direction, Endpoint, Family, Flow, IpRange, Pod, PortSet, Protocol, Traffic,
};

use super::{AskedTraffic, AssertedEnds, CounterEnd, Counterexample, Expectation, witness::Witnesses};
use crate::{
    Families, Judge,
    alike::{Alike, Relation},
    judge::bounds,
    regions,
};

/// One side of pairs.
#[derive(Clone, Debug)]
pub(super) enum PairSide {
    /// Ends that no policy distinguishes, or one pod with its addresses.
    Ends(Vec<Endpoint>),
    /// Addresses outside the cluster.
    Outside(Vec<IpRange>),
}

/// Pairs of which one for each family is judged, and for addresses outside one for each region.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) from: PairSide,
    pub(super) to: PairSide,
}

/// An assertion, with its sources.
pub(super) struct Scene<'a> {
    pub(super) from: &'a AssertedEnds,
    pub(super) to: &'a AssertedEnds,
    pub(super) asked: &'a AskedTraffic,
    pub(super) expect: Expectation,
}

/// The most ends of a class among which a pair is looked for: a pod and itself, or a pod and its own node, is none.
const MOST_OF_CLASS: usize = 3;

/// Returns some ends of each class.
pub(super) fn classes(cluster: &Cluster, ends: &[Endpoint]) -> Vec<Vec<Endpoint>> {
    let mut alike = Alike::new(cluster);
    let mut out: BTreeMap<u32, Vec<Endpoint>> = BTreeMap::new();
    for end in ends {
        let members = out.entry(alike.class(end)).or_default();
        if members.len() < MOST_OF_CLASS {
            members.push(end.clone());
        }
    }
    out.into_values().collect()
}

impl Scene<'_> {
    /// Returns the pairs of ends that exist.
    pub(super) fn existing(&self, cluster: &Cluster) -> Vec<Pair> {
        let sides = |ends: &AssertedEnds| {
            let mut out: Vec<PairSide> =
                classes(cluster, &ends.endpoints).into_iter().map(PairSide::Ends).collect();
            if !ends.ranges.is_empty() {
                out.push(PairSide::Outside(ends.ranges.clone()));
            }
            out
        };
        let destinations = sides(self.to);
        let pairs = sides(self.from).into_iter().flat_map(|from| {
            let pair = move |to: &PairSide| Pair { from: from.clone(), to: to.clone() };
            destinations.iter().map(pair).collect::<Vec<_>>()
        });
        pairs.collect()
    }

    /// Judges one pair.
    pub(super) fn judged(
        &self,
        cluster: &Cluster,
        judge: &Judge<'_>,
        witnesses: &Witnesses,
        source: &Endpoint,
        destination: &Endpoint,
    ) -> Option<Counterexample> {
        let scope = self.asked.to(pod(cluster, destination));
        let side = |direction| bounds(&judge.walks(source, destination, false, direction, &scope));
        let (sent, may_send) = side(Direction::Egress);
        let (received, may_receive) = side(Direction::Ingress);
        let (certain, possible) = (sent.intersection(&received), may_send.intersection(&may_receive));
        let (definite, bad) = match self.expect {
            Expectation::Allow => (scope.difference(&possible), scope.difference(&certain)),
            Expectation::Deny | Expectation::Only => (certain, possible),
        };
        let undecided = definite.is_none();
        let traffic = if undecided { bad } else { definite };
        let port = first_port(&traffic, destination)?;
        let flow = Flow {
            source: source.clone(),
            destination: destination.clone(),
            protocol: port.0,
            port: port.1,
            through_service: false,
        };
        let judgement = judge.decide(&flow);
        let end = |end: &Endpoint| CounterEnd {
            endpoint: end.clone(),
            workload: pod(cluster, end).and_then(|pod| pod.workload.clone()),
            future: match end {
                Endpoint::Pod { key, .. } => witnesses.get(key).cloned(),
                _ => None,
            },
        };
        Some(Counterexample {
            source: end(source),
            destination: end(destination),
            traffic,
            port,
            decision: Decision { egress: judgement.egress.side, ingress: judgement.ingress.side },
            undecided,
            families: Families { v4: destination.address().is_ipv4(), v6: destination.address().is_ipv6() },
        })
    }
}

fn pod<'c>(cluster: &'c Cluster, end: &Endpoint) -> Option<&'c Pod> {
    match end {
        Endpoint::Pod { key, .. } => cluster.pods.get(key),
        _ => None,
    }
}

/// Returns the first port of some traffic: of a protocol with ports, else ICMP, else another protocol.
fn first_port(traffic: &Traffic, destination: &Endpoint) -> Option<(Protocol, u16)> {
    let with_ports = Protocol::WITH_PORTS.into_iter().find_map(|protocol| {
        let ports = traffic.ports(protocol).intersection(&PortSet::range(1, u16::MAX));
        ports.ranges().first().map(|(first, _)| (protocol, *first))
    });
    let icmp = if destination.address().is_ipv4() { 1 } else { 58 };
    let others = std::iter::once(icmp).chain(0..=u8::MAX).map(Protocol::from_number);
    let other = || others.into_iter().find(|p| !p.has_ports() && traffic.contains(*p, 0)).map(|p| (p, 0));
    with_ports.or_else(other)
}

impl Pair {
    /// Returns the endpoints that stand for the pairs.
    pub(super) fn placed(&self, cluster: &Cluster, scene: &Scene<'_>) -> Vec<(Endpoint, Endpoint)> {
        let mut out = Vec::new();
        for family in Family::BOTH {
            match (&self.from, &self.to) {
                (PairSide::Ends(from), PairSide::Ends(to)) => {
                    out.extend(first_pair(cluster, scene, from, to, family));
                }
                (PairSide::Ends(from), PairSide::Outside(ranges)) => {
                    let source = from.iter().find(|end| Family::of(end.address()) == family);
                    for (end, sample) in source.into_iter().flat_map(|end| {
                        let pod = pod(cluster, end);
                        let parts = regions::within(cluster, pod, Direction::Egress, family, ranges);
                        parts.into_iter().map(move |part| (end, part.sample))
                    }) {
                        out.push((end.clone(), Endpoint::External(sample)));
                    }
                }
                (PairSide::Outside(ranges), PairSide::Ends(to)) => {
                    let target = to.iter().find(|end| Family::of(end.address()) == family);
                    for (end, sample) in target.into_iter().flat_map(|end| {
                        let pod = pod(cluster, end);
                        let parts = regions::within(cluster, pod, Direction::Ingress, family, ranges);
                        parts.into_iter().map(move |part| (end, part.sample))
                    }) {
                        out.push((Endpoint::External(sample), end.clone()));
                    }
                }
                // No policy applies between addresses outside.
                (PairSide::Outside(_), PairSide::Outside(_)) => {}
            }
        }
        out
    }
}

/// Returns the first pair of a family that policies can decide.
fn first_pair(
    cluster: &Cluster,
    scene: &Scene<'_>,
    from: &[Endpoint],
    to: &[Endpoint],
    family: Family,
) -> Option<(Endpoint, Endpoint)> {
    let of_family = |end: &&Endpoint| Family::of(end.address()) == family;
    let mut pairs = from
        .iter()
        .filter(of_family)
        .flat_map(|source| to.iter().filter(of_family).map(move |destination| (source, destination)));
    let decided = |(source, destination): &(&Endpoint, &Endpoint)| {
        // A pod always reaches itself, and its node always reaches it: no policy could deny that.
        let relation = Relation::of(cluster, source, destination);
        relation == Relation::Other || (relation == Relation::OwnNode && scene.expect == Expectation::Allow)
    };
    pairs.find(decided).map(|(source, destination)| (source.clone(), destination.clone()))
}

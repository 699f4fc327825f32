//! Explains which connections between two ends are allowed, and why: a walk through the tiers in both directions.

use palisade_policy::{
    Cluster, Direction, Endpoint, Traffic, Verdict,
    walk::{Decider, Walk, walk},
};

use crate::judge::{AddressQuestion, Judge, bounds};

/// The walks of both directions, and their result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The client.
    pub source: Endpoint,
    /// The server.
    pub destination: Endpoint,
    /// The walk through the policies of the source.
    pub egress: Walk,
    /// The walk through the policies of the destination.
    pub ingress: Walk,
    /// The requested traffic that is decided, divided by what decides it in each direction. The parts are disjoint and not
    /// empty.
    pub parts: Vec<DecidedTraffic>,
    /// The requested traffic whose verdict depends on an address that is not known. The walks show it at one of the
    /// possible addresses.
    pub undecided: Traffic,
    /// The rules that ask for the address.
    pub questions: Vec<AddressQuestion>,
}

/// Traffic with the same verdict for the same reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecidedTraffic {
    /// The traffic.
    pub traffic: Traffic,
    /// Whether both directions allow it.
    pub verdict: Verdict,
    /// The verdict of the source's policies, and what decided it.
    pub egress: (Verdict, Decider),
    /// The verdict of the destination's policies, and what decided it.
    pub ingress: (Verdict, Decider),
}

/// Explains connections from `source` to `destination`, for the traffic in `requested`. `O(policies × rules)`, times the
/// regions of the policies' blocks if an address is unknown.
#[must_use]
pub fn explain(
    cluster: &Cluster,
    source: &Endpoint,
    destination: &Endpoint,
    through_service: bool,
    requested: &Traffic,
) -> Explanation {
    let judge = Judge::new(cluster);
    let walks = Direction::BOTH
        .map(|direction| judge.walks(source, destination, through_service, direction, requested));
    let [sent, received] = walks.each_ref().map(|walks| bounds(walks));
    let undecided = sent.1.intersection(&received.1).difference(&sent.0.intersection(&received.0));
    let questions = if undecided.is_none() {
        Vec::new()
    } else {
        let of = |direction| judge.questions(source, destination, direction, &undecided);
        Direction::BOTH.into_iter().flat_map(of).collect()
    };
    let first = |walks: Vec<Walk>, direction| {
        let known = || walk(cluster, source, destination, through_service, direction, requested);
        walks.into_iter().next().unwrap_or_else(known)
    };
    let [sending, receiving] = walks;
    let (egress, ingress) = (first(sending, Direction::Egress), first(receiving, Direction::Ingress));
    let mut parts = Vec::new();
    for e in &egress.parts {
        for i in &ingress.parts {
            let traffic = e.traffic.intersection(&i.traffic).difference(&undecided);
            if !traffic.is_none() {
                let allowed = e.verdict.is_allow() && i.verdict.is_allow();
                parts.push(DecidedTraffic {
                    traffic,
                    verdict: if allowed { Verdict::Allow } else { Verdict::Deny },
                    egress: (e.verdict, e.decider.clone()),
                    ingress: (i.verdict, i.decider.clone()),
                });
            }
        }
    }
    let (source, destination) = (source.clone(), destination.clone());
    Explanation { source, destination, egress, ingress, parts, undecided, questions }
}

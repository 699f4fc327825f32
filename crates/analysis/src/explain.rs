//! Explains which connections between two ends are allowed, and why: a walk through the tiers in both directions.

use palisade_policy::{
    Cluster, Direction, Endpoint, Traffic, Verdict,
    walk::{Decider, Walk, walk},
};

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
    /// The requested traffic, divided by what decides it in each direction. The parts are disjoint and not empty.
    pub parts: Vec<DecidedTraffic>,
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

/// Explains connections from `source` to `destination`, for the traffic in `requested`. `O(policies × rules)`.
#[must_use]
pub fn explain(
    cluster: &Cluster,
    source: &Endpoint,
    destination: &Endpoint,
    through_service: bool,
    requested: &Traffic,
) -> Explanation {
    let [egress, ingress] = Direction::BOTH
        .map(|direction| walk(cluster, source, destination, through_service, direction, requested));
    let mut parts = Vec::new();
    for e in &egress.parts {
        for i in &ingress.parts {
            let traffic = e.traffic.intersection(&i.traffic);
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
    Explanation { source: source.clone(), destination: destination.clone(), egress, ingress, parts }
}

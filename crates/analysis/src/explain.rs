//! Why two ends may or may not exchange something, port by port: the whole walk through the tiers in both directions.

use palisade_policy::{
    Cluster, Direction, Endpoint, Traffic, Verdict,
    walk::{Decider, Walk, walk},
};

/// The walk of both directions, and what it comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Who opens.
    pub source: Endpoint,
    /// Who is called.
    pub destination: Endpoint,
    /// What the source's policies say.
    pub egress: Walk,
    /// What the destination's policies say.
    pub ingress: Walk,
    /// What was asked about, by what decides it in each direction: disjoint, none empty.
    pub parts: Vec<DecidedTraffic>,
}

/// Some traffic and what decides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecidedTraffic {
    /// The traffic.
    pub traffic: Traffic,
    /// Whether both directions allow it.
    pub verdict: Verdict,
    /// What decides on the source's side, and how.
    pub egress: (Verdict, Decider),
    /// What decides on the destination's side, and how.
    pub ingress: (Verdict, Decider),
}

/// Explains connections from `source` to `destination`: those in `asked`, all of them with [`Traffic::all`].
/// `O(policies × rules)`.
#[must_use]
pub fn explain(
    cluster: &Cluster,
    source: &Endpoint,
    destination: &Endpoint,
    through_service: bool,
    asked: &Traffic,
) -> Explanation {
    let [egress, ingress] = Direction::BOTH
        .map(|direction| walk(cluster, source, destination, through_service, direction, asked));
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

//! Assertions that can't both hold.

use palisade_policy::{Cluster, Endpoint, IpRange};

use super::{AssertedEnds, Assertion, Expectation, complement, witness};
use crate::exposure::pod_set::World;

/// Returns whether two assertions can't both hold, whatever the policies are: one says that a connection is allowed, and
/// the other that it isn't.
#[must_use]
pub fn contradicts(cluster: &Cluster, a: &Assertion, b: &Assertion) -> bool {
    let (allows, denies) = match (a.expect, b.expect) {
        (Expectation::Allow, Expectation::Deny | Expectation::Only) => (a, b),
        (Expectation::Deny | Expectation::Only, Expectation::Allow) => (b, a),
        _ => return false,
    };
    let world = World::new(&[cluster], Some(&witness::pod_ranges(cluster)));
    let denied = match denies.expect {
        Expectation::Only => complement::of(cluster, &denies.from, &denies.to, &world),
        _ => denies.from.clone(),
    };
    allows.asked.meets(&denies.asked)
        && meet(&allows.from, &denied, &world)
        && meet(&allows.to, &denies.to, &world)
}

fn meet(a: &AssertedEnds, b: &AssertedEnds, world: &World) -> bool {
    let overlap = |x: &IpRange, y: &IpRange| x.first <= y.last && y.first <= x.last;
    let inside = |end: &Endpoint, ranges: &[IpRange]| match end {
        Endpoint::External(address) => ranges.iter().any(|range| range.contains(*address)),
        _ => false,
    };
    a.endpoints.iter().any(|end| b.endpoints.contains(end) || inside(end, &b.ranges))
        || b.endpoints.iter().any(|end| inside(end, &a.ranges))
        || a.ranges.iter().any(|x| b.ranges.iter().any(|y| overlap(x, y)))
        || a.pods.iter().any(|x| b.pods.iter().any(|y| world.intersection(x, y).is_some()))
}

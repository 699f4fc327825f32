//! Assertions about connections, checked for all pods: those that exist and those that may.
//!
//! Pods that exist are judged once for each class that no policy distinguishes. Pods that may exist are sets that selectors
//! describe. The policies divide these sets; from each part that could break an assertion a pod is made, which takes part in
//! a copy of the cluster, and the reference decides. So a counterexample is never the result of the sets alone.
//!
//! ```text
//!  ends ──► pods, nodes, addresses that exist ──► classes ──┐
//!    └────► sets of pods ──► parts by policies ──► witnesses ┴─► pairs ──► judge ──► counterexamples
//! ```

mod asked;
mod complement;
mod contradiction;
mod future;
mod pairs;
mod witness;

use palisade_policy::{
    Cluster, Decision, Endpoint, IpRange, Name, Namespace, Pod, Protocol, Traffic, Workload,
};

pub use self::{asked::AskedTraffic, contradiction::contradicts};
use self::{
    pairs::{Pair, Scene},
    witness::Witnesses,
};
use crate::{
    Families,
    exposure::{PodSet, pod_set::World},
};

/// The ends on one side of an assertion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssertedEnds {
    /// Pods, nodes and addresses that exist.
    pub endpoints: Vec<Endpoint>,
    /// Pods, whether they exist or not. Those that exist are in `endpoints`, too.
    pub pods: Vec<PodSet>,
    /// Addresses outside the cluster.
    pub ranges: Vec<IpRange>,
}

/// What an assertion says about the connections between its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expectation {
    /// All of them are allowed.
    Allow,
    /// None of them is allowed.
    Deny,
    /// No connection from other ends to these destinations is allowed.
    Only,
}

/// An assertion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// The sources.
    pub from: AssertedEnds,
    /// The destinations.
    pub to: AssertedEnds,
    /// The traffic.
    pub asked: AskedTraffic,
    /// What is said about it.
    pub expect: Expectation,
}

/// A connection that breaks an assertion.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// The source.
    pub source: CounterEnd,
    /// The destination.
    pub destination: CounterEnd,
    /// The traffic that is allowed and should not be, or the reverse.
    pub traffic: Traffic,
    /// A protocol and port of it.
    pub port: (Protocol, u16),
    /// What decides at this port.
    pub decision: Decision,
    /// Whether it depends on an address that is not known.
    pub undecided: bool,
    /// The IP families: with addresses outside the cluster that of the address.
    pub families: Families,
}

/// An end of a counterexample.
#[derive(Clone, Debug)]
pub struct CounterEnd {
    /// The end. The address of a pod that doesn't exist is no real one.
    pub endpoint: Endpoint,
    /// The workload of a pod that exists.
    pub workload: Option<Workload>,
    /// The pod, if it doesn't exist, with the set that it is an example of.
    pub future: Option<FuturePod>,
}

/// A pod that doesn't exist and may be made.
#[derive(Clone, Debug)]
pub struct FuturePod {
    /// The pod with the fewest labels.
    pub pod: Pod,
    /// Its namespace, if that doesn't exist either.
    pub namespace: Option<Namespace>,
    /// All pods to which the same applies.
    pub set: PodSet,
}

/// The result of a check.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// What breaks the assertion: pods that exist first. At most [`MOST_COUNTEREXAMPLES`].
    pub counterexamples: Vec<Counterexample>,
    /// The number of pairs that were judged, each for all that no policy distinguishes.
    pub judged: usize,
    /// Whether there are too many sets of pods that may exist to tell apart, so that only some were judged.
    pub too_many: bool,
}

/// The most counterexamples of one assertion.
pub const MOST_COUNTEREXAMPLES: usize = 20;

/// Checks an assertion. `O(classes²)` for pods that exist; for pods that may exist, see [`crate::exposure()`].
#[must_use]
pub fn check(cluster: &Cluster, assertion: &Assertion) -> Checked {
    let world = World::new(&[cluster], Some(&witness::pod_ranges(cluster)));
    let from = match assertion.expect {
        Expectation::Allow | Expectation::Deny => assertion.from.clone(),
        Expectation::Only => complement::of(cluster, &assertion.from, &assertion.to, &world),
    };
    let scene = Scene { from: &from, to: &assertion.to, asked: &assertion.asked, expect: assertion.expect };
    let mut out = Checked::default();
    let existing = scene.existing(cluster);
    judge(cluster, &scene, &Witnesses::none(), existing, &mut out);
    let mut witnesses = Witnesses::new(cluster);
    world.renew();
    let candidates = future::candidates(cluster, &scene, &world, &mut witnesses);
    out.too_many = candidates.overflow;
    let (cluster, witnesses) = witnesses.into_cluster();
    judge(&cluster, &scene, &witnesses, candidates.pairs, &mut out);
    out
}

impl Counterexample {
    /// Returns whether it is another one of the same ends in the other IP family.
    fn is_same(&self, other: &Self) -> bool {
        let same = |a: &Endpoint, b: &Endpoint| match (a, b) {
            (Endpoint::Pod { key: x, .. }, Endpoint::Pod { key: y, .. }) => x == y,
            (Endpoint::Node { name: x, .. }, Endpoint::Node { name: y, .. }) => x == y,
            _ => false,
        };
        same(&self.source.endpoint, &other.source.endpoint)
            && same(&self.destination.endpoint, &other.destination.endpoint)
            && (&self.traffic, &self.decision, self.undecided)
                == (&other.traffic, &other.decision, other.undecided)
    }
}

fn judge(cluster: &Cluster, scene: &Scene<'_>, witnesses: &Witnesses, pairs: Vec<Pair>, out: &mut Checked) {
    let judge = crate::Judge::new(cluster);
    for pair in pairs {
        if out.counterexamples.len() >= MOST_COUNTEREXAMPLES {
            break;
        }
        for (source, destination) in pair.placed(cluster, scene) {
            out.judged += 1;
            let Some(found) = scene.judged(cluster, &judge, witnesses, &source, &destination) else {
                continue;
            };
            match out.counterexamples.iter_mut().find(|known| known.is_same(&found)) {
                Some(known) => {
                    known.families.v4 |= found.families.v4;
                    known.families.v6 |= found.families.v6;
                }
                None => out.counterexamples.push(found),
            }
        }
    }
    out.counterexamples.truncate(MOST_COUNTEREXAMPLES);
}

/// The name of a port of a pod that may exist.
type PortName = (Name, Protocol);

#[cfg(test)]
mod tests;

//! Judges connections of pods whose addresses are not known.
//!
//! [`palisade_policy::reference`] decides a connection between two addresses. If one of them is a placeholder
//! ([`palisade_policy::Addressing`]), it is evaluated at one address of each region that the blocks of the subject's
//! policies distinguish within the possible ranges. The egress side depends on the destination's address alone, the
//! ingress side on the source's, so the two can be judged apart. What they agree on is decided; the rest is undecided,
//! and comes with the rules that ask for the address.

mod questions;

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
};

use palisade_policy::{
    Cluster, Decision, Direction, Endpoint, Flow, IpRange, ObjectKey, PortSet, Side, Traffic, Verdict,
    reference,
    walk::{Walk, walk},
};

pub use questions::{AddressQuestion, Questions};

use crate::{places::id_of, regions::rule_ranges, space::AddressSpace};

/// Judges connections within one cluster. It remembers the regions of each subject's policies.
pub struct Judge<'c> {
    cluster: &'c Cluster,
    samples: RefCell<Samples>,
}

/// Addresses to evaluate a subject's policies at, by subject, direction and possible ranges.
type Samples = HashMap<(ObjectKey, Direction, usize), Rc<[IpAddr]>>;

/// What can be said about a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The egress side, decided by the policies of the source pod.
    pub egress: JudgedSide,
    /// The ingress side, decided by the policies of the destination pod.
    pub ingress: JudgedSide,
}

/// What can be said about one direction of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgedSide {
    /// The verdict and its reason. If the side is undecided: those of the possible addresses at which it is denied.
    pub side: Side,
    /// If the side is undecided: the verdict and its reason at the other possible addresses, where it is allowed.
    pub otherwise: Option<Side>,
    /// If the side is undecided: the rules that ask for the address.
    pub questions: Vec<AddressQuestion>,
}

impl JudgedSide {
    /// Returns the verdict; `None` if it depends on an address that is not known.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        self.otherwise.is_none().then_some(self.side.verdict)
    }
}

impl Judgement {
    /// Returns the verdict; `None` if it depends on an address that is not known. A side that denies decides, whatever
    /// the other one depends on.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        match (self.egress.verdict(), self.ingress.verdict()) {
            (Some(Verdict::Deny), _) | (_, Some(Verdict::Deny)) => Some(Verdict::Deny),
            (Some(Verdict::Allow), Some(Verdict::Allow)) => Some(Verdict::Allow),
            _ => None,
        }
    }

    /// Returns the rules that ask for an address, if the verdict depends on them.
    pub fn questions(&self) -> impl Iterator<Item = &AddressQuestion> {
        let undecided = self.verdict().is_none();
        self.egress.questions.iter().chain(&self.ingress.questions).filter(move |_| undecided)
    }
}

impl<'c> Judge<'c> {
    /// Makes a judge of a cluster.
    #[must_use]
    pub fn new(cluster: &'c Cluster) -> Self {
        Self { cluster, samples: RefCell::default() }
    }

    /// Judges a flow. If both addresses are known, this is [`reference::decide`]. `O(policies × rules)`, times the regions
    /// of the policies' blocks if an address is unknown.
    #[must_use]
    pub fn decide(&self, flow: &Flow) -> Judgement {
        let Decision { egress, ingress } = reference::decide(self.cluster, flow);
        Judgement {
            egress: self.side(flow, Direction::Egress, egress),
            ingress: self.side(flow, Direction::Ingress, ingress),
        }
    }

    fn side(&self, flow: &Flow, direction: Direction, known: Side) -> JudgedSide {
        let decided = |side| JudgedSide { side, otherwise: None, questions: Vec::new() };
        let samples = self.samples(&flow.source, &flow.destination, direction);
        let sides = samples.iter().map(|address| {
            let (source, destination) = moved(&flow.source, &flow.destination, direction, *address);
            let decision = reference::decide(self.cluster, &Flow { source, destination, ..flow.clone() });
            if direction == Direction::Egress { decision.egress } else { decision.ingress }
        });
        let sides: Vec<Side> = sides.collect();
        let of = |verdict| sides.iter().find(|side| side.verdict == verdict).cloned();
        match (of(Verdict::Deny), of(Verdict::Allow)) {
            (None, None) => decided(known),
            (Some(side), None) | (None, Some(side)) => decided(side),
            (Some(side), otherwise) => {
                let asked = Traffic::of(flow.protocol, PortSet::range(flow.port, flow.port));
                let questions = self.questions(&flow.source, &flow.destination, direction, &asked);
                JudgedSide { side, otherwise, questions }
            }
        }
    }

    /// Evaluates one direction of the connections between two endpoints for each region of possible addresses that the
    /// policies distinguish: a single walk if the other end's address is known. The traffic that all of them allow is
    /// certain.
    #[must_use]
    pub fn walks(
        &self,
        source: &Endpoint,
        destination: &Endpoint,
        through_service: bool,
        direction: Direction,
        scope: &Traffic,
    ) -> Vec<Walk> {
        let walk = |source: &Endpoint, destination: &Endpoint| {
            walk(self.cluster, source, destination, through_service, direction, scope)
        };
        let placed = self.placed(source, destination, direction);
        placed.iter().map(|(source, destination)| walk(source, destination)).collect()
    }

    /// Returns two endpoints, once for each region of the peer's possible addresses that the subject's policies
    /// distinguish; unchanged if the peer's address is known, or if no rule of the subject asks for it.
    pub(crate) fn placed(
        &self,
        source: &Endpoint,
        destination: &Endpoint,
        direction: Direction,
    ) -> Vec<(Endpoint, Endpoint)> {
        let samples = self.samples(source, destination, direction);
        if samples.is_empty() {
            return vec![(source.clone(), destination.clone())];
        }
        samples.iter().map(|address| moved(source, destination, direction, *address)).collect()
    }

    /// Returns addresses of the subject's peer to evaluate the subject's policies at, one in each region that they
    /// distinguish. Empty if the peer's address is known, or if no rule of the subject asks for it.
    fn samples(&self, source: &Endpoint, destination: &Endpoint, direction: Direction) -> Rc<[IpAddr]> {
        let (subject, peer) = match direction {
            Direction::Egress => (source, destination),
            Direction::Ingress => (destination, source),
        };
        let none = || Rc::from([]);
        let Some(possible) = possible(self.cluster, peer) else { return none() };
        let Endpoint::Pod { key, .. } = subject else { return none() };
        let place = (key.clone(), direction, id_of(possible));
        if let Some(known) = self.samples.borrow().get(&place) {
            return Rc::clone(known);
        }
        let blocks =
            self.cluster.pods.get(key).map_or_else(Vec::new, |pod| rule_ranges(self.cluster, pod, direction));
        let samples: Rc<[IpAddr]> =
            if blocks.is_empty() { none() } else { AddressSpace::new(blocks).samples_in(possible).into() };
        self.samples.borrow_mut().insert(place, Rc::clone(&samples));
        samples
    }
}

/// Returns the traffic that all walks of one direction allow, and the traffic that some of them allow.
pub(crate) fn bounds(walks: &[Walk]) -> (Traffic, Traffic) {
    let mut allowed = walks.iter().map(Walk::allowed);
    let first = allowed.next().unwrap_or_default();
    allowed.fold((first.clone(), first), |(certain, possible), allowed| {
        (certain.intersection(&allowed), possible.union(&allowed))
    })
}

/// Returns two endpoints, with the subject's peer at `address`.
pub(crate) fn moved(
    source: &Endpoint,
    destination: &Endpoint,
    direction: Direction,
    address: IpAddr,
) -> (Endpoint, Endpoint) {
    match direction {
        Direction::Egress => (source.clone(), at(destination, address)),
        Direction::Ingress => (at(source, address), destination.clone()),
    }
}

/// Returns the possible addresses of a pod or node; `None` if its address is known.
pub(crate) fn possible<'c>(cluster: &'c Cluster, end: &Endpoint) -> Option<&'c Arc<[IpRange]>> {
    match end {
        Endpoint::Pod { address, .. } | Endpoint::Node { address, .. } => {
            cluster.addressing.possible(*address)
        }
        // Another address with the number of a placeholder.
        Endpoint::External(_) => None,
    }
}

/// Returns an endpoint at one of its possible addresses, if its address is not known.
pub(crate) fn somewhere(cluster: &Cluster, end: &Endpoint) -> Endpoint {
    let first = possible(cluster, end).and_then(|possible| possible.first());
    first.map_or_else(|| end.clone(), |range| at(end, range.first))
}

/// Returns an endpoint at another address.
fn at(end: &Endpoint, address: IpAddr) -> Endpoint {
    match end {
        Endpoint::Pod { key, .. } => Endpoint::Pod { key: key.clone(), address },
        Endpoint::Node { name, .. } => Endpoint::Node { name: name.clone(), address },
        Endpoint::External(_) => Endpoint::External(address),
    }
}

impl Judge<'_> {
    /// Returns the rules of one direction that ask for an unknown address and match some of this traffic.
    #[must_use]
    pub fn questions(
        &self,
        source: &Endpoint,
        destination: &Endpoint,
        direction: Direction,
        traffic: &Traffic,
    ) -> Vec<AddressQuestion> {
        let walks = self.walks(source, destination, false, direction, &Traffic::all());
        let asking = questions::asking(&walks).into_iter();
        let mut seen = HashSet::new();
        let meets = |(question, held): &(AddressQuestion, Traffic)| {
            !held.intersection(traffic).is_none() && seen.insert(question.place())
        };
        asking.filter(meets).map(|(question, _)| question).collect()
    }
}

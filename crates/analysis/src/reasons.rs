//! The reasons for all connections of an answer: which rules allow them, or which policies deny them.
//!
//! Pairs of ends with the same policies and the same peers have the same reasons, so each is worked out once: for each
//! set of policies, and each set of their peers that a class of ends may match, one walk through the policies.

mod walks;

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use palisade_policy::{
    Cluster, Direction, Family, Name, ObjectKey, Policy, PolicyKey, Traffic, Verdict, walk::Decider,
};

use crate::{
    classes::ClassId,
    connections::{Connections, TrafficKey},
    end::{ConnectionEnd, WorkloadPods},
    families::{Families, index},
    fold::EdgeLabels,
    numbering::Numbering,
    reach::UnitId,
    representative::Representatives,
};

use walks::{DecidedPart, DeciderId, Subject, WalkKey, Walks};

/// What decides the traffic of an edge in each direction, sorted, none twice. For denied traffic, only what denies it.
/// Both are empty for what the ingress controller forwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EdgeReasons {
    /// The policies of the source.
    pub egress: Vec<Decider>,
    /// The policies of the destination.
    pub ingress: Vec<Decider>,
}

/// The deciders of both directions, sorted.
type ReasonsKey = [Vec<DeciderId>; 2];
/// What distinguishes the labels of an end from those of others with the same traffic.
type ApartKey = Vec<(Vec<PolicyKey>, [Option<ClassId>; 2])>;

/// The most members of an end that are looked at. An end has more than one only if its members have the same traffic for
/// different reasons.
const MOST_SAMPLES: usize = 16;

/// A member of an end, for each of the units in it.
struct Sample {
    unit: UnitId,
    classes: [Option<ClassId>; 2],
    member: ConnectionEnd,
    /// Another member of the unit, for connections within it.
    other: Option<ConnectionEnd>,
}

/// Works out the reasons for the edges of an answer. They are kept, and numbered from 1; 0 stands for no reasons.
///
/// If pods or addresses of an end have the same traffic for different reasons, the edge has all of these, of up to 16
/// kinds of members.
pub struct Reasoner<'c> {
    answer: &'c Connections,
    cluster: &'c Cluster,
    representatives: Representatives<'c>,
    verdict: Verdict,
    /// The direction whose deciders are told apart; `None` for both.
    side: Option<Direction>,
    units: HashMap<ObjectKey, UnitId>,
    samples: RefCell<HashMap<usize, Rc<[Sample]>>>,
    apart: RefCell<Numbering<ApartKey>>,
    apart_of: RefCell<HashMap<(usize, Direction), u32>>,
    unselected: RefCell<HashMap<(usize, Direction), bool>>,
    walks: Rc<RefCell<Walks>>,
    known: RefCell<HashMap<ReasonsKey, u32>>,
    all: RefCell<Vec<Rc<EdgeReasons>>>,
}

impl<'c> Reasoner<'c> {
    /// Makes a reasoner for the edges of an answer about `cluster`, which are `denied` or allowed. The ends must not be
    /// namespaces, whose pods have different reasons: they get none.
    #[must_use]
    pub fn new(cluster: &'c Cluster, answer: &'c Connections, denied: bool) -> Self {
        Self {
            answer,
            cluster,
            representatives: Representatives::new(cluster),
            verdict: if denied { Verdict::Deny } else { Verdict::Allow },
            side: None,
            units: answer.reach.units_by_pod(),
            samples: RefCell::default(),
            apart: RefCell::default(),
            apart_of: RefCell::default(),
            unselected: RefCell::default(),
            walks: Rc::default(),
            known: RefCell::default(),
            all: RefCell::new(vec![Rc::default()]),
        }
    }

    /// Makes a reasoner for what denies connections in one direction. Where sources and destinations have reasons of their own,
    /// edges with one side's reasons are about as many as these ends, and with both sides' as many as their pairs.
    #[must_use]
    pub fn of_side(cluster: &'c Cluster, answer: &'c Connections, side: Direction) -> Self {
        Self { side: Some(side), ..Self::new(cluster, answer, true) }
    }

    /// Uses the walks of another reasoner, and adds to them, if its answer has the same pods and peers, as one about the same cluster
    /// has that was asked for the denied connections instead of the allowed ones. Else changes nothing.
    #[must_use]
    pub fn sharing(mut self, other: &Self) -> Self {
        let units = |reasoner: &Self| reasoner.answer.reach.units.iter().map(|unit| unit.classes);
        let same = std::ptr::eq(self.cluster, other.cluster)
            && self.units == other.units
            && units(&self).eq(units(other));
        if same {
            self.walks = Rc::clone(&other.walks);
        }
        self
    }

    /// Returns reasons by their number. Panics if there are none.
    #[must_use]
    pub fn reasons(&self, number: u32) -> Rc<EdgeReasons> {
        Rc::clone(&self.all.borrow()[number as usize])
    }

    /// Returns whether no policy selects an end in a direction.
    #[must_use]
    pub fn is_unselected(&self, end: usize, direction: Direction) -> bool {
        if let Some(known) = self.unselected.borrow().get(&(end, direction)) {
            return *known;
        }
        let unselected = self.samples(end).iter().all(|sample| self.selecting(sample, direction).is_empty());
        self.unselected.borrow_mut().insert((end, direction), unselected);
        unselected
    }

    /// Returns a member of an end for each unit in it.
    fn samples(&self, end: usize) -> Rc<[Sample]> {
        if let Some(known) = self.samples.borrow().get(&end) {
            return Rc::clone(known);
        }
        let reach = &self.answer.reach;
        let mut samples: Vec<Sample> = Vec::new();
        for member in members(self.answer.end(end)) {
            let unit = match &member {
                ConnectionEnd::Pod { key, .. } => self.units.get(key).copied(),
                _ => reach.unit_of(&member),
            };
            let Some(unit) = unit else { continue };
            let is_full = samples.len() >= MOST_SAMPLES;
            match samples.iter_mut().find(|sample| sample.unit == unit) {
                Some(known) => _ = known.other.get_or_insert(member),
                None if !is_full => {
                    let classes = reach.units[unit as usize].classes;
                    samples.push(Sample { unit, classes, member, other: None });
                }
                None => {}
            }
        }
        if let ConnectionEnd::External(external) = self.answer.end(end) {
            // The ranges of an end are merged, so units are found by their own ranges.
            samples = reach
                .external_within(external)
                .take(MOST_SAMPLES)
                .map(|(unit, member)| Sample {
                    unit,
                    classes: reach.units[unit as usize].classes,
                    member: ConnectionEnd::External(member),
                    other: None,
                })
                .collect();
        }
        let samples: Rc<[Sample]> = samples.into();
        self.samples.borrow_mut().insert(end, Rc::clone(&samples));
        samples
    }

    /// Returns the policies that select a member in a direction.
    fn selecting(&self, sample: &Sample, direction: Direction) -> Vec<PolicyKey> {
        let ConnectionEnd::Pod { key, .. } = &sample.member else { return Vec::new() };
        let Some(pod) = self.cluster.pods.get(key) else { return Vec::new() };
        let policies = self.representatives.selecting(pod);
        policies.filter(|policy| policy.rules(direction).is_some()).map(|policy| policy.key.clone()).collect()
    }

    /// Returns all traffic between two members, divided by what decides it; `None` if no pair of addresses can have it.
    fn parts(
        &self,
        from: &Sample,
        to: &Sample,
        direction: Direction,
        family: Family,
    ) -> Option<Rc<[DecidedPart]>> {
        // A pod has no connection to itself that policies decide, but the pods of a workload have one to each other.
        let target = match &to.other {
            Some(other) if from.member == to.member => other,
            None if from.member == to.member && matches!(to.member, ConnectionEnd::Pod { .. }) => {
                return None;
            }
            _ => &to.member,
        };
        let (subject, peer) = if direction == Direction::Egress { (from, to) } else { (to, from) };
        let key = self.walk_key(subject, peer, direction, family)?;
        if let Some(known) = self.walks.borrow().find(&key) {
            return Some(known);
        }
        let (source, target) = self.representatives.pair(&from.member, target, family)?;
        let walk = self.representatives.walk(&source, &target, direction, &Traffic::all());
        Some(self.walks.borrow_mut().add(key, walk.parts))
    }

    /// Returns what is equal for members between which policies decide alike; `None` if they don't share the family.
    fn walk_key(
        &self,
        subject: &Sample,
        peer: &Sample,
        direction: Direction,
        family: Family,
    ) -> Option<WalkKey> {
        let own = match &peer.member {
            ConnectionEnd::OwnNode(_) => Some(true),
            ConnectionEnd::Nodes(_) => Some(false),
            _ => None,
        };
        if let Some(own) = own {
            return Some(WalkKey::Node {
                subject: subject.unit,
                classes: peer.classes,
                own,
                direction,
                family,
            });
        }
        subject.classes[index(family)]?;
        let class = peer.classes[index(family)]?;
        let rules = self.subject(subject, direction);
        let at = || self.representatives.of(&peer.member, family).next();
        let peers = self
            .walks
            .borrow_mut()
            .seen_by(&rules, class, |entry| at().is_some_and(|at| self.representatives.is_peer(entry, &at)));
        Some(WalkKey::Alike { subject: rules.number, peers, direction, family })
    }

    /// Returns what walks depend on at the side of a subject.
    fn subject(&self, sample: &Sample, direction: Direction) -> Rc<Subject> {
        if let Some(known) = self.walks.borrow().subject(sample.unit, direction) {
            return known;
        }
        let pod = match &sample.member {
            ConnectionEnd::Pod { key, .. } => self.cluster.pods.get(key),
            _ => None,
        };
        let selecting = pod.into_iter().flat_map(|pod| self.representatives.selecting(pod));
        let policies: Vec<&Policy> =
            selecting.filter(|policy| policy.rules(direction).is_some()).map(|policy| &**policy).collect();
        let ports = pod.map_or(&[][..], |pod| &pod.ports);
        self.walks.borrow_mut().add_subject(sample.unit, direction, &policies, ports)
    }

    /// Returns what decides `traffic` in a direction, sorted; `None` if no pair of addresses can have it.
    fn deciders(
        &self,
        (from, to): (usize, usize),
        direction: Direction,
        families: Families,
        traffic: &Traffic,
    ) -> Option<Vec<DeciderId>> {
        let subject = if direction == Direction::Egress { from } else { to };
        let mut out = Vec::new();
        let pods = self.answer.end(subject).is_pods();
        if !pods || self.is_unselected(subject, direction) && !self.meets_own_node(from) {
            if self.verdict == Verdict::Allow {
                let decider = if pods { Decider::NotIsolated } else { Decider::NoSubject };
                out.push(self.walks.borrow_mut().number(direction, &decider));
            }
            return Some(out);
        }
        let shared = families.and(self.answer.families(from)).and(self.answer.families(to));
        let mut possible = false;
        for family in Family::BOTH.into_iter().filter(|family| shared.contains(*family)) {
            for source in &*self.samples(from) {
                for target in &*self.samples(to) {
                    let Some(parts) = self.parts(source, target, direction, family) else { continue };
                    possible = true;
                    let decides = |part: &&DecidedPart| {
                        part.verdict == self.verdict && !part.traffic.intersection(traffic).is_none()
                    };
                    out.extend(parts.iter().filter(decides).map(|part| part.decider));
                }
            }
        }
        out.sort_unstable();
        out.dedup();
        possible.then_some(out)
    }

    fn meets_own_node(&self, from: usize) -> bool {
        matches!(self.answer.end(from), ConnectionEnd::OwnNode(_))
    }
}

/// Returns the members of an end, each as an end.
fn members(end: &ConnectionEnd) -> Vec<ConnectionEnd> {
    let pods = |w: &WorkloadPods| -> Vec<ConnectionEnd> {
        let pod = |name: &Name| ConnectionEnd::Pod {
            key: ObjectKey { namespace: w.namespace.clone(), name: name.clone() },
            workload_kind: w.kind.clone(),
            workload_name: w.name.clone(),
        };
        w.pods.iter().map(pod).collect()
    };
    match end {
        ConnectionEnd::Workload(w) => pods(w),
        ConnectionEnd::Class(all) => all.iter().flat_map(pods).collect(),
        ConnectionEnd::Pod { .. } => vec![end.clone()],
        ConnectionEnd::Nodes(all) => all.iter().map(|n| ConnectionEnd::Nodes(vec![n.clone()])).collect(),
        ConnectionEnd::OwnNode(all) => all.iter().map(|n| ConnectionEnd::OwnNode(vec![n.clone()])).collect(),
        ConnectionEnd::External(_) | ConnectionEnd::Namespace(_) | ConnectionEnd::IngressController(_) => {
            Vec::new()
        }
    }
}

impl EdgeLabels for Reasoner<'_> {
    fn apart(&self, end: usize, direction: Direction) -> u32 {
        if let Some(known) = self.apart_of.borrow().get(&(end, direction)) {
            return *known;
        }
        let samples = self.samples(end);
        // For the deciders of the other side, an end is what their rules match.
        let selecting = |sample| match self.side {
            Some(side) if side != direction => Vec::new(),
            _ => self.selecting(sample, direction),
        };
        let mut key: ApartKey = samples.iter().map(|sample| (selecting(sample), sample.classes)).collect();
        key.sort_unstable();
        key.dedup();
        let number = self.apart.borrow_mut().number(key);
        self.apart_of.borrow_mut().insert((end, direction), number);
        number
    }

    fn label(&self, from: usize, to: usize, families: Families, traffic: &Traffic) -> Option<u32> {
        if !matches!(self.answer.traffic_key(from), TrafficKey::Unit(Some(_))) {
            return Some(0);
        }
        let of = |direction| match self.side {
            Some(side) if side != direction => Some(Vec::new()),
            _ => self.deciders((from, to), direction, families, traffic),
        };
        let (egress, ingress) = (of(Direction::Egress)?, of(Direction::Ingress)?);
        let number =
            *self.known.borrow_mut().entry([egress, ingress]).or_insert_with_key(|[egress, ingress]| {
                let (walks, mut all) = (self.walks.borrow(), self.all.borrow_mut());
                let reasons =
                    EdgeReasons { egress: walks.deciders(egress), ingress: walks.deciders(ingress) };
                all.push(Rc::new(reasons));
                all.len() as u32 - 1
            });
        Some(number)
    }
}

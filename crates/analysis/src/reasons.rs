//! The reasons for all connections of an answer: which rules allow them, or which policies deny them.
//!
//! Pairs of ends with the same policies and the same peers have the same reasons, so each is worked out once: for each
//! set of policies, and each set of their peers that a class of ends may match, one walk through the policies.

mod walks;

use std::{
    cell::{OnceCell, RefCell},
    collections::HashMap,
    rc::Rc,
};

use palisade_policy::{
    Cluster, Direction, Endpoint, Family, Name, ObjectKey, Peer, Policy, PolicyKey, Traffic, Verdict,
    walk::Decider,
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
    traffics::TrafficId,
};

use walks::{DecidedPart, DeciderId, NodeKey, Subject, WalkId, WalkKey, Walks};

/// What decides the traffic of an edge in each direction, sorted, none twice. For denied traffic, only what denies it.
/// Both are empty for what the ingress controller forwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EdgeReasons {
    /// The policies of the source.
    pub egress: Vec<Decider>,
    /// The policies of the destination.
    pub ingress: Vec<Decider>,
}

/// The number of a list of deciders of one direction, sorted and each once.
type ListId = u32;
/// What distinguishes the labels of an end from those of others with the same traffic.
type ApartKey = Vec<(Vec<PolicyKey>, [Option<ClassId>; 2])>;

/// The most members of an end that are looked at. An end has more than one only if its members have the same traffic for
/// different reasons.
const MOST_SAMPLES: usize = 16;

/// A member of an end, for each of the units in it.
struct Sample<'c> {
    unit: UnitId,
    classes: [Option<ClassId>; 2],
    member: ConnectionEnd,
    /// Another member of the unit, for connections within it.
    other: Option<ConnectionEnd>,
    /// The policies that select it, in both directions.
    policies: Vec<&'c Policy>,
    /// An address of it in each family.
    endpoints: [OnceCell<Option<Endpoint>>; 2],
    /// What walks depend on if it is the subject, by direction.
    subjects: [OnceCell<Rc<Subject>>; 2],
}

/// What reasons need of an end, found once.
struct EndFacts<'c> {
    samples: Vec<Sample<'c>>,
    families: Families,
    /// Whether policies may apply to it.
    is_pods: bool,
    is_own_node: bool,
    /// Whether no policy selects it, by direction.
    unselected: [bool; 2],
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
    /// By end.
    facts: Vec<OnceCell<EndFacts<'c>>>,
    apart: RefCell<Numbering<ApartKey>>,
    apart_of: RefCell<HashMap<(usize, Direction), u32>>,
    walks: Rc<RefCell<Walks>>,
    traffics: RefCell<Numbering<Traffic>>,
    last_traffic: RefCell<Option<(Traffic, TrafficId)>>,
    lists: RefCell<Numbering<Vec<DeciderId>>>,
    /// The lists of what decides some traffic of a walk.
    of_walks: RefCell<HashMap<(WalkId, TrafficId), ListId>>,
    /// The lists of what decides without a walk: by direction, and whether the subject is a pod.
    without_walk: [[OnceCell<ListId>; 2]; 2],
    /// By the lists of both directions.
    known: RefCell<HashMap<[ListId; 2], u32>>,
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
            facts: (0..answer.ends().len()).map(|_| OnceCell::new()).collect(),
            apart: RefCell::default(),
            apart_of: RefCell::default(),
            walks: Rc::default(),
            traffics: RefCell::default(),
            last_traffic: RefCell::default(),
            lists: RefCell::default(),
            of_walks: RefCell::default(),
            without_walk: Default::default(),
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
        self.facts(end).unselected[at(direction)]
    }

    fn facts(&self, end: usize) -> &EndFacts<'c> {
        self.facts[end].get_or_init(|| {
            let samples = self.samples(end);
            let is_unselected = |direction| {
                let mut policies = samples.iter().flat_map(|sample| &sample.policies);
                policies.all(|policy| policy.rules(direction).is_none())
            };
            EndFacts {
                families: self.answer.families(end),
                is_pods: self.answer.end(end).is_pods(),
                is_own_node: matches!(self.answer.end(end), ConnectionEnd::OwnNode(_)),
                unselected: Direction::BOTH.map(is_unselected),
                samples,
            }
        })
    }

    /// Returns a member of an end for each unit in it.
    fn samples(&self, end: usize) -> Vec<Sample<'c>> {
        let reach = &self.answer.reach;
        let mut samples: Vec<Sample<'c>> = Vec::new();
        if let ConnectionEnd::External(external) = self.answer.end(end) {
            // The ranges of an end are merged, so units are found by their own ranges.
            let members = reach.external_within(external).take(MOST_SAMPLES);
            samples.extend(members.map(|(unit, member)| self.sample(unit, ConnectionEnd::External(member))));
            return samples;
        }
        for member in members(self.answer.end(end)) {
            let unit = match &member {
                ConnectionEnd::Pod { key, .. } => self.units.get(key).copied(),
                _ => reach.unit_of(&member),
            };
            let Some(unit) = unit else { continue };
            let is_full = samples.len() >= MOST_SAMPLES;
            match samples.iter_mut().find(|sample| sample.unit == unit) {
                Some(known) => _ = known.other.get_or_insert(member),
                None if !is_full => samples.push(self.sample(unit, member)),
                None => {}
            }
        }
        samples
    }

    fn sample(&self, unit: UnitId, member: ConnectionEnd) -> Sample<'c> {
        let pod = match &member {
            ConnectionEnd::Pod { key, .. } => self.cluster.pods.get(key),
            _ => None,
        };
        let policies = pod.into_iter().flat_map(|pod| self.representatives.selecting(pod));
        Sample {
            unit,
            classes: self.answer.reach.units[unit as usize].classes,
            policies: policies.map(|policy| &**policy).collect(),
            member,
            other: None,
            endpoints: Default::default(),
            subjects: Default::default(),
        }
    }

    /// Returns the walk through all traffic between two members, divided by what decides it; `None` if no pair of
    /// addresses can have it.
    fn walk(
        &self,
        from: &Sample<'c>,
        to: &Sample<'c>,
        direction: Direction,
        family: Family,
    ) -> Option<WalkId> {
        // A pod has no connection to itself that policies decide, but the pods of a workload have one to each other.
        let target = match &to.other {
            _ if from.unit != to.unit || from.member != to.member => &to.member,
            Some(other) => other,
            None if matches!(to.member, ConnectionEnd::Pod { .. }) => return None,
            None => &to.member,
        };
        let (subject, peer) = if direction == Direction::Egress { (from, to) } else { (to, from) };
        let key = self.walk_key(subject, peer, direction, family)?;
        if let Some(known) = self.walks.borrow().find(&key) {
            return Some(known);
        }
        let (source, target) = self.representatives.pair(&from.member, target, family)?;
        let walk = self.representatives.walk(&source, &target, direction, &Traffic::all());
        Some(self.walks.borrow_mut().add(key, direction, walk.parts))
    }

    /// Returns what is equal for members between which policies decide alike; `None` if they don't share the family.
    fn walk_key(
        &self,
        subject: &Sample<'c>,
        peer: &Sample<'c>,
        direction: Direction,
        family: Family,
    ) -> Option<WalkKey> {
        let own = match &peer.member {
            ConnectionEnd::OwnNode(_) => Some(true),
            ConnectionEnd::Nodes(_) => Some(false),
            _ => None,
        };
        if let Some(own) = own {
            let key = NodeKey { subject: subject.unit, classes: peer.classes, own, direction };
            return Some(WalkKey::Node(key, family));
        }
        subject.classes[index(family)]?;
        let class = peer.classes[index(family)]?;
        let rules = subject.subjects[at(direction)].get_or_init(|| self.subject(subject, direction));
        let endpoint = peer.endpoints[index(family)]
            .get_or_init(|| self.representatives.of(&peer.member, family).next())
            .as_ref();
        let is_match =
            |entry: &Peer| endpoint.is_some_and(|endpoint| self.representatives.is_peer(entry, endpoint));
        let seen = self.walks.borrow_mut().seen_by(rules, class, is_match);
        Some(WalkKey::Alike(seen, family))
    }

    /// Returns what walks depend on at the side of a subject.
    fn subject(&self, sample: &Sample<'c>, direction: Direction) -> Rc<Subject> {
        if let Some(known) = self.walks.borrow().subject(sample.unit, direction) {
            return known;
        }
        let pod = match &sample.member {
            ConnectionEnd::Pod { key, .. } => self.cluster.pods.get(key),
            _ => None,
        };
        let selecting = sample.policies.iter().copied();
        let policies: Vec<&Policy> = selecting.filter(|policy| policy.rules(direction).is_some()).collect();
        let ports = pod.map_or(&[][..], |pod| &pod.ports);
        self.walks.borrow_mut().add_subject(sample.unit, direction, &policies, ports)
    }

    /// Returns what decides `traffic`, which has this number, in a direction; `None` if no pair of addresses can have it.
    fn deciders(
        &self,
        (from, to): (usize, usize),
        direction: Direction,
        families: Families,
        traffic: &Traffic,
        number: TrafficId,
    ) -> Option<ListId> {
        let (from, to) = (self.facts(from), self.facts(to));
        let subject = if direction == Direction::Egress { from } else { to };
        if !subject.is_pods || subject.unselected[at(direction)] && !from.is_own_node {
            return Some(self.without_walk(direction, subject.is_pods));
        }
        let shared = families.and(from.families).and(to.families);
        let mut found: Option<ListId> = None;
        for family in Family::BOTH.into_iter().filter(|family| shared.contains(*family)) {
            for source in &from.samples {
                for target in &to.samples {
                    let Some(walk) = self.walk(source, target, direction, family) else { continue };
                    let list = self.of_walk(walk, traffic, number);
                    found = Some(found.map_or(list, |known| self.joined(known, list)));
                }
            }
        }
        found
    }

    /// Returns a number that is equal for equal traffic. Neighbours mostly have the same, so the last one is kept.
    fn number(&self, traffic: &Traffic) -> TrafficId {
        let mut last = self.last_traffic.borrow_mut();
        match &*last {
            Some((known, number)) if known == traffic => *number,
            _ => {
                let number = self.traffics.borrow_mut().number(traffic.clone());
                *last = Some((traffic.clone(), number));
                number
            }
        }
    }

    /// Returns what decides everything of a subject that is no pod, or that no policy selects.
    fn without_walk(&self, direction: Direction, is_pod: bool) -> ListId {
        *self.without_walk[at(direction)][usize::from(is_pod)].get_or_init(|| {
            let mut out = Vec::new();
            if self.verdict == Verdict::Allow {
                let decider = if is_pod { Decider::NotIsolated } else { Decider::NoSubject };
                out.push(self.walks.borrow_mut().number(direction, &decider));
            }
            self.lists.borrow_mut().number(out)
        })
    }

    /// Returns what decides some traffic of a walk with this reasoner's verdict.
    fn of_walk(&self, walk: WalkId, traffic: &Traffic, number: TrafficId) -> ListId {
        *self.of_walks.borrow_mut().entry((walk, number)).or_insert_with(|| {
            let walks = self.walks.borrow();
            let decides = |part: &&DecidedPart| {
                part.verdict == self.verdict && !part.traffic.intersection(traffic).is_none()
            };
            let mut out: Vec<DeciderId> =
                walks.parts(walk).iter().filter(decides).map(|part| part.decider).collect();
            out.sort_unstable();
            out.dedup();
            self.lists.borrow_mut().number(out)
        })
    }

    /// Returns the list of the deciders in either list.
    fn joined(&self, a: ListId, b: ListId) -> ListId {
        if a == b {
            return a;
        }
        let mut lists = self.lists.borrow_mut();
        let mut out = lists.get(a).clone();
        out.extend(lists.get(b));
        out.sort_unstable();
        out.dedup();
        lists.number(out)
    }
}

fn at(direction: Direction) -> usize {
    usize::from(direction == Direction::Ingress)
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
        // For the deciders of the other side, an end is what their rules match.
        let selecting = |sample: &Sample<'_>| -> Vec<PolicyKey> {
            if self.side.is_some_and(|side| side != direction) {
                return Vec::new();
            }
            let policies = sample.policies.iter().filter(|policy| policy.rules(direction).is_some());
            policies.map(|policy| policy.key.clone()).collect()
        };
        let samples = self.facts(end).samples.iter();
        let mut key: ApartKey = samples.map(|sample| (selecting(sample), sample.classes)).collect();
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
        let number = self.number(traffic);
        let of = |direction| match self.side {
            Some(side) if side != direction => Some(self.lists.borrow_mut().number(Vec::new())),
            _ => self.deciders((from, to), direction, families, traffic, number),
        };
        let lists = [of(Direction::Egress)?, of(Direction::Ingress)?];
        let number = *self.known.borrow_mut().entry(lists).or_insert_with(|| {
            let (walks, known, mut all) = (self.walks.borrow(), self.lists.borrow(), self.all.borrow_mut());
            let [egress, ingress] = lists.map(|list| walks.deciders(known.get(list)));
            all.push(Rc::new(EdgeReasons { egress, ingress }));
            all.len() as u32 - 1
        });
        Some(number)
    }
}

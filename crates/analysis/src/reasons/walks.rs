//! The walks through policies that reasons need, each done once, and their deciders by number.

use std::{collections::HashMap, rc::Rc};

use palisade_policy::{
    ContainerPort, Direction, Family, Peer, Policy, PolicyKey, PortMatch, Traffic, Verdict,
    walk::{Decider, Part},
};

use crate::{classes::ClassId, families::index, numbering::Numbering, reach::UnitId};

/// The number of a decider of one direction.
pub(super) type DeciderId = u32;
/// The number of a walk.
pub(super) type WalkId = u32;
/// The number of a subject with the peers that its rules see alike.
pub(super) type SeenId = u32;

/// A class of nodes with a subject, in a family. Whether there is such a pair depends on where the subject runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NodeKey {
    pub(super) subject: UnitId,
    pub(super) classes: [Option<ClassId>; 2],
    pub(super) own: bool,
    pub(super) direction: Direction,
}

/// Which pairs one walk decides.
#[derive(Clone, Copy, Debug)]
pub(super) enum WalkKey {
    /// Subjects with equal rules, and peers that the rules see alike.
    Alike(SeenId, Family),
    /// A class of nodes.
    Node(NodeKey, Family),
}

/// What a walk depends on at the side of the subject.
pub(super) struct Subject {
    number: u32,
    /// The numbers of the peers of its rules.
    peers: Vec<u32>,
    /// Whether rules name ports of its peers.
    names_ports: bool,
}

/// What distinguishes one subject from another: its policies in a direction, and its ports, if rules may name them.
type SubjectKey = (Direction, Vec<PolicyKey>, Vec<ContainerPort>);
/// What the rules of a subject see of a class: the numbers of their peers that match it, and the class itself if they name
/// its ports.
type Seen = (u32, Vec<u32>, Option<ClassId>);

/// What distinguishes one decider from another.
type DeciderKey = (Direction, u8, Vec<PolicyKey>, usize);

/// Some traffic, and what decides it.
pub(super) struct DecidedPart {
    pub(super) traffic: Traffic,
    pub(super) verdict: Verdict,
    pub(super) decider: DeciderId,
}

/// The walks so far. What is looked up for each pair of ends is found by number, without a hash.
#[derive(Default)]
pub(super) struct Walks {
    parts: Vec<Vec<DecidedPart>>,
    /// By number of what is seen, and family.
    alike: Vec<[Option<WalkId>; 2]>,
    nodes: HashMap<(NodeKey, Family), WalkId>,
    numbers: HashMap<DeciderKey, DeciderId>,
    deciders: Vec<(DeciderKey, Decider)>,
    subjects: HashMap<(UnitId, Direction), Rc<Subject>>,
    subject_numbers: Numbering<SubjectKey>,
    peers: Numbering<Peer>,
    /// By peer and class.
    matches: Vec<ByClass<bool>>,
    seen: Numbering<Seen>,
    /// By subject and class.
    seen_by: Vec<ByClass<SeenId>>,
}

/// Values by class, as far as they are known.
struct ByClass<T>(Vec<Option<T>>);

impl<T: Copy> ByClass<T> {
    /// Returns the table with a number, and makes it and those before it if they are missing.
    fn at(tables: &mut Vec<Self>, number: u32) -> &mut Self {
        let number = number as usize;
        if tables.len() <= number {
            tables.resize_with(number + 1, || Self(Vec::new()));
        }
        &mut tables[number]
    }

    fn get(&self, class: ClassId) -> Option<T> {
        *self.0.get(class as usize)?
    }

    fn set(&mut self, class: ClassId, value: T) {
        let class = class as usize;
        if self.0.len() <= class {
            self.0.resize(class + 1, None);
        }
        self.0[class] = Some(value);
    }
}

impl Walks {
    /// Returns the subject of a unit, if it is known.
    pub(super) fn subject(&self, unit: UnitId, direction: Direction) -> Option<Rc<Subject>> {
        self.subjects.get(&(unit, direction)).cloned()
    }

    /// Keeps the subject of a unit: the policies that select it and have rules in this direction, in order, and its ports.
    pub(super) fn add_subject(
        &mut self,
        unit: UnitId,
        direction: Direction,
        policies: &[&Policy],
        ports: &[ContainerPort],
    ) -> Rc<Subject> {
        let rules = || policies.iter().filter_map(|policy| policy.rules(direction)).flatten();
        let named = rules()
            .flat_map(|rule| rule.ports.iter().flatten())
            .any(|entry| matches!(entry.port, PortMatch::Named { .. }));
        // Ports are those of the destination.
        let own = if named && direction == Direction::Ingress { ports.to_vec() } else { Vec::new() };
        let keys = policies.iter().map(|policy| policy.key.clone()).collect();
        let entries = rules().flat_map(|rule| rule.peers.iter().flatten());
        let mut peers: Vec<u32> = entries.map(|entry| self.peers.number(entry.peer.clone())).collect();
        peers.sort_unstable();
        peers.dedup();
        let subject = Rc::new(Subject {
            number: self.subject_numbers.number((direction, keys, own)),
            peers,
            names_ports: named && direction == Direction::Egress,
        });
        self.subjects.insert((unit, direction), Rc::clone(&subject));
        subject
    }

    /// Returns a number that is equal for classes that the rules of a subject see alike. `is_match` is asked for a peer of its
    /// rules at most once for each class.
    pub(super) fn seen_by(
        &mut self,
        subject: &Subject,
        class: ClassId,
        is_match: impl Fn(&Peer) -> bool,
    ) -> SeenId {
        let seen_by = ByClass::at(&mut self.seen_by, subject.number);
        if let Some(known) = seen_by.get(class) {
            return known;
        }
        let (peers, matches) = (&self.peers, &mut self.matches);
        let mut is_match = |peer: &u32| {
            let of_peer = ByClass::at(matches, *peer);
            of_peer.get(class).unwrap_or_else(|| {
                let found = is_match(peers.get(*peer));
                of_peer.set(class, found);
                found
            })
        };
        let matching = subject.peers.iter().copied().filter(|peer| is_match(peer)).collect();
        let seen = self.seen.number((subject.number, matching, subject.names_ports.then_some(class)));
        seen_by.set(class, seen);
        seen
    }

    /// Returns the walk of some pairs, if it was done.
    pub(super) fn find(&self, walk: &WalkKey) -> Option<WalkId> {
        match walk {
            WalkKey::Alike(seen, family) => self.alike.get(*seen as usize)?[index(*family)],
            WalkKey::Node(key, family) => self.nodes.get(&(*key, *family)).copied(),
        }
    }

    /// Returns the parts of a walk. Panics if there is none with this number.
    pub(super) fn parts(&self, walk: WalkId) -> &[DecidedPart] {
        &self.parts[walk as usize]
    }

    /// Keeps the parts of a walk in a direction.
    pub(super) fn add(&mut self, walk: WalkKey, direction: Direction, parts: Vec<Part>) -> WalkId {
        let decided = parts.into_iter().map(|Part { traffic, verdict, decider }| DecidedPart {
            traffic,
            verdict,
            decider: self.number(direction, &decider),
        });
        let decided: Vec<DecidedPart> = decided.collect();
        let number = self.parts.len() as WalkId;
        self.parts.push(decided);
        match walk {
            WalkKey::Alike(seen, family) => {
                let seen = seen as usize;
                if self.alike.len() <= seen {
                    self.alike.resize(seen + 1, [None; 2]);
                }
                self.alike[seen][index(family)] = Some(number);
            }
            WalkKey::Node(key, family) => {
                self.nodes.insert((key, family), number);
            }
        }
        number
    }

    /// Returns the number of a decider.
    pub(super) fn number(&mut self, direction: Direction, decider: &Decider) -> DeciderId {
        let key = key(direction, decider);
        if let Some(known) = self.numbers.get(&key) {
            return *known;
        }
        let number = self.deciders.len() as DeciderId;
        self.numbers.insert(key.clone(), number);
        self.deciders.push((key, decider.clone()));
        number
    }

    /// Returns deciders of one direction by their numbers, sorted by what they are.
    pub(super) fn deciders(&self, numbers: &[DeciderId]) -> Vec<Decider> {
        let mut found: Vec<&(DeciderKey, Decider)> =
            numbers.iter().map(|number| &self.deciders[*number as usize]).collect();
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        found.into_iter().map(|(_, decider)| decider.clone()).collect()
    }
}

fn key(direction: Direction, decider: &Decider) -> DeciderKey {
    let (kind, index) = match decider {
        Decider::Itself => (0, 0),
        Decider::NoSubject => (1, 0),
        Decider::OwnNode => (2, 0),
        Decider::NotIsolated => (3, 0),
        Decider::Hairpin => (4, 0),
        Decider::Rule(rule) => (5, rule.index),
        Decider::Isolated(_) => (6, 0),
    };
    (direction, kind, decider.policies().cloned().collect(), index)
}

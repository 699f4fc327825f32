//! The walks through policies that reasons need, each done once, and their deciders by number.

use std::{collections::HashMap, rc::Rc};

use palisade_policy::{
    ContainerPort, Direction, Family, Peer, Policy, PolicyKey, PortMatch, Traffic, Verdict,
    walk::{Decider, Part},
};

use crate::{classes::ClassId, numbering::Numbering, reach::UnitId};

/// The number of a decider of one direction.
pub(super) type DeciderId = u32;
/// A subject with some of its peers, in a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum WalkKey {
    /// Subjects with equal rules, and peers that the rules see alike.
    Alike { subject: u32, peers: u32, direction: Direction, family: Family },
    /// A class of nodes: whether there is such a pair depends on where the subject runs.
    Node { subject: UnitId, classes: [Option<ClassId>; 2], own: bool, direction: Direction, family: Family },
}

/// What a walk depends on at the side of the subject.
pub(super) struct Subject {
    pub(super) number: u32,
    /// The numbers of the peers of its rules.
    peers: Vec<u32>,
    /// Whether rules name ports of its peers.
    names_ports: bool,
}

/// What distinguishes one subject from another: its policies in a direction, and its ports, if rules may name them.
type SubjectKey = (Direction, Vec<PolicyKey>, Vec<ContainerPort>);
/// What the rules of a subject see of a class: which of their peers match it, and the class itself if they name its ports.
type Seen = (u32, Vec<bool>, Option<ClassId>);

/// What distinguishes one decider from another.
type DeciderKey = (Direction, u8, Vec<PolicyKey>, usize);

/// Some traffic, and what decides it.
pub(super) struct DecidedPart {
    pub(super) traffic: Traffic,
    pub(super) verdict: Verdict,
    pub(super) decider: DeciderId,
}

/// The walks so far.
#[derive(Default)]
pub(super) struct Walks {
    parts: HashMap<WalkKey, Rc<[DecidedPart]>>,
    numbers: HashMap<DeciderKey, DeciderId>,
    deciders: Vec<(DeciderKey, Decider)>,
    subjects: HashMap<(UnitId, Direction), Rc<Subject>>,
    subject_numbers: Numbering<SubjectKey>,
    peers: Numbering<Peer>,
    matches: HashMap<(u32, ClassId), bool>,
    seen: Numbering<Seen>,
    /// By subject and class.
    seen_by: HashMap<(u32, ClassId), u32>,
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
    ) -> u32 {
        if let Some(known) = self.seen_by.get(&(subject.number, class)) {
            return *known;
        }
        let (peers, matches) = (&self.peers, &mut self.matches);
        let mut is_match =
            |peer: &u32| *matches.entry((*peer, class)).or_insert_with(|| is_match(peers.get(*peer)));
        let matching = subject.peers.iter().map(&mut is_match).collect();
        let seen = self.seen.number((subject.number, matching, subject.names_ports.then_some(class)));
        self.seen_by.insert((subject.number, class), seen);
        seen
    }

    /// Returns the parts of a walk, if it was done.
    pub(super) fn find(&self, walk: &WalkKey) -> Option<Rc<[DecidedPart]>> {
        self.parts.get(walk).cloned()
    }

    /// Keeps the parts of a walk.
    pub(super) fn add(&mut self, walk: WalkKey, parts: Vec<Part>) -> Rc<[DecidedPart]> {
        let (WalkKey::Alike { direction, .. } | WalkKey::Node { direction, .. }) = walk;
        let decided = parts.into_iter().map(|Part { traffic, verdict, decider }| DecidedPart {
            traffic,
            verdict,
            decider: self.number(direction, &decider),
        });
        let decided: Rc<[DecidedPart]> = decided.collect();
        self.parts.insert(walk, Rc::clone(&decided));
        decided
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

//! The walks through policies that reasons need, each done once, and their deciders by number.

use std::{collections::HashMap, rc::Rc};

use palisade_policy::{
    Direction, Family, PolicyKey, Traffic, Verdict,
    walk::{Decider, Part},
};

use crate::{classes::ClassId, reach::UnitId};

/// The number of a decider of one direction.
pub(super) type DeciderId = u32;
/// A subject with a class of its peers, in a family.
pub(super) type WalkKey = (UnitId, Direction, [Option<ClassId>; 2], bool, Family);
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
}

impl Walks {
    /// Returns the parts of a walk, if it was done.
    pub(super) fn find(&self, walk: &WalkKey) -> Option<Rc<[DecidedPart]>> {
        self.parts.get(walk).cloned()
    }

    /// Keeps the parts of a walk.
    pub(super) fn add(&mut self, walk: WalkKey, parts: Vec<Part>) -> Rc<[DecidedPart]> {
        let direction = walk.1;
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

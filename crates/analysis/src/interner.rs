//! Equal values as equal numbers: sets of traffic recur, so that comparing and storing them must cost nothing.

use std::{collections::HashMap, hash::Hash};

use palisade_policy::Traffic;

/// Numbers for values, in the order in which they were first seen.
#[derive(Debug)]
pub(crate) struct Interner<T> {
    values: Vec<T>,
    numbers: HashMap<T, u32>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { values: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Eq + Hash + Clone> Interner<T> {
    pub(crate) fn number(&mut self, value: T) -> u32 {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        let number = self.values.len() as u32;
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }

    /// The number of a value that has been seen.
    pub(crate) fn find(&self, value: &T) -> Option<u32> {
        self.numbers.get(value).copied()
    }

    pub(crate) fn values(&self) -> &[T] {
        &self.values
    }

    pub(crate) fn get(&self, number: u32) -> &T {
        &self.values[number as usize]
    }
}

/// Names a [`Traffic`] in a [`Traffics`].
pub(crate) type TrafficId = u32;

/// Sets of traffic, with intersections remembered.
#[derive(Debug)]
pub(crate) struct Traffics {
    sets: Interner<Traffic>,
    meets: HashMap<(TrafficId, TrafficId), TrafficId>,
}

impl Traffics {
    /// Nothing.
    pub(crate) const NONE: TrafficId = 0;
    /// Everything.
    pub(crate) const ALL: TrafficId = 1;

    pub(crate) fn new() -> Self {
        let mut sets = Interner::default();
        sets.number(Traffic::none());
        sets.number(Traffic::all());
        Self { sets, meets: HashMap::new() }
    }

    pub(crate) fn get(&self, id: TrafficId) -> &Traffic {
        self.sets.get(id)
    }

    /// All sets, by their names.
    pub(crate) fn all(&self) -> &[Traffic] {
        self.sets.values()
    }

    pub(crate) fn id(&mut self, traffic: Traffic) -> TrafficId {
        self.sets.number(traffic)
    }

    /// What is in both, if it has been worked out by [`Self::learn_meet`] or is plain.
    pub(crate) fn meet(&self, a: TrafficId, b: TrafficId) -> Option<TrafficId> {
        match (a, b) {
            (Self::NONE, _) | (_, Self::NONE) => Some(Self::NONE),
            (Self::ALL, other) | (other, Self::ALL) => Some(other),
            _ if a == b => Some(a),
            _ => self.meets.get(&(a.min(b), a.max(b))).copied(),
        }
    }

    /// What is in both, remembered.
    pub(crate) fn learn_meet(&mut self, a: TrafficId, b: TrafficId) -> TrafficId {
        if let Some(known) = self.meet(a, b) {
            return known;
        }
        let both = self.get(a).intersection(self.get(b));
        let id = self.id(both);
        self.meets.insert((a.min(b), a.max(b)), id);
        id
    }
}

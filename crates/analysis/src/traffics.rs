//! Sets of traffic as numbers, with their intersections.

use std::collections::HashMap;

use palisade_policy::Traffic;

use crate::numbering::Numbering;

/// Names a [`Traffic`] in a [`Traffics`].
pub(crate) type TrafficId = u32;

/// What one end may send to another, by family; `None` where they don't share the family.
pub(crate) type Cell = [Option<TrafficId>; 2];

/// Sets of traffic, with intersections remembered.
#[derive(Debug)]
pub(crate) struct Traffics {
    sets: Numbering<Traffic>,
    meets: HashMap<(TrafficId, TrafficId), TrafficId>,
}

impl Traffics {
    /// Nothing.
    pub(crate) const NONE: TrafficId = 0;
    /// Everything.
    pub(crate) const ALL: TrafficId = 1;

    pub(crate) fn new() -> Self {
        let mut sets = Numbering::default();
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

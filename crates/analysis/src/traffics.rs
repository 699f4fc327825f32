//! Numbered sets of traffic, and their intersections.

use std::collections::HashMap;

use palisade_policy::{EffectiveRules, Name, Protocol, Traffic};

use crate::numbering::Numbering;

/// Identifies a set of traffic in [`Traffics`].
pub(crate) type TrafficId = u32;

/// The traffic from one end to another, by family; `None` if they don't share the family.
pub(crate) type Cell = [Option<TrafficId>; 2];

/// The traffic that is allowed wherever an unknown address lies, and the traffic that is allowed for some of its possible
/// values. They are equal if the address is known, or doesn't matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Bounds {
    pub(crate) certain: TrafficId,
    pub(crate) possible: TrafficId,
}

impl Bounds {
    /// Traffic that no unknown address matters for.
    pub(crate) fn exactly(id: TrafficId) -> Self {
        Self { certain: id, possible: id }
    }
}

/// Sets of traffic and computed intersections.
#[derive(Debug)]
pub(crate) struct Traffics {
    sets: Numbering<Traffic>,
    intersections: HashMap<(TrafficId, TrafficId), TrafficId>,
}

impl Traffics {
    /// No traffic.
    pub(crate) const NONE: TrafficId = 0;
    /// All traffic.
    pub(crate) const ALL: TrafficId = 1;

    pub(crate) fn new() -> Self {
        let mut sets = Numbering::default();
        sets.number(Traffic::none());
        sets.number(Traffic::all());
        Self { sets, intersections: HashMap::new() }
    }

    pub(crate) fn get(&self, id: TrafficId) -> &Traffic {
        self.sets.get(id)
    }

    /// Returns all sets, by number.
    pub(crate) fn all(&self) -> &[Traffic] {
        self.sets.values()
    }

    pub(crate) fn id(&mut self, traffic: Traffic) -> TrafficId {
        self.sets.number(traffic)
    }

    /// Returns the traffic with a peer that the rules `rules` match, and in addition those of one of `patterns`, by their
    /// blocks.
    pub(crate) fn bounds(
        &mut self,
        effective: &EffectiveRules,
        rules: &[usize],
        ports: &[(Name, Protocol, u16)],
        patterns: &[Vec<usize>],
    ) -> Bounds {
        let [first, others @ ..] = patterns else {
            return Bounds::exactly(self.id(effective.allowed(rules, ports)));
        };
        let allowed = |pattern: &[usize]| {
            let mut all = [rules, pattern].concat();
            all.sort_unstable();
            all.dedup();
            effective.allowed(&all, ports)
        };
        let mut certain = allowed(first);
        let mut possible = certain.clone();
        for pattern in others {
            let allowed = allowed(pattern);
            certain = certain.intersection(&allowed);
            possible = possible.union(&allowed);
        }
        Bounds { certain: self.id(certain), possible: self.id(possible) }
    }

    /// Returns whether an intersection needs no computation.
    pub(crate) fn is_trivial(a: TrafficId, b: TrafficId) -> bool {
        a <= Self::ALL || b <= Self::ALL || a == b
    }

    /// Returns an intersection that is trivial or was computed by [`Self::intersect`].
    pub(crate) fn intersection_of(&self, a: TrafficId, b: TrafficId) -> Option<TrafficId> {
        match (a, b) {
            (Self::NONE, _) | (_, Self::NONE) => Some(Self::NONE),
            (Self::ALL, other) | (other, Self::ALL) => Some(other),
            _ if a == b => Some(a),
            _ => self.intersections.get(&(a.min(b), a.max(b))).copied(),
        }
    }

    /// Computes an intersection and stores it.
    pub(crate) fn intersect(&mut self, a: TrafficId, b: TrafficId) -> TrafficId {
        if let Some(known) = self.intersection_of(a, b) {
            return known;
        }
        let both = self.get(a).intersection(self.get(b));
        let id = self.id(both);
        self.intersections.insert((a.min(b), a.max(b)), id);
        id
    }
}

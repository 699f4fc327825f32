//! The changes between the ends of two clusters.

use std::collections::BTreeMap;

use palisade_policy::{Cluster, Direction, Family, PolicyKey, Traffic};

use super::{
    causes::{self, CauseFinder},
    change::{Cause, ConnectionChange, PolicyEdit},
    forwarded::RoutePairs,
    touched::Touched,
};
use crate::{
    connections::Connections,
    controller::ControllerRoutes,
    end::ConnectionEnd,
    families::Families,
    matching::{MatchedEnd, matched},
    numbering::Numbering,
    query::ConnectionsOptions,
};

/// The connections of two clusters.
pub(super) struct Comparison<'c> {
    pub(super) answers: [Connections; 2],
    /// The ends of both.
    pub(super) ends: Vec<MatchedEnd>,
    /// Which of them may have other connections.
    touched: Touched,
    /// The numbers of each side's traffic. Equal traffic has equal numbers.
    numbers: [Vec<u32>; 2],
    pub(super) finder: CauseFinder<'c>,
    routes: RoutePairs<'c>,
    /// Whether the result is still wanted. Loops over ends stop when it is not.
    pub(super) is_wanted: &'c dyn Fn() -> bool,
}

/// The traffic of a pair by family; `None` if there is no such pair.
type Exchanged<'a> = Option<[Option<&'a Traffic>; 2]>;

impl<'c> Comparison<'c> {
    /// Computes the connections of two clusters with their nodes; `None` if they are not wanted any more.
    pub(super) fn new(
        clusters: [&'c Cluster; 2],
        routes: [&'c ControllerRoutes; 2],
        policies: &BTreeMap<PolicyKey, PolicyEdit>,
        is_wanted: &'c dyn Fn() -> bool,
    ) -> Option<Self> {
        let answer = |side: usize| {
            let controller_routes = routes[side].clone();
            let options =
                ConnectionsOptions { nodes: true, controller_routes, ..ConnectionsOptions::default() };
            is_wanted().then(|| Connections::new(clusters[side], &options))
        };
        let answers = [answer(0)?, answer(1)?];
        let mut traffics = Numbering::default();
        let numbers = [0, 1].map(|side: usize| {
            answers[side].sets().iter().map(|t: &Traffic| traffics.number(t.clone())).collect()
        });
        let ends = matched(&answers[0], &answers[1]);
        let touched = Touched::new(clusters, &ends, policies);
        let finder = CauseFinder::new(clusters, policies);
        Some(Self { answers, ends, touched, numbers, finder, routes: RoutePairs::new(routes), is_wanted })
    }

    /// Returns the changes between the ends that `wanted` selects, as pairs.
    pub(super) fn changes(
        &self,
        wanted: impl Fn(&ConnectionEnd, &ConnectionEnd) -> bool,
    ) -> Vec<ConnectionChange> {
        let mut changes = Vec::new();
        for (from, to) in self.touched_pairs() {
            if !self.is_same(from, to) && wanted(&from.end, &to.end) {
                self.compare(from, to, &mut changes);
            }
        }
        changes
    }

    /// Iterates over the pairs whose connections the change may affect, in the order of their ends.
    pub(super) fn touched_pairs(&self) -> impl Iterator<Item = (&MatchedEnd, &MatchedEnd)> {
        self.ends.iter().enumerate().take_while(|_| (self.is_wanted)()).flat_map(move |(i, from)| {
            let lone = from.part.is_some_and(|pods| pods < 2);
            let targets = self.touched.targets_of(i).filter(move |to| !(lone && *to == i));
            targets.map(move |to| (from, &self.ends[to]))
        })
    }

    /// Returns whether a pair has the same traffic on both sides. Nearly all pairs do, so this only compares numbers.
    fn is_same(&self, from: &MatchedEnd, to: &MatchedEnd) -> bool {
        let cell = |side: usize| {
            let cells = self.answers[side].ids(from.at[side]?, to.at[side]?)?;
            Some(cells.map(|cell| cell.map(|id| id.map(|id| self.numbers[side][id as usize]))))
        };
        cell(0).is_some_and(|before| cell(1) == Some(before))
    }

    fn compare(&self, from: &MatchedEnd, to: &MatchedEnd, changes: &mut Vec<ConnectionChange>) {
        let on_both = |end: &MatchedEnd| end.at.iter().all(Option::is_some);
        let forwarded = matches!(from.end, ConnectionEnd::IngressController(_));
        if !on_both(to) || !(forwarded || on_both(from)) {
            return;
        }
        let [a, b] = [0, 1].map(|side| self.exchanged(side, from, to));
        let possible = [0, 1].map(|side| self.possible(side, from, to));
        // Without routes, the controller sends nothing.
        if !forwarded && (a.is_none() || b.is_none()) {
            return;
        }
        let nothing = Traffic::none();
        let mut found: Vec<ConnectionChange> = Vec::new();
        for (family, place) in Family::BOTH.into_iter().zip(0..) {
            let [a, b] = [a, b].map(|e| e.and_then(|e| e[place]).unwrap_or(&nothing));
            let [maybe_a, maybe_b] = possible.each_ref().map(|traffic| &traffic[place]);
            let (opened, closed) = (b.difference(maybe_a), a.difference(maybe_b));
            if opened.is_none() && closed.is_none() {
                continue;
            }
            let causes = self.causes(from, to, family, &opened.union(&closed));
            let families = Families { v4: family == Family::V4, v6: family == Family::V6 };
            let (from, to) = (from.end.clone(), to.end.clone());
            let change = ConnectionChange { from, to, families, opened, closed, causes };
            match found.last_mut() {
                Some(other) if ConnectionChange { families, ..other.clone() } == change => {
                    other.families.v6 = true;
                }
                _ => found.push(change),
            }
        }
        changes.append(&mut found);
    }

    pub(super) fn exchanged(&self, side: usize, from: &MatchedEnd, to: &MatchedEnd) -> Exchanged<'_> {
        let mut out = None;
        for edge in self.answers[side].between(from.at[side]?, to.at[side]?) {
            let found = out.get_or_insert([None; 2]);
            if edge.families.v4 {
                found[0] = Some(edge.traffic);
            }
            if edge.families.v6 {
                found[1] = Some(edge.traffic);
            }
        }
        out
    }

    fn causes(&self, from: &MatchedEnd, to: &MatchedEnd, family: Family, changed: &Traffic) -> Vec<Cause> {
        let mut found = BTreeMap::new();
        if matches!(from.end, ConnectionEnd::IngressController(_)) {
            self.routes.add(&self.finder, &to.end, family, changed, &mut found);
        } else {
            for direction in Direction::BOTH {
                if !self.allows_the_same(from, to, direction, family, changed) {
                    self.finder.add([&from.end, &to.end], family, direction, changed, &mut found);
                }
            }
        }
        causes::sorted(found)
    }

    /// Returns whether the rules of one direction allow the same part of this traffic before and after, so that they
    /// are no cause.
    fn allows_the_same(
        &self,
        from: &MatchedEnd,
        to: &MatchedEnd,
        direction: Direction,
        family: Family,
        changed: &Traffic,
    ) -> bool {
        let allowed = |side: usize| {
            let answer: &Connections = &self.answers[side];
            answer.allowed_by_rules_of(from.at[side]?, to.at[side]?, direction, family)
        };
        match (allowed(0), allowed(1)) {
            (Some(a), Some(b)) => a == b || a.intersection(changed) == b.intersection(changed),
            _ => false,
        }
    }
}

//! Compares the connections of two clusters.
//!
//! Workloads are the same if their kind, namespace and name are equal. External ranges are divided by the policies of
//! both clusters. A pair of ends that exists on one side only, because pods moved to other nodes or the number of
//! replicas changed, is no change. A workload that was added or removed is listed with its connections.
//!
//! ```text
//! two clusters ─► Connections ×2 ─► matched ends ─► changed pairs ──► causes   edits whose reversal undoes the change
//!                                        │              └───────────► forwarded   the same for ingress controllers
//!                                        ├──────────► presence   ends of one side
//!                                        └──────────► dns
//! ```

mod blame;
mod causes;
mod change;
mod dns;
mod edits;
mod forwarded;
mod joined;
mod policies;
mod presence;

use std::collections::BTreeMap;

use palisade_policy::{Cluster, Direction, Family, Traffic};

pub use change::{
    Cause, ConnectionChange, Diff, Directions, DnsChange, Edit, EndChange, EndTraffic, Labeled, NewlyBlocked,
    ObjectChange, PolicyChange, PolicyEdit, Presence, WorkloadKey,
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
pub use policies::changed_policies;

use causes::CauseFinder;
use forwarded::RoutePairs;

/// One side of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct DiffSide<'c> {
    /// The cluster.
    pub cluster: &'c Cluster,
    /// The routes into it; `None` if connections that come through them are not asked for.
    pub routes: Option<&'c ControllerRoutes>,
}

impl<'c> From<&'c Cluster> for DiffSide<'c> {
    /// A side without routes.
    fn from(cluster: &'c Cluster) -> Self {
        Self { cluster, routes: None }
    }
}

/// Compares two clusters, with their nodes and ingress controllers. `O(ends²)` plus `O(edits)` walks for each change for
/// which several edits may be the cause, up to a limit.
#[must_use]
pub fn diff<'c>(before: impl Into<DiffSide<'c>>, after: impl Into<DiffSide<'c>>) -> Diff {
    let (before, after) = (before.into(), after.into());
    let none = ControllerRoutes::default();
    let routes = [before, after].map(|side| side.routes.unwrap_or(&none));
    let answers = [(before, routes[0]), (after, routes[1])].map(|(side, routes)| {
        let controller_routes = routes.clone();
        let options = ConnectionsOptions { nodes: true, controller_routes, ..ConnectionsOptions::default() };
        Connections::new(side.cluster, &options)
    });
    let mut traffics = Numbering::default();
    let numbers = [0, 1]
        .map(|side| answers[side].sets().iter().map(|t: &Traffic| traffics.number(t.clone())).collect());
    let policies = changed_policies(before.cluster, after.cluster);
    let finder = CauseFinder::new([before.cluster, after.cluster], &policies);
    let comparison = Comparison { answers, numbers, finder, routes: RoutePairs::new(routes) };
    let ends = matched(&comparison.answers[0], &comparison.answers[1]);
    let mut changes = Vec::new();
    for (i, from) in ends.iter().enumerate() {
        for (j, to) in ends.iter().enumerate() {
            let itself = i == j && from.part.is_some_and(|pods| pods < 2);
            if !itself && !comparison.is_same(from, to) {
                comparison.compare(from, to, &mut changes);
            }
        }
    }
    Diff {
        changes: joined::joined(changes),
        ends: presence::one_sided(&comparison.answers, &ends),
        dns: dns::dns_changes(&comparison.finder, &comparison.answers, &ends),
        blocked: newly_blocked(&comparison.answers),
        policies,
    }
}

struct Comparison<'c> {
    answers: [Connections; 2],
    /// The numbers of each side's traffic. Equal traffic has equal numbers.
    numbers: [Vec<u32>; 2],
    finder: CauseFinder<'c>,
    routes: RoutePairs<'c>,
}

/// The traffic of a pair by family; `None` if there is no such pair.
type Exchanged<'a> = Option<[Option<&'a Traffic>; 2]>;

impl Comparison<'_> {
    /// Returns whether a pair has the same traffic on both sides. Nearly all pairs do, so this only compares numbers.
    fn is_same(&self, from: &MatchedEnd, to: &MatchedEnd) -> bool {
        let cell = |side: usize| {
            let cell = self.answers[side].ids(from.at[side]?, to.at[side]?)?;
            Some(cell.map(|id| id.map(|id| self.numbers[side][id as usize])))
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
        // Without routes, the controller sends nothing.
        if !forwarded && (a.is_none() || b.is_none()) {
            return;
        }
        let nothing = Traffic::none();
        let mut found: Vec<ConnectionChange> = Vec::new();
        for (family, place) in Family::BOTH.into_iter().zip(0..) {
            let [a, b] = [a, b].map(|e| e.and_then(|e| e[place]).unwrap_or(&nothing));
            if a == b {
                continue;
            }
            let (opened, closed) = (b.difference(a), a.difference(b));
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

    fn exchanged(&self, side: usize, from: &MatchedEnd, to: &MatchedEnd) -> Exchanged<'_> {
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

/// Returns the traffic that routes require and policies deny after the change, and that was not denied before.
fn newly_blocked(answers: &[Connections; 2]) -> Vec<NewlyBlocked> {
    let [before, after] = answers;
    let mut out = Vec::new();
    for blocked in after.blocked() {
        let to = after.end(blocked.to);
        let was = |old: &&crate::controller::BlockedTraffic| {
            is_same_workload(before.end(old.to), to) && old.families == blocked.families
        };
        let was = before.blocked().iter().filter(was).map(|old| &old.traffic);
        let traffic = was.fold(blocked.traffic.clone(), |left, old| left.difference(old));
        if !traffic.is_none() {
            let through = blocked.through.clone();
            out.push(NewlyBlocked { to: to.clone(), families: blocked.families, traffic, through });
        }
    }
    out
}

fn is_same_workload(a: &ConnectionEnd, b: &ConnectionEnd) -> bool {
    match (a, b) {
        (ConnectionEnd::Workload(a), ConnectionEnd::Workload(b)) => {
            (&a.namespace, &a.kind, &a.name) == (&b.namespace, &b.kind, &b.name)
        }
        _ => a == b,
    }
}

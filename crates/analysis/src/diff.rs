//! Compares the connections of two clusters.
//!
//! Workloads are the same if their kind, namespace and name are equal. External ranges are divided by the policies of
//! both clusters. A pair of ends that exists on one side only, because pods moved to other nodes or the number of
//! replicas changed, is no change. A workload or address that was added or removed is one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use palisade_policy::{
    Action, Cluster, Direction, Family, Origin, Policy, PolicyKey, Rule, Traffic, address::union, walk::Walk,
};

use crate::{
    connections::Connections,
    end::{ConnectionEnd, ExternalRanges, NodeAddresses},
    families::Families,
    matching::{MatchedEnd, matched},
    numbering::Numbering,
    query::ConnectionsOptions,
    representative::Representatives,
};

/// The differences between two clusters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// The pairs of ends with different connections, sorted by ends.
    pub changes: Vec<ConnectionChange>,
    /// The policies that differ, whether or not this changes connections, sorted.
    pub policies: BTreeMap<PolicyKey, PolicyChange>,
}

/// A pair of ends with different connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionChange {
    /// The client.
    pub from: ConnectionEnd,
    /// The server.
    pub to: ConnectionEnd,
    /// The IP families.
    pub families: Families,
    /// The traffic that is newly allowed.
    pub opened: Traffic,
    /// The traffic that is no longer allowed.
    pub closed: Traffic,
    /// Whether an end was added or removed. In this case there are no causes.
    pub presence: Presence,
    /// The policies that caused the difference, sorted. Empty if it was caused by other objects, or if an end was added
    /// or removed.
    pub causes: Vec<Cause>,
}

/// The side on which both ends exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Presence {
    /// Both sides.
    Both,
    /// Only before: an end was removed.
    Before,
    /// Only after: an end was added.
    After,
}

/// A policy that caused a difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cause {
    /// The direction in which it applies: egress of the source, or ingress of the destination.
    pub direction: Direction,
    /// The policy.
    pub policy: PolicyKey,
    /// How it changed.
    pub change: PolicyChange,
    /// Its old position.
    pub before: Option<Origin>,
    /// Its new position.
    pub after: Option<Origin>,
}

/// How a policy changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyChange {
    /// It was added.
    Added,
    /// It was removed.
    Removed,
    /// It was edited.
    Edited,
    /// It is unchanged, but labels, ports or addresses of the selected objects changed.
    Unchanged,
}

/// Compares two clusters. `nodes` includes nodes as ends. `O(ends²)` plus two walks for each change.
#[must_use]
pub fn diff(before: &Cluster, after: &Cluster, nodes: bool) -> Diff {
    let options = ConnectionsOptions { nodes, ..ConnectionsOptions::default() };
    let answers = [Connections::new(before, &options), Connections::new(after, &options)];
    let mut traffics = Numbering::default();
    let numbers = [0, 1]
        .map(|side| answers[side].sets().iter().map(|t: &Traffic| traffics.number(t.clone())).collect());
    let comparison = Comparison {
        clusters: [before, after],
        answers,
        numbers,
        representatives: [Representatives::new(before), Representatives::new(after)],
        policies: policy_changes(before, after),
    };
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
    Diff { changes: joined(changes), policies: comparison.policies }
}

struct Comparison<'c> {
    clusters: [&'c Cluster; 2],
    answers: [Connections; 2],
    /// The numbers of each side's traffic. Equal traffic has equal numbers.
    numbers: [Vec<u32>; 2],
    representatives: [Representatives<'c>; 2],
    policies: BTreeMap<PolicyKey, PolicyChange>,
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
        let exists = [0, 1].map(|side| from.at[side].is_some() && to.at[side].is_some());
        let presence = match exists {
            [true, true] => Presence::Both,
            [true, false] => Presence::Before,
            [false, true] => Presence::After,
            [false, false] => return,
        };
        let [a, b] = [0, 1].map(|side| self.exchanged(side, from, to));
        if presence == Presence::Both && (a.is_none() || b.is_none()) {
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
            let causes = if presence == Presence::Both {
                self.causes(from, to, family, &opened.union(&closed))
            } else {
                Vec::new()
            };
            let families = Families { v4: family == Family::V4, v6: family == Family::V6 };
            let (from, to) = (from.end.clone(), to.end.clone());
            let change = ConnectionChange { from, to, families, opened, closed, presence, causes };
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

    /// Returns the changed policies among those that decide the changed traffic; or all of them if none changed.
    fn causes(&self, from: &MatchedEnd, to: &MatchedEnd, family: Family, changed: &Traffic) -> Vec<Cause> {
        let mut found = Vec::new();
        for direction in Direction::BOTH {
            if self.allows_the_same(from, to, direction, family, changed) {
                continue;
            }
            let walks: Vec<Walk> = self
                .representatives
                .iter()
                .filter_map(|representatives| {
                    let (source, target) = representatives.pair(&from.end, &to.end, family)?;
                    Some(representatives.walk(&source, &target, direction, changed))
                })
                .collect();
            let [before, after] = &walks[..] else { continue };
            let (a, b) = (before.allowed(), after.allowed());
            let differs = a.difference(&b).union(&b.difference(&a));
            if !differs.is_none() {
                let deciding = walks.iter().flat_map(|walk| deciding(walk, &differs));
                let deciding: std::collections::BTreeSet<&PolicyKey> = deciding.collect();
                found.extend(deciding.into_iter().map(|key| self.cause(direction, key)));
            }
        }
        if found.iter().any(|cause| cause.change != PolicyChange::Unchanged) {
            found.retain(|cause| cause.change != PolicyChange::Unchanged);
        }
        found.sort_unstable();
        found
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

    fn cause(&self, direction: Direction, key: &PolicyKey) -> Cause {
        let [before, after] = self.clusters.map(|c| c.policies.get(key).and_then(|p| p.origin.clone()));
        let change = self.policies.get(key).copied().unwrap_or(PolicyChange::Unchanged);
        Cause { direction, policy: key.clone(), change, before, after }
    }
}

/// Returns the policies of a walk that decide some of this traffic, or pass it to the next tier.
fn deciding<'w>(walk: &'w Walk, traffic: &'w Traffic) -> impl Iterator<Item = &'w PolicyKey> {
    let touches = |t: &Traffic| !t.intersection(traffic).is_none();
    let deciders = walk.parts.iter().filter(move |p| touches(&p.traffic)).flat_map(|p| p.decider.policies());
    let passing = walk
        .policies
        .iter()
        .filter(move |policy| policy.rules.iter().any(|r| r.action == Action::Pass && touches(&r.takes)));
    deciders.chain(passing.map(|policy| &policy.policy))
}

/// Returns the policies that were added, removed or edited.
fn policy_changes(before: &Cluster, after: &Cluster) -> BTreeMap<PolicyKey, PolicyChange> {
    let gone = before.policies.keys().filter(|key| !after.policies.contains_key(*key));
    let mut out: BTreeMap<_, _> = gone.map(|key| (key.clone(), PolicyChange::Removed)).collect();
    for (key, policy) in &after.policies {
        match before.policies.get(key) {
            None => drop(out.insert(key.clone(), PolicyChange::Added)),
            Some(old) if !is_equivalent(old, policy) => drop(out.insert(key.clone(), PolicyChange::Edited)),
            Some(_) => {}
        }
    }
    out
}

/// Returns whether two policies are equal, except for positions and the names of rules.
fn is_equivalent(a: &Arc<Policy>, b: &Arc<Policy>) -> bool {
    fn without_origins(policy: &Policy) -> Policy {
        let rule = |rule: &Rule| {
            let mut rule = Rule { name: None, origin: None, ..rule.clone() };
            rule.peers.iter_mut().flatten().for_each(|p| p.origin = None);
            rule.ports.iter_mut().flatten().for_each(|p| p.origin = None);
            rule
        };
        let rules = |rules: &Option<Vec<Rule>>| rules.as_ref().map(|all| all.iter().map(rule).collect());
        let (ingress, egress) = (rules(&policy.ingress), rules(&policy.egress));
        Policy { ingress, egress, origin: None, ..policy.clone() }
    }
    Arc::ptr_eq(a, b) || without_origins(a) == without_origins(b)
}

/// Combines changes that only differ in external addresses or nodes. Sorts the result.
fn joined(changes: Vec<ConnectionChange>) -> Vec<ConnectionChange> {
    let mut out: Vec<ConnectionChange> = Vec::with_capacity(changes.len());
    let mut places: HashMap<(ConnectionEnd, ConnectionEnd), Vec<usize>> = HashMap::new();
    for change in changes {
        let key = (without_members(&change.from), without_members(&change.to));
        let places = places.entry(key).or_default();
        let same = |other: &ConnectionChange| {
            (other.families, other.presence) == (change.families, change.presence)
                && (&other.opened, &other.closed) == (&change.opened, &change.closed)
                && other.causes == change.causes
        };
        match places.iter().copied().find(|i| same(&out[*i])) {
            Some(i) => {
                join(&mut out[i].from, change.from);
                join(&mut out[i].to, change.to);
            }
            None => {
                places.push(out.len());
                out.push(change);
            }
        }
    }
    let key = |c: &ConnectionChange| (c.from.clone(), c.to.clone(), c.families);
    out.sort_by_cached_key(key);
    out
}

/// Returns the end without its external addresses or nodes.
fn without_members(end: &ConnectionEnd) -> ConnectionEnd {
    match end {
        ConnectionEnd::External(e) => {
            ConnectionEnd::External(ExternalRanges { family: e.family, ranges: Vec::new() })
        }
        ConnectionEnd::OwnNode(_) => ConnectionEnd::OwnNode(Vec::new()),
        ConnectionEnd::Nodes(_) => ConnectionEnd::Nodes(Vec::new()),
        other => other.clone(),
    }
}

fn join(end: &mut ConnectionEnd, other: ConnectionEnd) {
    match (end, other) {
        (ConnectionEnd::External(a), ConnectionEnd::External(b)) => {
            a.ranges.extend(b.ranges);
            a.ranges = union(std::mem::take(&mut a.ranges));
        }
        (ConnectionEnd::OwnNode(a), ConnectionEnd::OwnNode(b))
        | (ConnectionEnd::Nodes(a), ConnectionEnd::Nodes(b)) => {
            let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
            for node in a.drain(..).chain(b) {
                all.entry(node.name).or_default().extend(node.addresses);
            }
            let node = |(name, mut addresses): (_, Vec<_>)| {
                addresses.sort_unstable();
                addresses.dedup();
                NodeAddresses { name, addresses }
            };
            *a = all.into_iter().map(node).collect();
        }
        _ => {}
    }
}

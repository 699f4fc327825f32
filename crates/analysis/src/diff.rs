//! What leads from one cluster to another opens and closes.
//!
//! Workloads are the same if kind, namespace and name are; the outside is cut where either cluster's policies cut it.
//! A pair of ends that exists on one side alone, because a pod runs elsewhere or a workload has other replicas, is no
//! change; a workload or address that is new or gone is.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use palisade_policy::{
    Action, Cluster, Direction, Family, Origin, Policy, PolicyKey, Rule, Traffic, walk::Walk,
};

use crate::{
    connections::Connections,
    end::ConnectionEnd,
    end::{ExternalRanges, NodeAddresses},
    families::Families,
    matching::{Matched, matched},
    numbering::Numbering,
    query::ConnectionsOptions,
    representative::Representatives,
    space::merged,
};

/// What two clusters differ in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Every pair of ends that may exchange something else; sorted by ends.
    pub changes: Vec<ConnectionChange>,
    /// The policies that mean something else, whether or not that changes a connection; sorted.
    pub policies: BTreeMap<PolicyKey, PolicyChange>,
}

/// One pair of ends that may exchange something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionChange {
    /// Who opens connections.
    pub from: ConnectionEnd,
    /// Who is called.
    pub to: ConnectionEnd,
    /// In which families.
    pub families: Families,
    /// What is allowed now and was not.
    pub opened: Traffic,
    /// What was allowed and no longer is.
    pub closed: Traffic,
    /// Whether an end is new or gone. Then that is why, and there are no causes.
    pub presence: Presence,
    /// The policies that made the difference; sorted. Empty if objects besides policies did, or an end is new or gone.
    pub causes: Vec<Cause>,
}

/// On which side both ends exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Presence {
    /// On both.
    Both,
    /// Before alone: an end is gone.
    Before,
    /// After alone: an end is new.
    After,
}

/// A policy that made a difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cause {
    /// The direction in which it acts on this pair: egress of the source, ingress of the destination.
    pub direction: Direction,
    /// Which.
    pub policy: PolicyKey,
    /// What happened to it.
    pub change: PolicyChange,
    /// Where it stood.
    pub before: Option<Origin>,
    /// Where it stands.
    pub after: Option<Origin>,
}

/// What happened to a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyChange {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It says something else.
    Edited,
    /// It says the same; labels, ports or addresses of what it chooses changed.
    Unchanged,
}

/// Compares two clusters. `nodes` says whether nodes are ends. `O(ends²)` plus two walks per change.
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
    /// The sets of traffic of each answer, numbered so that equal ones have equal numbers.
    numbers: [Vec<u32>; 2],
    representatives: [Representatives<'c>; 2],
    policies: BTreeMap<PolicyKey, PolicyChange>,
}

/// What a pair may exchange, by family; `None` if there is no such pair.
type Exchanged<'a> = Option<[Option<&'a Traffic>; 2]>;

impl Comparison<'_> {
    /// Whether a pair that both sides have may exchange the same on both: what nearly all do, and so decided by numbers.
    fn is_same(&self, from: &Matched, to: &Matched) -> bool {
        let cell = |side: usize| {
            let cell = self.answers[side].ids(from.at[side]?, to.at[side]?)?;
            Some(cell.map(|id| id.map(|id| self.numbers[side][id as usize])))
        };
        cell(0).is_some_and(|before| cell(1) == Some(before))
    }

    fn compare(&self, from: &Matched, to: &Matched, changes: &mut Vec<ConnectionChange>) {
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

    fn exchanged(&self, side: usize, from: &Matched, to: &Matched) -> Exchanged<'_> {
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

    /// Of the policies that decide the changed traffic on either side, those that changed; if none did, all of them.
    fn causes(&self, from: &Matched, to: &Matched, family: Family, changed: &Traffic) -> Vec<Cause> {
        let mut found = Vec::new();
        for direction in Direction::BOTH {
            if self.is_unmoved(from, to, direction, family, changed) {
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

    /// Whether the rules of one side allow the same of this traffic before and after, so that they are no cause.
    fn is_unmoved(
        &self,
        from: &Matched,
        to: &Matched,
        direction: Direction,
        family: Family,
        changed: &Traffic,
    ) -> bool {
        let allowed = |side: usize| {
            let answer: &Connections = &self.answers[side];
            answer.one_side(from.at[side]?, to.at[side]?, direction, family)
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

/// The policies that a walk asks and that have a part in some of this traffic: they decide it, or pass it on.
fn deciding<'w>(walk: &'w Walk, traffic: &'w Traffic) -> impl Iterator<Item = &'w PolicyKey> {
    let touches = |t: &Traffic| !t.intersection(traffic).is_none();
    let deciders = walk.parts.iter().filter(move |p| touches(&p.traffic)).flat_map(|p| p.decider.policies());
    let passing = walk
        .policies
        .iter()
        .filter(move |policy| policy.rules.iter().any(|r| r.action == Action::Pass && touches(&r.takes)));
    deciders.chain(passing.map(|policy| &policy.policy))
}

/// The policies that are new, gone, or say something else.
fn policy_changes(before: &Cluster, after: &Cluster) -> BTreeMap<PolicyKey, PolicyChange> {
    let gone = before.policies.keys().filter(|key| !after.policies.contains_key(*key));
    let mut out: BTreeMap<_, _> = gone.map(|key| (key.clone(), PolicyChange::Removed)).collect();
    for (key, policy) in &after.policies {
        match before.policies.get(key) {
            None => drop(out.insert(key.clone(), PolicyChange::Added)),
            Some(old) if !means_the_same(old, policy) => drop(out.insert(key.clone(), PolicyChange::Edited)),
            Some(_) => {}
        }
    }
    out
}

/// Whether two policies are equal but for where they stand and what their rules are called.
fn means_the_same(a: &Arc<Policy>, b: &Arc<Policy>) -> bool {
    fn placeless(policy: &Policy) -> Policy {
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
    Arc::ptr_eq(a, b) || placeless(a) == placeless(b)
}

/// Changes that are equal but for the outside addresses or nodes at one end become one. Sorted.
fn joined(changes: Vec<ConnectionChange>) -> Vec<ConnectionChange> {
    let mut out: Vec<ConnectionChange> = Vec::with_capacity(changes.len());
    let mut places: HashMap<(ConnectionEnd, ConnectionEnd), Vec<usize>> = HashMap::new();
    for change in changes {
        let key = (kind_of(&change.from), kind_of(&change.to));
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

/// The end without its outside addresses or nodes.
fn kind_of(end: &ConnectionEnd) -> ConnectionEnd {
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
            a.ranges = merged(std::mem::take(&mut a.ranges));
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

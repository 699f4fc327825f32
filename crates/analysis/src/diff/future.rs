//! What changes for pods that don't exist yet.
//!
//! Three kinds of pods are asked about: the workloads that exist, with peers that may come; the pods that a changed policy
//! selects, if there are none; and the pods of a namespace whose labels changed, if there are none. The sets of peers come
//! from [`exposure_change`]. For ends that exist, made-up pods with the labels that are asked about take part in a
//! comparison.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use palisade_policy::{
    Cluster, ContainerPort, Direction, NamespaceMatch, ObjectKey, Pod, PodMatch, Policy, PolicyKey, Selector,
};

use super::{
    change::{ConnectionChange, Edit, EndTraffic, FutureChange, FuturePods, PolicyEdit},
    compare::Comparison,
    edits::{EndPair, PodPair, PolicyPair, Reversal},
    made_up::MadeUpPods,
};
use crate::{
    controller::ControllerRoutes,
    end::ConnectionEnd,
    exposure::{
        Exposure, ExposureOptions, ExposureRow, PodSet, PodTraffic, Subject, exposure, exposure_change,
    },
};

/// Returns what changes for pods that don't exist yet. `changes` are those between ends that exist.
pub(super) fn exposure_changes(
    comparison: &Comparison<'_>,
    policies: &BTreeMap<PolicyKey, PolicyEdit>,
    changes: &[ConnectionChange],
) -> Vec<FutureChange> {
    let mut found = Found::default();
    existing(comparison, changes, &mut found);
    let clusters = comparison.finder.clusters;
    let mut asked: BTreeSet<PodMatch> = BTreeSet::new();
    for (choice, keys) in selected_by_changed(clusters, policies) {
        if !(comparison.is_wanted)() {
            break;
        }
        of_selected(comparison, &choice, &keys, &mut found);
        asked.insert(choice);
    }
    let moved = in_relabelled_namespaces(clusters);
    with_ends(comparison, policies, &asked, &moved, &mut found);
    found.sorted()
}

impl FutureChange {
    /// A change that is not known.
    fn unknown(subject: FuturePods, direction: Direction, causes: &[Edit]) -> Self {
        Self {
            subjects: vec![subject],
            direction,
            opened: true,
            any_pod: PodTraffic::default(),
            rows: Vec::new(),
            sets: Vec::new(),
            ends: Vec::new(),
            exact: false,
            causes: causes.to_vec(),
        }
    }
}

/// The changes, by what they are except for the subject.
#[derive(Default)]
struct Found(Vec<FutureChange>);

impl Found {
    /// Adds a change, or its subject to an equal one.
    fn add(&mut self, change: FutureChange) {
        let nothing = change.any_pod.is_none() && change.rows.is_empty() && change.ends.is_empty();
        if nothing && change.exact {
            return;
        }
        let same = |other: &&mut FutureChange| {
            FutureChange { subjects: change.subjects.clone(), ..(**other).clone() } == change
        };
        match self.0.iter_mut().find(same) {
            Some(known) => known.subjects.extend(change.subjects),
            None => self.0.push(change),
        }
    }

    fn sorted(mut self) -> Vec<FutureChange> {
        for change in &mut self.0 {
            change.subjects.sort();
            change.causes.sort();
        }
        // What opens to every pod is the largest risk.
        self.0.sort_by(|a, b| {
            let rank = |c: &FutureChange| (!c.opened, c.any_pod.is_none(), c.direction == Direction::Egress);
            rank(a).cmp(&rank(b)).then_with(|| a.subjects.cmp(&b.subjects))
        });
        self.0
    }
}

/// The most edits of one workload that are reversed one by one.
const MOST_EDITS: usize = 8;

/// What decides the exposure of a pod: the policies that may select it, and its ports on both sides.
type Key<'a> = (Direction, Vec<*const Policy>, [&'a [ContainerPort]; 2], Vec<Edit>);

/// The most workloads for which exposures are tried that turn out to have too many sets.
const MOST_INEXACT: usize = 4;

/// Adds the changes of workloads that exist on both sides.
fn existing(comparison: &Comparison<'_>, changes: &[ConnectionChange], found: &mut Found) {
    let finder = &comparison.finder;
    let mut known: HashMap<Key<'_>, Option<[Side; 2]>> = HashMap::new();
    let mut too_many = 0;
    for end in comparison.ends.iter().take_while(|_| (comparison.is_wanted)()) {
        let (ConnectionEnd::Workload(_), [Some(_), Some(_)]) = (&end.end, end.at) else { continue };
        let pods = [0, 1].map(|side: usize| {
            let families = palisade_policy::Family::BOTH.into_iter();
            families.filter_map(|f| finder.representatives[side].of(&end.end, f).next()).next()
        });
        let [Some(before), Some(after)] = &pods else { continue };
        let Some(pair) = EndPair::new(finder.clusters, [before, after]) else { continue };
        let EndPair::Pod(pods) = &pair else { continue };
        for direction in Direction::BOTH {
            let all: Vec<&PolicyPair<'_>> =
                finder.policies.of(pods).filter(|p| p.applies(direction)).collect();
            let mut edits: Vec<Edit> =
                all.iter().filter_map(|pair| Some(Edit::Policy(pair.changed.clone()?))).collect();
            pair.edits(&finder.keys, &mut edits);
            // Other addresses don't change which pods are peers.
            edits.retain(|edit| !matches!(edit, Edit::Addresses(_)));
            if edits.is_empty() {
                continue;
            }
            let sides = all.iter().flat_map(|pair| pair.sides).flatten().map(Arc::as_ptr).collect();
            let key = (direction, sides, pods.pods.map(|pod| &*pod.ports), edits.clone());
            let scene = Scene { comparison, pair: &pair, pods, all: &all, edits: &edits, direction };
            let both = known.entry(key).or_insert_with(|| {
                // An answer that takes too long is not tried for every workload.
                let both = if too_many < MOST_INEXACT { scene.changes() } else { None };
                too_many += usize::from(both.iter().flatten().any(|side| !side.change.exact));
                both
            });
            if both.is_none() {
                found.add(FutureChange::unknown(FuturePods::Existing(end.end.clone()), direction, &edits));
            }
            for (opened, exposure) in [true, false].into_iter().zip(both.iter().flatten()) {
                let visible = has_changes(changes, &end.end, direction, opened);
                // The connections of pods that exist show what changes for their set; so do those with addresses outside.
                let itself = &pods.pods[1].key;
                let exists = |set: &PodSet| {
                    set.existing(finder.clusters[usize::from(opened)]).any(|pod| pod.key != *itself)
                };
                let rows = exposure
                    .change
                    .rows
                    .iter()
                    .map(|row| ExposureRow { exists: exists(&row.set), ..row.clone() });
                let shown = |row: &ExposureRow| !visible || !(row.exists || row.set.addresses.is_some());
                // That every pod is cut off shows in the connections of those that exist.
                let any_pod = (opened || !visible).then(|| exposure.change.any_pod.all.clone());
                let rows: Vec<ExposureRow> = rows.filter(shown).collect();
                found.add(FutureChange {
                    subjects: vec![FuturePods::Existing(end.end.clone())],
                    direction,
                    opened,
                    any_pod: any_pod.unwrap_or_default(),
                    sets: sets(&exposure.whole, &rows, exists),
                    rows,
                    ends: Vec::new(),
                    exact: exposure.change.exact,
                    causes: exposure.causes.clone(),
                });
            }
        }
    }
}

/// Returns whether connections of an end in this direction changed.
fn has_changes(
    changes: &[ConnectionChange],
    end: &ConnectionEnd,
    direction: Direction,
    opened: bool,
) -> bool {
    changes.iter().any(|change| {
        let own = if direction == Direction::Egress { &change.from } else { &change.to };
        own == end && !(if opened { &change.opened } else { &change.closed }).is_none()
    })
}

/// An existing workload and the edits that may change its exposure in one direction.
struct Scene<'a, 'c> {
    comparison: &'a Comparison<'c>,
    pair: &'a EndPair<'c>,
    pods: &'a PodPair<'c>,
    all: &'a [&'a PolicyPair<'c>],
    edits: &'a [Edit],
    direction: Direction,
}

impl Scene<'_, '_> {
    /// Returns what is opened and what is closed, with the edits without which it would be another change.
    fn changes(&self) -> Option<[Side; 2]> {
        let whole = self.change(&vec![false; self.edits.len()])?;
        let mut causes = [Vec::new(), Vec::new()];
        let nothing = whole.iter().all(Exposure::is_none);
        // Bounds don't tell changes apart.
        let comparable = !nothing && whole.iter().all(|side| side.exact) && self.edits.len() <= MOST_EDITS;
        for (at, edit) in self.edits.iter().enumerate().filter(|_| comparable) {
            let mut reversed = vec![false; self.edits.len()];
            reversed[at] = true;
            let only = self.edits.len() == 1;
            let without = if only { None } else { self.change(&reversed) };
            for (side, causes) in causes.iter_mut().enumerate() {
                if without.as_ref().is_none_or(|without| without[side] != whole[side]) {
                    causes.push(edit.clone());
                }
            }
        }
        if nothing || !whole.iter().all(|side| side.exact) {
            let causes = self.edits.to_vec();
            return Some(whole.map(|change| Side { whole: change.clone(), change, causes: causes.clone() }));
        }
        let [before, after] = self.clusters(&vec![false; self.edits.len()]);
        let whole_of = |cluster: &Cluster| {
            let pod = cluster.pods.get(&self.pods.pods[1].key)?;
            Some(exposure(cluster, &Subject::Pod(pod), self.direction, &ExposureOptions::default()))
        };
        let [of_opened, of_closed] =
            causes.map(|causes| if causes.is_empty() { self.edits.to_vec() } else { causes });
        let [opened, closed] = whole;
        Some([
            Side { change: opened, whole: whole_of(&after)?, causes: of_opened },
            Side { change: closed, whole: whole_of(&before)?, causes: of_closed },
        ])
    }

    /// Returns what is opened and closed with some edits reversed.
    fn change(&self, reversed: &[bool]) -> Option<[Exposure; 2]> {
        let [before, after] = self.clusters(reversed);
        let key = &self.pods.pods[1].key;
        let subjects = [Subject::Pod(before.pods.get(key)?), Subject::Pod(after.pods.get(key)?)];
        let options = ExposureOptions::default();
        let change = exposure_change([&before, &after], &subjects, self.direction, &options);
        Some([change.opened, change.closed])
    }

    /// Returns the workload's pod with its policies before the change, and after it with some edits reversed.
    fn clusters(&self, reversed: &[bool]) -> [Cluster; 2] {
        let all_reversed = vec![true; self.edits.len()];
        [(0, &all_reversed[..]), (1, reversed)].map(|(side, reversed): (usize, _)| {
            let reversal = Reversal { edits: self.edits, reversed };
            let namespaces = self.comparison.finder.clusters[side].namespaces.clone();
            let mut cluster = Cluster { namespaces, ..Cluster::default() };
            for policy in self.all.iter().filter_map(|pair| reversal.policy(pair)) {
                cluster.policies.insert(policy.key.clone(), Arc::clone(policy));
            }
            self.pair.place(&mut cluster, reversal);
            cluster
        })
    }
}

/// What is opened or closed for an existing workload.
struct Side {
    change: Exposure,
    /// Everything that is allowed after the change, or before it for what is closed.
    whole: Exposure,
    causes: Vec<Edit>,
}

/// Returns `rows`, with those that a set of `whole` contains joined to that set, if there are several. `exists` returns whether a pod of a set
/// exists.
fn sets(whole: &Exposure, rows: &[ExposureRow], exists: impl Fn(&PodSet) -> bool) -> Vec<ExposureRow> {
    let every = ExposureRow {
        set: PodSet::default(),
        exists: exists(&PodSet::default()),
        reached: whole.any_pod.clone(),
        more: Vec::new(),
    };
    let mut joined: Vec<(&PodSet, Vec<&ExposureRow>)> = Vec::new();
    for row in rows {
        let contains = |set: &&ExposureRow| {
            // Of all pods, those at some addresses are not enough to be named as all.
            let same_detail = row.set.addresses.is_none() || set.set.addresses.is_some();
            let is_within = same_detail && row.set.condition(&set.set) == PodSet::default();
            is_within && row.reached.some.is_subset(&set.reached.all) && exists(&set.set) == row.exists
        };
        let set = [&every].into_iter().chain(&whole.rows).find(contains).unwrap_or(row);
        match joined.iter_mut().find(|(known, _)| **known == set.set) {
            Some((_, parts)) => parts.push(row),
            None => joined.push((&set.set, vec![row])),
        }
    }
    let join = |(set, parts): (&PodSet, Vec<&ExposureRow>)| {
        let (first, others) = parts.split_first()?;
        let mut sum = (*first).clone();
        sum.more = Vec::new();
        if !others.is_empty() {
            sum.set = set.clone();
        }
        for part in others {
            sum.reached.all = sum.reached.all.union(&part.reached.all);
            sum.reached.some = sum.reached.some.union(&part.reached.some);
        }
        Some(sum)
    };
    joined.into_iter().filter_map(join).collect()
}

/// Returns the selections of changed policies that no running pod matches on either side, with these policies.
fn selected_by_changed(
    clusters: [&Cluster; 2],
    policies: &BTreeMap<PolicyKey, PolicyEdit>,
) -> BTreeMap<PodMatch, Vec<Edit>> {
    let mut out: BTreeMap<PodMatch, Vec<Edit>> = BTreeMap::new();
    for (key, edit) in policies {
        if edit.change == super::change::PolicyChange::Renamed {
            continue;
        }
        let sides = [(&edit.before, clusters[0]), (&edit.after, clusters[1])];
        for (key_of_side, cluster) in sides {
            let policy = key_of_side.as_ref().and_then(|key| cluster.policies.get(key));
            let Some(subject) = policy.map(|policy| &policy.subject) else { continue };
            let selects = |cluster: &Cluster| {
                let mut pods = cluster.pods.values().filter(|pod| pod.is_running());
                pods.any(|pod| {
                    let labels = cluster.namespaces.get(&pod.key.namespace).map(|n| &n.labels);
                    subject.matches(&pod.key.namespace, labels, &pod.labels)
                })
            };
            if !clusters.into_iter().any(selects) {
                let edits = out.entry(subject.clone()).or_default();
                let edit = Edit::Policy(key.clone());
                if !edits.contains(&edit) {
                    edits.push(edit);
                }
            }
        }
    }
    out
}

/// Adds the changes of pods that a changed policy selects and that don't exist.
fn of_selected(comparison: &Comparison<'_>, choice: &PodMatch, edits: &[Edit], found: &mut Found) {
    let subject = Subject::Pods(choice.clone());
    let subjects = [subject.clone(), subject.clone()];
    let clusters = comparison.finder.clusters;
    for direction in Direction::BOTH {
        let options = ExposureOptions::default();
        let change = exposure_change(clusters, &subjects, direction, &options);
        for (opened, change, cluster) in
            [(true, change.opened, clusters[1]), (false, change.closed, clusters[0])]
        {
            let whole = exposure(cluster, &subject, direction, &options);
            let exists = |set: &PodSet| set.existing(cluster).next().is_some();
            found.add(FutureChange {
                subjects: vec![FuturePods::Selected(choice.clone())],
                direction,
                opened,
                any_pod: change.any_pod.all,
                sets: sets(&whole, &change.rows, exists),
                rows: change.rows,
                ends: Vec::new(),
                exact: change.exact,
                causes: edits.to_vec(),
            });
        }
    }
}

/// Returns selections of pods in namespaces whose labels changed and that have no running pod: all pods of the namespace,
/// and those that rules select there by labels.
fn in_relabelled_namespaces(clusters: [&Cluster; 2]) -> BTreeSet<PodMatch> {
    let mut out = BTreeSet::new();
    for (name, after) in &clusters[1].namespaces {
        let Some(before) = clusters[0].namespaces.get(name).filter(|n| n.labels != after.labels) else {
            continue;
        };
        let has_pods = |cluster: &&Cluster| cluster.pods.in_namespace(name).any(Pod::is_running);
        if clusters.iter().any(has_pods) {
            continue;
        }
        let moves = |selector: &Selector| selector.matches(&before.labels) != selector.matches(&after.labels);
        for policy in clusters.iter().flat_map(|c| c.policies.values()) {
            let rules = Direction::BOTH.into_iter().filter_map(|d| policy.rules(d)).flatten();
            let peers = rules.filter_map(|rule| rule.peers.as_ref()).flatten();
            let peers = peers.filter_map(|entry| match &entry.peer {
                palisade_policy::Peer::Pods(choice) => Some(choice),
                _ => None,
            });
            for choice in peers.chain([&policy.subject]) {
                if let NamespaceMatch::Selected(selector) = &choice.namespaces
                    && moves(selector)
                {
                    let namespaces = NamespaceMatch::Named(name.clone());
                    out.insert(PodMatch { namespaces, pods: choice.pods.clone() });
                }
            }
        }
    }
    out
}

/// Adds the changes between made-up pods and ends that exist: for pods that policies select, only nodes and external
/// addresses, since sets of pods were compared before; for pods of namespaces with other labels, all.
fn with_ends(
    comparison: &Comparison<'_>,
    policies: &BTreeMap<PolicyKey, PolicyEdit>,
    selected: &BTreeSet<PodMatch>,
    moved: &BTreeSet<PodMatch>,
    found: &mut Found,
) {
    let choices: Vec<&PodMatch> = selected.union(moved).collect();
    if choices.is_empty() {
        return;
    }
    // Pods that exist are only peers of pods in namespaces with other labels.
    let made_up = MadeUpPods::new(comparison.finder.clusters, &choices, !moved.is_empty());
    let none = ControllerRoutes::default();
    let [before, after] = &made_up.clusters;
    let Some(other) = Comparison::new([before, after], [&none, &none], policies, comparison.is_wanted) else {
        return;
    };
    let choice_of = |end: &ConnectionEnd| match end {
        ConnectionEnd::Workload(w) => {
            let key = ObjectKey { namespace: w.namespace.clone(), name: w.pods.first()?.clone() };
            made_up.choices.get(&key)
        }
        _ => None,
    };
    let is_pods = |end: &ConnectionEnd| matches!(end, ConnectionEnd::Workload(_));
    let wanted = |own: &ConnectionEnd, peer: &ConnectionEnd| {
        choice_of(own)
            .is_some_and(|choice| choice_of(peer).is_none() && (!is_pods(peer) || moved.contains(choice)))
    };
    let changes = super::joined::joined(other.changes(|from, to| wanted(from, to) || wanted(to, from)));
    for change in changes {
        for (direction, own, peer) in
            [(Direction::Egress, &change.from, &change.to), (Direction::Ingress, &change.to, &change.from)]
        {
            let Some(choice) = choice_of(own).filter(|_| wanted(own, peer)) else { continue };
            for (opened, traffic) in [(true, &change.opened), (false, &change.closed)] {
                if !traffic.is_none() {
                    let (ends, families) = (vec![peer.clone()], change.families);
                    found.add_end(FutureChange {
                        subjects: vec![FuturePods::Selected(choice.clone())],
                        direction,
                        opened,
                        any_pod: PodTraffic::default(),
                        rows: Vec::new(),
                        sets: Vec::new(),
                        ends: vec![EndTraffic { ends, families, traffic: traffic.clone() }],
                        exact: true,
                        causes: change.causes.iter().map(|cause| cause.edit.clone()).collect(),
                    });
                }
            }
        }
    }
}

impl Found {
    /// Adds a change with an end to that of the same subject and causes.
    fn add_end(&mut self, change: FutureChange) {
        let same = |other: &&mut FutureChange| {
            (&other.subjects, other.direction, other.opened, &other.causes)
                == (&change.subjects, change.direction, change.opened, &change.causes)
        };
        let Some(known) = self.0.iter_mut().find(same) else { return self.0.push(change) };
        for new in change.ends {
            // External addresses show their family.
            let outside =
                |ends: &[ConnectionEnd]| ends.iter().all(|e| matches!(e, ConnectionEnd::External(_)));
            let alike = |old: &&mut EndTraffic| {
                old.traffic == new.traffic
                    && (old.families == new.families || (outside(&old.ends) && outside(&new.ends)))
            };
            match known.ends.iter_mut().find(alike) {
                Some(old) => {
                    old.families.v4 |= new.families.v4;
                    old.families.v6 |= new.families.v6;
                    old.ends.extend(new.ends);
                }
                None => known.ends.push(new),
            }
        }
    }
}

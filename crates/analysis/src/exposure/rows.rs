//! Rows that people can read from covers: few sets, each described by labels as rules state them.

use std::collections::{BTreeMap, BTreeSet};

use palisade_policy::{LabelSet, LabelValues, Name};

use super::{
    cover::Cover,
    pod_set::{Overflow, PodSet, World},
    pod_traffic::PodTraffic,
    row::{ExposureRow, MoreTraffic, Reached},
};

/// The most sets that differ in one label only and are made disjoint.
const MOST_SEPARATED: usize = 48;

/// What pods get by the policies of a subject.
pub(super) struct Answer {
    /// What they get with every pod of the subject.
    pub(super) every: Cover,
    /// What they get with some pod of the subject.
    pub(super) some: Cover,
    /// All traffic.
    pub(super) all: PodTraffic,
}

impl Answer {
    /// Returns what all pods get, and the rows for those that get more. The rows are sorted, and don't depend on the
    /// names of policies or namespaces.
    pub(super) fn rows(&self, world: &World) -> Result<(Reached, Vec<ExposureRow>), Overflow> {
        let any = self.reached(&PodSet::default(), world)?;
        let sets = self.every.pieces().iter().chain(self.some.pieces()).map(|p| p.set.clone());
        let mut rows = Vec::new();
        for set in separated(sets.collect(), world) {
            let reached = self.reached(&set, world)?;
            rows.push(ExposureRow { set, exists: false, reached, more: Vec::new() });
        }
        let rows = merged(rows);
        world.spend(2 * rows.len() * rows.len())?;
        let mut rows = self.needed(rows, &any, world);
        let more: Vec<Vec<MoreTraffic>> = rows.iter().map(|row| more(row, &rows, world)).collect();
        for (row, more) in rows.iter_mut().zip(more) {
            row.more = more;
        }
        Ok((any, rows))
    }

    fn reached(&self, set: &PodSet, world: &World) -> Result<Reached, Overflow> {
        let all = self.every.guaranteed(set, &self.all, world)?;
        Ok(Reached { all, some: self.some.possible(set, world) })
    }

    /// Returns what pods of the set get with some pods of the subject, though perhaps not with all.
    fn direct(&self, set: &PodSet) -> PodTraffic {
        let larger = self.some.pieces().iter().filter(|p| set.is_within(&p.set));
        larger.fold(PodTraffic::default(), |sum, p| sum.union(&p.traffic))
    }

    /// Leaves out rows that say nothing that rows of larger sets don't.
    fn needed(&self, rows: Vec<ExposureRow>, any: &Reached, world: &World) -> Vec<ExposureRow> {
        let says = |row: &ExposureRow| {
            let (mut all, mut direct) = (any.all.clone(), row.reached.all.clone());
            for larger in rows.iter().filter(|o| o.set != row.set && world.is_subset(&row.set, &o.set)) {
                all = all.union(&larger.reached.all);
                direct = direct.union(&self.direct(&larger.set));
            }
            !(row.reached.all.is_subset(&all) && self.direct(&row.set).is_subset(&direct))
        };
        let needed: Vec<bool> = rows.iter().map(says).collect();
        rows.into_iter().zip(needed).filter(|(_, needed)| *needed).map(|(row, _)| row).collect()
    }
}

/// Returns what some pods of a row get by other rows.
fn more(row: &ExposureRow, rows: &[ExposureRow], world: &World) -> Vec<MoreTraffic> {
    let mut out = Vec::new();
    for other in rows.iter().filter(|o| o.set != row.set) {
        let traffic = other.reached.all.difference(&row.reached.all);
        if !traffic.is_none() && world.intersection(&row.set, &other.set).is_some() {
            out.push(MoreTraffic { condition: row.set.condition(&other.set), traffic });
        }
    }
    out
}

/// One label of a set: of the namespace, or of the pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum LabelOf {
    Namespace(Name),
    Pod(Name),
}

impl LabelOf {
    fn all(set: &PodSet) -> Vec<Self> {
        let namespaces = set.namespaces.iter().map(|(key, _)| Self::Namespace(key.clone()));
        namespaces.chain(set.pods.iter().map(|(key, _)| Self::Pod(key.clone()))).collect()
    }

    fn values(&self, set: &PodSet) -> Option<LabelValues> {
        match self {
            Self::Namespace(key) => set.namespaces.get(key).cloned(),
            Self::Pod(key) => set.pods.get(key).cloned(),
        }
    }

    fn without(&self, set: &PodSet) -> PodSet {
        let mut out = set.clone();
        match self {
            Self::Namespace(key) => out.namespaces = out.namespaces.without(key),
            Self::Pod(key) => out.pods = out.pods.without(key),
        }
        out
    }

    /// Returns a set that doesn't constrain this label with this constraint.
    fn with(&self, rest: &PodSet, values: LabelValues) -> PodSet {
        let mut out = rest.clone();
        let (labels, key) = match self {
            Self::Namespace(key) => (&mut out.namespaces, key),
            Self::Pod(key) => (&mut out.pods, key),
        };
        if let Some(both) = labels.intersection(&LabelSet::with_one(key, values)) {
            *labels = both;
        }
        out
    }
}

/// Divides sets that overlap and differ in one label only, so that `app` and `app notin (x)` become `app=x`, `app` other
/// than `x`, and no `app`. Sets that contain each other stay.
fn separated(sets: BTreeSet<PodSet>, world: &World) -> BTreeSet<PodSet> {
    let mut sets = sets;
    let labels: BTreeSet<LabelOf> = sets.iter().flat_map(LabelOf::all).collect();
    for label in labels {
        let mut groups: BTreeMap<PodSet, BTreeSet<LabelValues>> = BTreeMap::new();
        let mut out = BTreeSet::new();
        for set in sets {
            match label.values(&set) {
                Some(values) => drop(groups.entry(label.without(&set)).or_default().insert(values)),
                None => drop(out.insert(set)),
            }
        }
        for (rest, values) in groups {
            let disjoint = if values.len() > MOST_SEPARATED { values } else { disjoint(values) };
            let sets = disjoint.into_iter().map(|values| label.with(&rest, values));
            out.extend(sets.filter_map(|set| world.normal(set)));
        }
        sets = out;
    }
    sets
}

/// Divides constraints that overlap without containing each other, until there are none.
fn disjoint(values: BTreeSet<LabelValues>) -> BTreeSet<LabelValues> {
    let mut values = values;
    while values.len() <= 2 * MOST_SEPARATED {
        let overlap = values.iter().find_map(|a| {
            let other = |b: &&LabelValues| !a.is_subset(b) && !b.is_subset(a) && a.intersection(b).is_some();
            values.iter().find(other).map(|b| (a.clone(), b.clone()))
        });
        let Some((a, b)) = overlap else { break };
        values.remove(&a);
        values.remove(&b);
        values.extend(a.intersection(&b));
        for (own, other) in [(&a, &b), (&b, &a)] {
            values.extend(other.complement().iter().filter_map(|outside| own.intersection(outside)));
        }
    }
    values
}

/// Joins rows that get the same and differ in the values of one label only: `app=a` and `app=b` become `app in (a,b)`.
fn merged(rows: Vec<ExposureRow>) -> Vec<ExposureRow> {
    let mut rows: BTreeMap<PodSet, Reached> = rows.into_iter().map(|row| (row.set, row.reached)).collect();
    let labels: BTreeSet<LabelOf> = rows.keys().flat_map(LabelOf::all).collect();
    for label in labels {
        let mut groups: BTreeMap<(PodSet, Reached), BTreeSet<Name>> = BTreeMap::new();
        let mut out = BTreeMap::new();
        for (set, reached) in rows {
            match label.values(&set) {
                Some(LabelValues::OneOf(values)) => {
                    groups.entry((label.without(&set), reached)).or_default().extend(values);
                }
                _ => drop(out.insert(set, reached)),
            }
        }
        for ((rest, reached), values) in groups {
            out.insert(label.with(&rest, LabelValues::OneOf(values)), reached);
        }
        rows = out;
    }
    let row = |(set, reached)| ExposureRow { set, exists: false, reached, more: Vec::new() };
    rows.into_iter().map(row).collect()
}

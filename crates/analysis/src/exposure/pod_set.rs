//! Sets of pods that may exist, and the world in which they may.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use palisade_policy::{
    Cluster, Family, IpBlock, IpRange, LabelSet, LabelValues, Labels, NAMESPACE_NAME_LABEL, Name,
    NamespaceMatch, Pod, PodMatch,
    address::{union, without},
};

/// A set of pods, whether they exist or not: those with such labels, in namespaces with such labels, at such addresses.
///
/// The label of a namespace's name is its name, so the set of the pods of namespace `shop` constrains only that label.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodSet {
    /// The labels of their namespaces.
    pub namespaces: LabelSet,
    /// Their labels.
    pub pods: LabelSet,
    /// Their addresses, canonical and not empty; `None`: any.
    pub addresses: Option<Vec<IpRange>>,
}

impl PodSet {
    /// Returns the pods that a match selects; `None` if it can't select any.
    #[must_use]
    pub fn of(choice: &PodMatch) -> Option<Self> {
        let namespaces = match &choice.namespaces {
            NamespaceMatch::Named(name) => named(name),
            NamespaceMatch::Selected(selector) => LabelSet::of(selector)?,
        };
        Some(Self { namespaces, pods: LabelSet::of(&choice.pods)?, addresses: None })
    }

    /// Returns the pods at the addresses of a block; `None` if it contains no address.
    pub(crate) fn of_block(block: &IpBlock) -> Option<Self> {
        let ranges = block.ranges();
        (!ranges.is_empty()).then(|| Self { addresses: Some(ranges), ..Self::default() })
    }

    /// Returns the name of the only namespace that has such pods, if the set says so.
    #[must_use]
    pub fn namespace(&self) -> Option<&Name> {
        match self.namespaces.get(NAMESPACE_NAME_LABEL) {
            Some(LabelValues::OneOf(names)) if names.len() == 1 => names.first(),
            _ => None,
        }
    }

    /// Returns the namespaces and labels as a policy states them.
    #[must_use]
    pub fn choice(&self) -> PodMatch {
        let only_name = self.namespaces.iter().count() == 1;
        let namespaces = match self.namespace() {
            Some(name) if only_name => NamespaceMatch::Named(name.clone()),
            _ => NamespaceMatch::Selected(self.namespaces.selector()),
        };
        PodMatch { namespaces, pods: self.pods.selector() }
    }

    /// Returns whether it contains a pod that exists. The labels of an unknown namespace are none but its name.
    #[must_use]
    pub fn contains(&self, pod: &Pod, namespace: Option<&Labels>) -> bool {
        let unknown = || Labels::from_iter([(Name::from(NAMESPACE_NAME_LABEL), pod.key.namespace.clone())]);
        let in_namespace = match namespace {
            Some(labels) => self.namespaces.contains(labels),
            None => self.namespaces.contains(&unknown()),
        };
        let at = |ranges: &Vec<IpRange>| pod.addresses.iter().any(|a| ranges.iter().any(|r| r.contains(*a)));
        in_namespace && self.pods.contains(&pod.labels) && self.addresses.as_ref().is_none_or(at)
    }

    /// Iterates over the running pods of a cluster that are in the set. `O(pods)`, or of its namespace.
    pub fn existing<'a>(&'a self, cluster: &'a Cluster) -> impl Iterator<Item = &'a Pod> {
        let (one, all) = match self.namespace() {
            Some(name) => (Some(cluster.pods.in_namespace(name)), None),
            None => (None, Some(cluster.pods.values())),
        };
        let candidates = one.into_iter().flatten().chain(all.into_iter().flatten());
        candidates.filter(|pod| {
            let labels = cluster.namespaces.get(&pod.key.namespace).map(|n| &n.labels);
            pod.is_running() && self.contains(pod, labels)
        })
    }

    /// Returns the constraints, each as a set of its own. Their intersection is this set.
    fn constraints(&self) -> Vec<Self> {
        let one = |(key, values): (&Name, &LabelValues)| LabelSet::with_one(key, values.clone());
        let namespaces = self.namespaces.iter().map(one);
        let pods = self.pods.iter().map(one);
        let addresses = self.addresses.clone();
        let namespaces = namespaces.map(|namespaces| Self { namespaces, ..Self::default() });
        let pods = pods.map(|pods| Self { pods, ..Self::default() });
        let addresses = addresses.map(|a| Self { addresses: Some(a), ..Self::default() });
        namespaces.chain(pods).chain(addresses).collect()
    }

    /// Returns whether `other` contains the set by its constraints alone, whatever namespaces exist.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        let addresses = match (&self.addresses, &other.addresses) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(own), Some(all)) => subtract(own, all).is_empty(),
        };
        addresses && self.namespaces.is_subset(&other.namespaces) && self.pods.is_subset(&other.pods)
    }

    /// Returns the constraints of `other` that this set doesn't imply: what a pod of this set needs, to be in the
    /// other.
    #[must_use]
    pub fn condition(&self, other: &Self) -> Self {
        let mut out = Self::default();
        for part in other.constraints().into_iter().filter(|part| !self.is_within(part)) {
            out.namespaces = out.namespaces.intersection(&part.namespaces).unwrap_or_default();
            out.pods = out.pods.intersection(&part.pods).unwrap_or_default();
            out.addresses = part.addresses.or(out.addresses);
        }
        out
    }
}

/// Returns the namespace with this name, as a set.
pub(crate) fn named(name: &Name) -> LabelSet {
    LabelSet::with_one(&NAMESPACE_NAME_LABEL.into(), LabelValues::OneOf([name.clone()].into()))
}

fn subtract(from: &[IpRange], holes: &[IpRange]) -> Vec<IpRange> {
    from.iter().flat_map(|range| without(*range, holes.iter().copied())).collect()
}

/// What limits the pods that may exist: the namespaces whose labels are known, and the addresses of pods.
///
/// A pod may be in one of these namespaces, or in a namespace of any other name and with any other labels.
#[derive(Clone, Debug)]
pub(crate) struct World {
    namespaces: BTreeMap<Name, Labels>,
    /// Names of namespaces that are left out of consideration.
    excluded: BTreeSet<Name>,
    /// Canonical.
    addresses: Vec<IpRange>,
    /// How many more sets may be compared for one answer.
    budget: Cell<u64>,
}

/// There are too many sets to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overflow;

/// The most comparisons of sets for one answer: about a second. Policies that people write need some thousands.
const MOST_COMPARISONS: u64 = 4_000_000;

impl World {
    /// Makes the world of several clusters. A namespace with different labels in them is left out.
    pub(crate) fn new(clusters: &[&Cluster], addresses: Option<&[IpRange]>) -> Self {
        let mut namespaces: BTreeMap<Name, Labels> = BTreeMap::new();
        let mut excluded = BTreeSet::new();
        for namespace in clusters.iter().flat_map(|c| c.namespaces.values()) {
            let known = namespaces.entry(namespace.name.clone()).or_insert_with(|| namespace.labels.clone());
            if *known != namespace.labels {
                excluded.insert(namespace.name.clone());
            }
        }
        namespaces.retain(|name, _| !excluded.contains(name));
        let whole = || Family::BOTH.map(IpRange::whole).to_vec();
        let budget = Cell::new(MOST_COMPARISONS);
        let addresses = addresses.map_or_else(whole, |a| union(a.to_vec()));
        Self { namespaces, excluded, addresses, budget }
    }

    /// Counts comparisons.
    pub(crate) fn spend(&self, comparisons: usize) -> Result<(), Overflow> {
        let left = self.budget.get().checked_sub(comparisons as u64).ok_or(Overflow)?;
        self.budget.set(left);
        Ok(())
    }

    /// Starts another answer.
    pub(crate) fn renew(&self) {
        self.budget.set(MOST_COMPARISONS);
    }

    /// Returns the set without constraints that hold anyway; `None` if no pod can be in it.
    pub(crate) fn normal(&self, mut set: PodSet) -> Option<PodSet> {
        set.namespaces = self.normal_namespaces(set.namespaces)?;
        if let Some(ranges) = set.addresses {
            let outside = subtract(&self.addresses, &ranges);
            let inside = subtract(&self.addresses, &outside);
            if inside.is_empty() {
                return None;
            }
            set.addresses = (!outside.is_empty()).then_some(inside);
        }
        Some(set)
    }

    fn normal_namespaces(&self, set: LabelSet) -> Option<LabelSet> {
        match set.get(NAMESPACE_NAME_LABEL) {
            // Every namespace has a name.
            Some(LabelValues::Absent) => None,
            Some(LabelValues::OneOf(names)) => {
                let fits = |name: &&Name| match self.namespaces.get(*name) {
                    Some(labels) => set.contains(labels),
                    None => !self.excluded.contains(*name),
                };
                let left: BTreeSet<Name> = names.iter().filter(fits).cloned().collect();
                let all_known = left.iter().all(|name| self.namespaces.contains_key(name));
                let key = NAMESPACE_NAME_LABEL.into();
                let rest = set.without(NAMESPACE_NAME_LABEL);
                if left.is_empty() {
                    return None;
                }
                let left = LabelSet::with_one(&key, LabelValues::OneOf(left));
                // The labels of these namespaces are known, so no other constraint is needed.
                if all_known { Some(left) } else { left.intersection(&rest) }
            }
            // A new namespace may have such a name, whatever the other labels must be.
            Some(LabelValues::NoneOf { values, .. }) => {
                let key = NAMESPACE_NAME_LABEL.into();
                let others = LabelValues::NoneOf { values: values.clone(), absent: true };
                set.without(NAMESPACE_NAME_LABEL).intersection(&LabelSet::with_one(&key, others))
            }
            None => Some(set),
        }
    }

    /// Returns the pods in both sets; `None` if there can't be any.
    pub(crate) fn intersection(&self, a: &PodSet, b: &PodSet) -> Option<PodSet> {
        // Most pairs have nothing in common, which is cheap to see.
        if !(a.pods.meets(&b.pods) && a.namespaces.meets(&b.namespaces)) {
            return None;
        }
        let addresses = match (&a.addresses, &b.addresses) {
            (None, other) | (other, None) => other.clone(),
            (Some(x), Some(y)) => Some(subtract(x, &subtract(x, y))),
        };
        if addresses.as_ref().is_some_and(Vec::is_empty) {
            return None;
        }
        let pods = a.pods.intersection(&b.pods)?;
        let namespaces = a.namespaces.intersection(&b.namespaces)?;
        self.normal(PodSet { namespaces, pods, addresses })
    }

    /// Returns the pods of `set` that are not in `other` as the largest sets, which overlap: one for each constraint of
    /// `other` that fails.
    pub(crate) fn largest_outside(&self, set: &PodSet, other: &PodSet) -> Vec<PodSet> {
        let failing = other.constraints().into_iter().flat_map(|part| self.complement(&part));
        failing.filter_map(|part| self.intersection(set, &part)).collect()
    }

    /// Returns the pods of `set` that are not in `other` as disjoint sets.
    pub(crate) fn disjoint_outside(&self, set: &PodSet, other: &PodSet) -> Vec<PodSet> {
        let mut out = Vec::new();
        let mut inside = Some(set.clone());
        for part in other.constraints() {
            let Some(left) = inside else { break };
            out.extend(self.complement(&part).iter().filter_map(|other| self.intersection(&left, other)));
            inside = self.intersection(&left, &part);
        }
        out
    }

    /// Returns whether every pod of `set`, which is a [normal](Self::normal) set, is in `other`.
    pub(crate) fn is_subset(&self, set: &PodSet, other: &PodSet) -> bool {
        // A pod may have any labels, whatever namespaces exist. Most pairs of sets differ in these, which is cheap to see.
        set.pods.is_subset(&other.pods)
            && (set.is_within(other) || self.disjoint_outside(set, other).is_empty())
    }

    /// Returns the complement of a set with one constraint, as disjoint sets.
    fn complement(&self, part: &PodSet) -> Vec<PodSet> {
        let labels = |set: &LabelSet| -> Vec<LabelSet> {
            let parts = set.iter().flat_map(|(key, values)| {
                values.complement().into_iter().map(|other| LabelSet::with_one(key, other))
            });
            parts.collect()
        };
        let namespaces = labels(&part.namespaces).into_iter();
        let pods = labels(&part.pods).into_iter();
        let addresses = part.addresses.as_ref().map(|ranges| subtract(&self.addresses, ranges));
        let addresses = addresses.filter(|ranges| !ranges.is_empty());
        let namespaces = namespaces.map(|namespaces| PodSet { namespaces, ..PodSet::default() });
        let pods = pods.map(|pods| PodSet { pods, ..PodSet::default() });
        let addresses = addresses.map(|a| PodSet { addresses: Some(a), ..PodSet::default() });
        namespaces.chain(pods).chain(addresses).collect()
    }
}

//! Folds the pairs of two sets of endpoints: one flow for each pair of classes that policies distinguish.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use palisade_analysis::alike::Relation;
use palisade_policy::{Cluster, Endpoint, Family, Name, ObjectKey};

/// The pairs for which a flow stands: each of the sources with each of the destinations that is related to it in the same
/// way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AlikeEnds {
    /// The sources, sorted. Never empty.
    pub(crate) sources: Arc<[Endpoint]>,
    /// The destinations, sorted. Never empty.
    pub(crate) destinations: Arc<[Endpoint]>,
    /// How the two ends of each pair are related.
    pub(crate) relation: Relation,
    /// The number of pairs.
    pub(crate) pairs: usize,
    /// The first pairs.
    pub(crate) samples: Vec<(Endpoint, Endpoint)>,
}

impl AlikeEnds {
    /// Makes all pairs of two sets of which one has a single endpoint.
    pub(super) fn with_one(sources: Arc<[Endpoint]>, destinations: Arc<[Endpoint]>) -> Self {
        let all = sources.iter().flat_map(|s| destinations.iter().map(move |d| (s.clone(), d.clone())));
        let samples = all.take(SAMPLES).collect();
        let pairs = sources.len() * destinations.len();
        Self { sources, destinations, relation: Relation::Other, pairs, samples }
    }
}

/// How many pairs are kept as samples: one more than an answer lists.
const SAMPLES: usize = 5;

/// Pairs of endpoints in one relation.
pub(super) struct Pairs<'a> {
    pub(super) relation: Relation,
    pub(super) count: usize,
    /// The first pairs. There is at least one, which can stand for all.
    pub(super) samples: Vec<(&'a Endpoint, &'a Endpoint)>,
}

/// Divides the pairs of two classes by relation. `O(sources + destinations)`, and at most as long again to find a pair.
pub(super) fn pairs<'a>(
    cluster: &'a Cluster,
    sources: &'a [Endpoint],
    destinations: &'a [Endpoint],
) -> Vec<Pairs<'a>> {
    let mut out: Vec<Pairs<'a>> = itself(sources, destinations).into_iter().collect();
    out.extend(own_nodes(cluster, sources, destinations));
    let special: usize = out.iter().map(|pairs| pairs.count).sum();
    let count = (sources.len() * destinations.len()).saturating_sub(special);
    if count > 0 {
        let all = sources.iter().flat_map(|s| destinations.iter().map(move |d| (s, d)));
        let other = all.filter(|(s, d)| Relation::of(cluster, s, d) == Relation::Other);
        out.push(Pairs {
            relation: Relation::Other,
            count,
            samples: other.take(SAMPLES.min(count)).collect(),
        });
    }
    out.sort_by_key(|pairs| pairs.relation);
    out
}

fn key_of(end: &Endpoint) -> Option<&ObjectKey> {
    if let Endpoint::Pod { key, .. } = end { Some(key) } else { None }
}

fn itself<'a>(sources: &'a [Endpoint], destinations: &'a [Endpoint]) -> Option<Pairs<'a>> {
    let known: HashMap<&ObjectKey, &Endpoint> =
        destinations.iter().filter_map(|end| Some((key_of(end)?, end))).collect();
    let same: Vec<_> = sources.iter().filter_map(|s| Some((s, *known.get(key_of(s)?)?))).collect();
    let samples: Vec<_> = same.iter().take(SAMPLES).copied().collect();
    (!same.is_empty()).then_some(Pairs { relation: Relation::Itself, count: same.len(), samples })
}

fn own_nodes<'a>(
    cluster: &'a Cluster,
    sources: &'a [Endpoint],
    destinations: &'a [Endpoint],
) -> Option<Pairs<'a>> {
    let Some(Endpoint::Node { .. }) = sources.first() else { return None };
    let mut on: HashMap<&Name, (usize, &Endpoint)> = HashMap::new();
    for end in destinations {
        if let Some(node) = key_of(end).and_then(|key| cluster.pods.get(key)?.node.as_ref()) {
            on.entry(node).or_insert((0, end)).0 += 1;
        }
    }
    let on_source = |source: &'a Endpoint| match source {
        Endpoint::Node { name, .. } => on.get(name).map(|(count, end)| (*count, (source, *end))),
        _ => None,
    };
    let found: Vec<_> = sources.iter().filter_map(on_source).collect();
    let samples: Vec<_> = found.iter().take(SAMPLES).map(|(_, pair)| *pair).collect();
    let count = found.iter().map(|(count, _)| count).sum();
    (!found.is_empty()).then_some(Pairs { relation: Relation::OwnNode, count, samples })
}

/// Groups endpoints by class, in the order in which classes are found. Those of a class are sorted, each once.
pub(super) fn grouped<K: Clone + Eq + std::hash::Hash>(
    ends: impl IntoIterator<Item = Endpoint>,
    mut class: impl FnMut(&Endpoint) -> K,
) -> Vec<(K, Arc<[Endpoint]>)> {
    let mut groups: Vec<(K, Vec<Endpoint>)> = Vec::new();
    let mut at: HashMap<K, usize> = HashMap::new();
    for end in ends {
        let key = class(&end);
        let index = *at.entry(key.clone()).or_insert(groups.len());
        match groups.get_mut(index) {
            Some(group) => group.1.push(end),
            None => groups.push((key, vec![end])),
        }
    }
    let sorted = |(key, mut ends): (K, Vec<Endpoint>)| {
        ends.sort();
        ends.dedup();
        (key, ends.into())
    };
    groups.into_iter().map(sorted).collect()
}

/// Returns the node of an endpoint, if it is known.
pub(super) fn node_of<'a>(cluster: &'a Cluster, end: &'a Endpoint) -> Option<&'a Name> {
    match end {
        Endpoint::Pod { key, .. } => cluster.pods.get(key)?.node.as_ref(),
        Endpoint::Node { name, .. } => Some(name),
        Endpoint::External(_) => None,
    }
}

/// Returns the families that some of these endpoints have.
pub(super) fn families(ends: &[Endpoint]) -> HashSet<Family> {
    ends.iter().map(|end| Family::of(end.address())).collect()
}

//! The pairs of ends of a group in words: the first ones and their number, since a group may have millions.

use std::collections::{BTreeMap, BTreeSet};

use palisade_policy::Endpoint;

use super::{
    answer::{DecidedFlows, endpoint_name},
    question::QuestionFlow,
};

/// The most pairs that are listed.
pub(super) const MAX_LISTED: usize = 4;

/// The first source of two classes and their number, and the same for destinations.
type ClassName = (String, usize, String, usize);

/// How ends are named.
#[derive(Clone, Copy)]
pub(super) struct Naming<'a> {
    /// The name of an end outside the cluster that is split.
    pub(super) outside: &'a str,
    /// Whether nodes are named with their address, since the answer depends on it.
    pub(super) addresses_of_nodes: bool,
}

/// The pairs of some groups.
pub(super) struct NamedPairs {
    /// The first pairs, sorted.
    first: BTreeSet<String>,
    /// The classes whose pairs these are.
    classes: BTreeSet<ClassName>,
    /// The number of pairs, in the family that has more.
    count: usize,
}

impl NamedPairs {
    pub(super) fn of<'a>(groups: impl IntoIterator<Item = &'a DecidedFlows>, naming: Naming<'_>) -> Self {
        let (mut first, mut classes) = (BTreeSet::new(), BTreeSet::new());
        let mut counts: BTreeMap<_, BTreeMap<ClassName, usize>> = BTreeMap::new();
        for asked in groups.into_iter().flat_map(|group| &group.asked) {
            first.extend(asked.alike.samples.iter().map(|(source, destination)| {
                format!("{} → {}", name(asked, source, naming), name(asked, destination, naming))
            }));
            let class = class(asked, naming);
            counts.entry(asked.family()).or_default().insert(class.clone(), asked.alike.pairs);
            classes.insert(class);
        }
        let count = counts.values().map(|pairs| pairs.values().sum()).max().unwrap_or(0);
        Self { first, classes, count }
    }

    /// Formats the pairs, which are some of `all`.
    pub(super) fn text(&self, all: &Self) -> String {
        if let (1, Some(only)) = (all.count.max(all.first.len()), all.first.first()) {
            return only.clone();
        }
        if self.classes == all.classes {
            return "all pods".to_owned();
        }
        let mut shown: Vec<String> = self.first.iter().take(MAX_LISTED).cloned().collect();
        let total = self.count.max(self.first.len());
        if total > shown.len() {
            shown.push(format!("{} more", total - shown.len()));
        }
        shown.join(", ")
    }
}

/// Identifies the pairs of a flow, in both families alike.
fn class(asked: &QuestionFlow, naming: Naming<'_>) -> ClassName {
    let of = |ends: &[Endpoint]| {
        let first = ends.first().map(|end| name(asked, end, naming)).unwrap_or_default();
        (first, ends.len())
    };
    let ((source, sources), (destination, destinations)) =
        (of(&asked.alike.sources), of(&asked.alike.destinations));
    // The pairs of a pod with itself are others than those with its siblings.
    let part = asked.alike.pairs < sources * destinations;
    let source = if part { format!("{source} {:?}", asked.alike.relation) } else { source };
    (source, sources, destination, destinations)
}

fn name(asked: &QuestionFlow, end: &Endpoint, naming: Naming<'_>) -> String {
    match end {
        Endpoint::External(_) if asked.region.is_some() => naming.outside.to_owned(),
        Endpoint::Node { address, .. } if naming.addresses_of_nodes => {
            format!("{} ({address})", endpoint_name(end))
        }
        Endpoint::External(address) => address.to_string(),
        _ => endpoint_name(end),
    }
}

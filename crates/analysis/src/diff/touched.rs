//! Which ends a change can touch, so that only their pairs are compared.
//!
//! What a pair may send depends on the two ends as policies see them, on the policies that select the source, for egress,
//! and on those that select the destination, for ingress. If neither end differs between the sides, and none of these
//! policies does, then neither does the pair. Most edits are of one policy, so most pairs need no look.

use std::collections::BTreeMap;

use palisade_policy::{Cluster, Direction, Name, ObjectKey, Policy, PolicyKey};

use super::change::PolicyEdit;
use crate::{
    end::{ConnectionEnd, NodeAddresses, WorkloadPods},
    matching::MatchedEnd,
};

/// The ends that a change can touch, by their indexes.
#[derive(Debug)]
pub(super) struct Touched {
    /// Whether what an end may send can differ, to whatever end; sorted.
    sources: Vec<bool>,
    /// The ends that can receive something else, from whatever end; sorted.
    targets: Vec<usize>,
    /// How many ends there are.
    ends: usize,
}

impl Touched {
    /// Looks at the ends of two clusters that differ in `policies`, and perhaps in more. `O(pods × changed policies)`.
    pub(super) fn new(
        clusters: [&Cluster; 2],
        ends: &[MatchedEnd],
        policies: &BTreeMap<PolicyKey, PolicyEdit>,
    ) -> Self {
        let seen = Seen { clusters, edits: edited(clusters, policies), comparable: comparable(clusters) };
        let touched: Vec<[bool; 2]> = ends.iter().map(|end| seen.touched(end)).collect();
        Self {
            sources: touched.iter().map(|[egress, _]| *egress).collect(),
            targets: (0..ends.len()).filter(|at| touched[*at][1]).collect(),
            ends: ends.len(),
        }
    }

    /// Iterates over the ends that may receive something else from an end, sorted.
    pub(super) fn targets_of(&self, from: usize) -> impl Iterator<Item = usize> {
        let (all, some) = if self.sources[from] { (self.ends, &[][..]) } else { (0, &self.targets[..]) };
        (0..all).chain(some.iter().copied())
    }
}

/// Whether two clusters agree in all that is no property of one end.
fn comparable([a, b]: [&Cluster; 2]) -> bool {
    (a.mode, &a.learned, &a.addressing.families, &a.addressing.pod_ranges)
        == (b.mode, &b.learned, &b.addressing.families, &b.addressing.pod_ranges)
}

/// Returns the policies that changed, as they are on each side.
fn edited<'c>(
    clusters: [&'c Cluster; 2],
    policies: &BTreeMap<PolicyKey, PolicyEdit>,
) -> [Vec<&'c Policy>; 2] {
    let of = |side: usize, key: fn(&PolicyEdit) -> Option<&PolicyKey>| {
        let keys = policies.values().filter_map(key);
        keys.filter_map(|key| clusters[side].policies.get(key)).map(|policy| &**policy).collect()
    };
    [of(0, |edit| edit.before.as_ref()), of(1, |edit| edit.after.as_ref())]
}

/// What the ends are looked at by.
struct Seen<'c> {
    clusters: [&'c Cluster; 2],
    /// The changed policies of each side.
    edits: [Vec<&'c Policy>; 2],
    comparable: bool,
}

impl Seen<'_> {
    /// Returns whether what an end may send can differ, and what it may receive.
    fn touched(&self, end: &MatchedEnd) -> [bool; 2] {
        if !self.comparable || end.at.contains(&None) {
            return [true; 2];
        }
        match &end.end {
            ConnectionEnd::Workload(w) => self.workload(w),
            ConnectionEnd::OwnNode(nodes) | ConnectionEnd::Nodes(nodes) => [self.is_other_node(nodes); 2],
            ConnectionEnd::External(_) => [false; 2],
            // What it forwards depends on routes and Services.
            ConnectionEnd::IngressController(_)
            | ConnectionEnd::Pod { .. }
            | ConnectionEnd::Class(_)
            | ConnectionEnd::Namespace(_) => [true; 2],
        }
    }

    fn workload(&self, workload: &WorkloadPods) -> [bool; 2] {
        let namespaces = self.clusters.map(|cluster| cluster.namespaces.get(&workload.namespace));
        if namespaces[0] != namespaces[1] {
            return [true; 2];
        }
        let mut touched = [false; 2];
        for name in &workload.pods {
            for (touched, of_pod) in touched.iter_mut().zip(self.pod(&workload.namespace, name)) {
                *touched |= of_pod;
            }
        }
        touched
    }

    fn pod(&self, namespace: &Name, name: &Name) -> [bool; 2] {
        let key = ObjectKey { namespace: namespace.clone(), name: name.clone() };
        let [Some(before), Some(after)] = self.clusters.map(|cluster| cluster.pods.get(&key)) else {
            return [true; 2];
        };
        let possible = |side: usize| {
            let addressing = &self.clusters[side].addressing;
            before.addresses.iter().map(|address| addressing.possible(*address))
        };
        if before != after || possible(0).ne(possible(1)) {
            return [true; 2];
        }
        let labels = self.clusters[0].namespaces.get(namespace).map(|n| &n.labels);
        let selecting = self
            .edits
            .iter()
            .flatten()
            .filter(|policy| policy.subject.matches(namespace, labels, &after.labels));
        let mut touched = [false; 2];
        for policy in selecting {
            for (touched, direction) in touched.iter_mut().zip([Direction::Egress, Direction::Ingress]) {
                *touched |= policy.rules(direction).is_some();
            }
        }
        touched
    }

    fn is_other_node(&self, nodes: &[NodeAddresses]) -> bool {
        nodes.iter().any(|node| {
            let [before, after] = self.clusters.map(|cluster| cluster.nodes.get(&node.name));
            before != after
        })
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::NamespaceMatch;
    use palisade_testkit::{Rng, Shape, cluster};

    use super::*;
    use crate::{
        connections::Connections, diff::policies::changed_policies, matching::matched,
        query::ConnectionsOptions,
    };

    #[test]
    fn only_pairs_of_ends_that_an_edited_policy_selects_are_compared() {
        let before = cluster(&mut Rng::with_seed(7), &Shape::realistic(600, 300));
        let mut after = before.clone();
        let is_narrow = |policy: &Policy| {
            matches!(policy.subject.namespaces, NamespaceMatch::Named(_))
                && !policy.subject.pods.requirements().is_empty()
        };
        let key = before.policies.values().find(|policy| is_narrow(policy)).unwrap().key.clone();
        after.policies.remove(&key);
        let options = ConnectionsOptions { nodes: true, ..ConnectionsOptions::default() };
        let answers = [&before, &after].map(|cluster| Connections::new(cluster, &options));
        let ends = matched(&answers[0], &answers[1]);
        let policies = changed_policies(&before, &after);
        let touched = Touched::new([&before, &after], &ends, &policies);
        let pairs: usize = (0..ends.len()).map(|from| touched.targets_of(from).count()).sum();
        let selected = policies[&key].pods[0];
        assert!(selected > 0);
        assert!((1..=2 * selected * ends.len()).contains(&pairs), "{pairs} pairs of {} ends", ends.len());
        let nothing = Touched::new([&before, &before], &ends, &BTreeMap::new());
        assert_eq!((0..ends.len()).map(|from| nothing.targets_of(from).count()).sum::<usize>(), 0);
    }
}

//! The causes of a change between two ends.

use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use palisade_policy::{
    Cluster, Direction, DomainName, Endpoint, Family, LearnedName, PolicyKey, Traffic, walk::walk,
};

use super::{
    blame,
    change::{Cause, Directions, Edit, PolicyEdit},
    edits::{EndPair, PolicyPair, PolicyPairs, Reversal, SelectedKeys, learned_about, pair_of},
};
use crate::{
    end::ConnectionEnd, judge, regions::ranges_of, representative::Representatives, space::AddressSpace,
};

/// The most walks for all changes. Where one edit alone can be the cause, none is needed; this bounds changes of many
/// policies that select the same pods.
const MAX_WALKS: usize = 300_000;

/// The most parts of external ranges that are looked at for one change.
const MOST_PARTS: usize = 64;

/// Finds the edits that cause changes.
pub(super) struct CauseFinder<'c> {
    pub(super) clusters: [&'c Cluster; 2],
    pub(super) representatives: [Representatives<'c>; 2],
    pub(super) policies: PolicyPairs<'c>,
    pub(super) keys: SelectedKeys,
    walks: Cell<usize>,
}

impl<'c> CauseFinder<'c> {
    pub(super) fn new(clusters: [&'c Cluster; 2], edits: &BTreeMap<PolicyKey, PolicyEdit>) -> Self {
        Self {
            clusters,
            representatives: clusters.map(Representatives::new),
            policies: PolicyPairs::new(clusters, edits),
            keys: SelectedKeys::new(clusters),
            walks: Cell::new(0),
        }
    }

    /// Returns a pair of addresses of two ends. Changes are the same wherever unknown addresses lie.
    fn pair(
        &self,
        side: usize,
        from: &ConnectionEnd,
        to: &ConnectionEnd,
        family: Family,
    ) -> Option<(Endpoint, Endpoint)> {
        let (source, target) = self.representatives[side].pair(from, to, family)?;
        let cluster = self.clusters[side];
        Some((judge::somewhere(cluster, &source), judge::somewhere(cluster, &target)))
    }

    /// Adds the causes of changed traffic in one direction.
    pub(super) fn add(
        &self,
        [from, to]: [&ConnectionEnd; 2],
        family: Family,
        direction: Direction,
        changed: &Traffic,
        found: &mut BTreeMap<Edit, Directions>,
    ) {
        let [Some(before), Some(after)] = [0, 1].map(|side: usize| self.pair(side, from, to, family)) else {
            return;
        };
        let Some(ends) = pair_of(self.clusters, [before, after]) else { return };
        let subject = if direction == Direction::Egress { &ends[0] } else { &ends[1] };
        let EndPair::Pod(subject) = subject else { return };
        let policies: Vec<&PolicyPair<'_>> = self.policies.of(subject).collect();
        let mut edits: Vec<Edit> = policies
            .iter()
            .filter(|pair| pair.applies(direction))
            .filter_map(|pair| Some(Edit::Policy(pair.changed.clone()?)))
            .collect();
        ends.iter().for_each(|end| end.edits(&self.keys, &mut edits));
        let peer = if direction == Direction::Egress { (1, to) } else { (0, from) };
        // Without another edit, every part has the same cause.
        let parts = if edits.len() > 1 { self.parts(&ends, peer, direction, &policies) } else { vec![ends] };
        for ends in parts {
            let learned = learned_about(self.clusters[1], &ends, &policies);
            let scene = Scene { ends, policies: &policies, learned, edits: &edits, direction, changed };
            for edit in scene.causes(&self.walks) {
                found.entry(edits[edit].clone()).or_default().add(direction);
            }
        }
    }

    /// Returns the two ends once for each part of external ranges that the policies distinguish on either side: what is allowed
    /// in all of them may have different causes.
    fn parts(
        &self,
        ends: &[EndPair<'c>; 2],
        (at, peer): (usize, &ConnectionEnd),
        direction: Direction,
        policies: &[&PolicyPair<'c>],
    ) -> Vec<[EndPair<'c>; 2]> {
        let ConnectionEnd::External(external) = peer else { return vec![*ends] };
        let blocks = [0, 1].into_iter().flat_map(|side: usize| {
            let of_side = policies.iter().filter_map(|pair| pair.sides[side]).map(|policy| &**policy);
            ranges_of(self.clusters[side], of_side, direction)
        });
        let samples = AddressSpace::new(blocks).samples_in(&external.ranges);
        let part = |address| {
            let mut ends = *ends;
            ends[at] = EndPair::External(address);
            ends
        };
        samples.into_iter().take(MOST_PARTS).map(part).collect()
    }
}

/// One direction of a connection on both sides, and the edits that may matter for it.
struct Scene<'a, 'c> {
    ends: [EndPair<'c>; 2],
    /// The policies that may select the subject.
    policies: &'a [&'a PolicyPair<'c>],
    /// What is known after the change of names with the addresses of the ends.
    learned: BTreeMap<DomainName, LearnedName>,
    edits: &'a [Edit],
    direction: Direction,
    changed: &'a Traffic,
}

impl Scene<'_, '_> {
    fn causes(&self, walks: &Cell<usize>) -> Vec<usize> {
        let count = self.edits.len();
        if walks.get() > MAX_WALKS {
            return (0..count).collect();
        }
        blame::causes(count, self.changed, |reversed| {
            walks.set(walks.get() + 1);
            self.allowed(reversed)
        })
    }

    /// Returns the traffic that the direction allows with some edits reversed.
    fn allowed(&self, reversed: &[bool]) -> Traffic {
        let reversal = Reversal { edits: self.edits, reversed };
        let mut cluster = Cluster { learned: self.learned.clone(), ..Cluster::default() };
        for pair in self.policies {
            if let Some(policy) = reversal.policy(pair) {
                cluster.policies.insert(policy.key.clone(), Arc::clone(policy));
            }
        }
        let [source, target] = [0, 1].map(|end: usize| self.ends[end].place(&mut cluster, reversal));
        walk(&cluster, &source, &target, false, self.direction, self.changed).allowed()
    }
}

/// Returns causes in order.
pub(super) fn sorted(found: BTreeMap<Edit, Directions>) -> Vec<Cause> {
    found.into_iter().map(|(edit, directions)| Cause { edit, directions }).collect()
}

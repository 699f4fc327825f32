//! Units into the ends that an answer names: by workload, pod, namespace or class; nodes and outside ranges that are
//! treated alike into one end each.

use std::{
    collections::{BTreeMap, HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use palisade_policy::{Family, IpRange, Name, Workload};

use crate::{
    end::{ConnectionEnd, ExternalRanges, NodeAddresses, WorkloadPods},
    families::index,
    query::GroupBy,
    reach::{Members, Reach, Treatment, Unit, UnitId},
    space::merged,
};

/// Names a [`UnitGroup`].
pub(crate) type UnitGroupId = u32;

/// Units that one end of an answer stands for, or that ends of pods share. They are alike unless the answer is by
/// namespace, so that the first speaks for all.
#[derive(Debug)]
pub(crate) struct UnitGroup {
    /// At least one, each with those of its pods that belong to the group: a workload may have some of them.
    pub(crate) units: Vec<(UnitId, Placement)>,
}

/// How many pods there are, and on which nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placement {
    pub(crate) pods: usize,
    /// The nodes that the pods run on, where they are known; or the nodes that an end is. Sorted.
    pub(crate) nodes: Vec<Name>,
    /// Whether some pod's node isn't known.
    pub(crate) unplaced: bool,
}

impl Placement {
    fn of(reach: &Reach, pods: &[u32]) -> Self {
        let on = || pods.iter().map(|pod| &reach.pods[*pod as usize].node);
        let mut nodes: Vec<Name> = on().flatten().cloned().collect();
        nodes.sort_unstable();
        nodes.dedup();
        Self { pods: pods.len(), nodes, unplaced: on().any(Option::is_none) }
    }

    /// Whether some of these pods can be called from `source` as the kind of end that it is.
    pub(crate) fn may_meet(&self, source: &PlacedEnd) -> bool {
        let nodes = &source.placement.nodes;
        match source.end {
            ConnectionEnd::OwnNode(_) => nodes.iter().any(|n| self.nodes.contains(n)),
            // All of them on that one node see it as their own.
            ConnectionEnd::Nodes(_) => nodes.len() > 1 || self.unplaced || self.nodes != *nodes,
            _ => true,
        }
    }
}

/// One end of an answer.
#[derive(Debug)]
pub(crate) struct PlacedEnd {
    pub(crate) end: ConnectionEnd,
    pub(crate) group: UnitGroupId,
    pub(crate) placement: Placement,
}

/// The ends of an answer, sorted, and their groups.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) groups: Vec<UnitGroup>,
    pub(crate) ends: Vec<PlacedEnd>,
}

impl Ends {
    pub(crate) fn new(
        reach: &Reach,
        by: GroupBy,
        nodes: bool,
        controller: Option<Vec<WorkloadPods>>,
    ) -> Self {
        let mut out = Self::default();
        match by {
            GroupBy::Workload => out.workloads(reach),
            GroupBy::Pod => out.pods(reach),
            GroupBy::Namespace => out.namespaces(reach),
            GroupBy::Class => out.classes(reach),
        }
        if nodes {
            out.nodes(reach, true);
            out.nodes(reach, false);
        }
        out.externals(reach);
        out.controller(controller);
        out.ends.sort_by(|a, b| a.end.cmp(&b.end));
        out
    }

    /// A group of some pods of these units.
    fn group(&mut self, reach: &Reach, units: &[Share]) -> UnitGroupId {
        let units = units.iter().map(|(id, pods)| (*id, Placement::of(reach, pods))).collect();
        self.groups.push(UnitGroup { units });
        self.groups.len() as UnitGroupId - 1
    }

    /// An end that stands for these pods.
    fn add_pods(&mut self, reach: &Reach, end: ConnectionEnd, group: UnitGroupId, pods: &[u32]) {
        let placement = Placement::of(reach, pods);
        self.ends.push(PlacedEnd { end, group, placement });
    }

    /// Each workload, in parts where its pods are not alike.
    fn workloads(&mut self, reach: &Reach) {
        for ((namespace, workload), units) in by_workload(reach) {
            let parts = alike(reach, units);
            let whole = parts.len() == 1;
            for part in parts {
                let pods = all_pods(&part);
                let end = workload_pods(&namespace, &workload, names(reach, &pods), whole);
                let group = self.group(reach, &part);
                self.add_pods(reach, ConnectionEnd::Workload(end), group, &pods);
            }
        }
    }

    fn pods(&mut self, reach: &Reach) {
        for (unit, pods) in units_of_pods(reach) {
            let group = self.group(reach, &[(unit, pods.to_vec())]);
            for pod in pods {
                let facts = &reach.pods[*pod as usize];
                let end = ConnectionEnd::Pod {
                    key: facts.key.clone(),
                    workload_kind: facts.workload.kind.clone(),
                    workload_name: facts.workload.name.clone(),
                };
                self.add_pods(reach, end, group, &[*pod]);
            }
        }
    }

    fn namespaces(&mut self, reach: &Reach) {
        let mut found: BTreeMap<&Name, Vec<Share>> = BTreeMap::new();
        for (unit, pods) in units_of_pods(reach) {
            // The pods of a unit share the namespace: policies see it.
            let namespace = &reach.pods[pods[0] as usize].key.namespace;
            found.entry(namespace).or_default().push((unit, pods.to_vec()));
        }
        for (namespace, units) in found {
            let group = self.group(reach, &units);
            self.add_pods(reach, ConnectionEnd::Namespace(namespace.clone()), group, &all_pods(&units));
        }
    }

    /// Pods of any workloads that are alike.
    fn classes(&mut self, reach: &Reach) {
        let all = units_of_pods(reach).map(|(unit, pods)| (unit, pods.to_vec())).collect();
        let mut totals: HashMap<(&Name, &Workload), usize> = HashMap::new();
        for pod in &reach.pods {
            *totals.entry((&pod.key.namespace, &pod.workload)).or_default() += 1;
        }
        for part in alike(reach, all) {
            let pods = all_pods(&part);
            let mut members: BTreeMap<(&Name, &Workload), Vec<u32>> = BTreeMap::new();
            for pod in &pods {
                let facts = &reach.pods[*pod as usize];
                members.entry((&facts.key.namespace, &facts.workload)).or_default().push(*pod);
            }
            let members = members.into_iter().map(|((namespace, workload), pods)| {
                let whole = totals.get(&(namespace, workload)) == Some(&pods.len());
                workload_pods(namespace, workload, names(reach, &pods), whole)
            });
            let mut members: Vec<WorkloadPods> = members.collect();
            members.sort_unstable();
            let group = self.group(reach, &part);
            self.add_pods(reach, ConnectionEnd::Class(members), group, &pods);
        }
    }

    /// An end that stands for other units than pods.
    fn add_others(&mut self, end: ConnectionEnd, units: Vec<UnitId>, nodes: Vec<Name>) {
        let group = self.groups.len() as UnitGroupId;
        self.groups
            .push(UnitGroup { units: units.into_iter().map(|id| (id, Placement::default())).collect() });
        self.ends.push(PlacedEnd { end, group, placement: Placement { nodes, ..Placement::default() } });
    }

    /// Nodes that are treated alike; as the own node of their pods, or as any other peer.
    fn nodes(&mut self, reach: &Reach, own_node: bool) {
        let treatments = Family::BOTH.map(|family| reach.treatment(family));
        let mut found: HashMap<[Option<&Treatment>; 2], Alike<NodeAddresses>> = HashMap::new();
        for (id, unit) in others(reach) {
            let Members::Node { name, addresses } = &unit.members else { continue };
            let mut key = [None; 2];
            for family in 0..2 {
                // What the own node sends is always allowed: there is nothing to tell nodes apart by.
                let treatment = |class| match treatments[family].get(&class) {
                    Some(treatment) if !own_node => &treatment[..],
                    _ => &[],
                };
                key[family] = unit.classes[family].map(treatment);
            }
            let (units, members) = found.entry(key).or_default();
            units.push(id);
            let mut addresses = addresses.clone();
            addresses.sort_unstable();
            members.push(NodeAddresses { name: name.clone(), addresses });
        }
        for (units, mut members) in found.into_values() {
            members.sort_unstable();
            let mut nodes: Vec<Name> = members.iter().map(|n| n.name.clone()).collect();
            nodes.dedup();
            let end = if own_node { ConnectionEnd::OwnNode(members) } else { ConnectionEnd::Nodes(members) };
            self.add_others(end, units, nodes);
        }
    }

    /// What forwards into the cluster, if something does.
    fn controller(&mut self, pods: Option<Vec<WorkloadPods>>) {
        if let Some(pods) = pods {
            // It is in no group: what it may do is worked out by itself.
            let (end, placement) = (ConnectionEnd::IngressController(pods), Placement::default());
            self.ends.push(PlacedEnd { end, group: UnitGroupId::MAX, placement });
        }
    }

    /// Outside addresses that are treated alike, and lie in the same marks.
    fn externals(&mut self, reach: &Reach) {
        for family in Family::BOTH {
            let treatment = reach.treatment(family);
            let mut found: HashMap<(&[usize], &Treatment), Alike<IpRange>> = HashMap::new();
            for (id, unit) in others(reach) {
                let Members::External { family: of, ranges, marks } = &unit.members else { continue };
                let Some(class) = unit.classes[index(family)].filter(|_| *of == family) else { continue };
                let key = (&marks[..], treatment.get(&class).map_or(&[][..], |t| &t[..]));
                let (units, all) = found.entry(key).or_default();
                units.push(id);
                all.extend(ranges);
            }
            for (units, ranges) in found.into_values() {
                let end = ExternalRanges { family, ranges: merged(ranges) };
                self.add_others(ConnectionEnd::External(end), units, Vec::new());
            }
        }
    }
}

/// Units that are treated alike, and what they are.
type Alike<T> = (Vec<UnitId>, Vec<T>);

/// Some pods of a unit.
type Share = (UnitId, Vec<u32>);

fn units_of_pods(reach: &Reach) -> impl Iterator<Item = (UnitId, &[u32])> {
    reach.units[..reach.pod_units].iter().enumerate().filter_map(|(id, unit)| match &unit.members {
        Members::Pods(pods) => Some((id as UnitId, &pods[..])),
        _ => None,
    })
}

fn others(reach: &Reach) -> impl Iterator<Item = (UnitId, &Unit)> {
    reach.units.iter().enumerate().skip(reach.pod_units).map(|(id, unit)| (id as UnitId, unit))
}

fn by_workload(reach: &Reach) -> BTreeMap<(Name, Workload), Vec<Share>> {
    let mut found: BTreeMap<(Name, Workload), BTreeMap<UnitId, Vec<u32>>> = BTreeMap::new();
    for (unit, pods) in units_of_pods(reach) {
        for pod in pods {
            let facts = &reach.pods[*pod as usize];
            let key = (facts.key.namespace.clone(), facts.workload.clone());
            found.entry(key).or_default().entry(unit).or_default().push(*pod);
        }
    }
    found.into_iter().map(|(key, units)| (key, units.into_iter().collect())).collect()
}

/// Parts of these units that are alike, in the order of their first units.
fn alike(reach: &Reach, units: Vec<Share>) -> Vec<Vec<Share>> {
    if units.len() == 1 {
        return vec![units];
    }
    let mut parts: Vec<Vec<Share>> = Vec::new();
    let mut by_hash: HashMap<u64, Vec<usize>> = HashMap::new();
    // A hash of everything that matters costs as much as one comparison: worth it where there is more than one.
    let hashed = units.len() > 2;
    for (id, pods) in units {
        let unit = &reach.units[id as usize];
        let hash = if hashed { behaviour(reach, unit) } else { 0 };
        let candidates = by_hash.entry(hash).or_default();
        let same = candidates.iter().copied().find(|p| {
            let first = &reach.units[parts[*p][0].0 as usize];
            reach.alike(first, unit)
        });
        match same {
            Some(part) => parts[part].push((id, pods)),
            None => {
                candidates.push(parts.len());
                parts.push(vec![(id, pods)]);
            }
        }
    }
    parts
}

/// A number that units that are alike share.
fn behaviour(reach: &Reach, unit: &Unit) -> u64 {
    let mut hasher = DefaultHasher::new();
    unit.entered.hash(&mut hasher);
    for other in &reach.units {
        (reach.cell(unit, other), reach.cell(other, unit)).hash(&mut hasher);
    }
    hasher.finish()
}

fn all_pods(units: &[Share]) -> Vec<u32> {
    let mut pods: Vec<u32> = units.iter().flat_map(|(_, pods)| pods).copied().collect();
    pods.sort_unstable();
    pods
}

/// The names of pods, sorted: their numbers are in the order of their keys, and all are of one namespace.
fn names(reach: &Reach, pods: &[u32]) -> Vec<Name> {
    pods.iter().map(|pod| reach.pods[*pod as usize].key.name.clone()).collect()
}

fn workload_pods(namespace: &Name, workload: &Workload, pods: Vec<Name>, whole: bool) -> WorkloadPods {
    let (kind, name) = (workload.kind.clone(), workload.name.clone());
    WorkloadPods { namespace: namespace.clone(), name, kind, pods, whole }
}

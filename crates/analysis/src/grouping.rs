//! Groups units into the ends of an answer: by workload, pod, namespace or class. Equivalent nodes become one end, and
//! so do equivalent external ranges.

use std::{
    collections::{BTreeMap, HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use palisade_policy::{Family, IpRange, Name, Workload, address::union};

use crate::{
    end::{ConnectionEnd, ExternalRanges, NodeAddresses, WorkloadPods},
    families::index,
    query::GroupBy,
    reach::{Members, Reach, SpecialTraffic, Unit, UnitId},
};

/// Identifies a [`UnitGroup`].
pub(crate) type UnitGroupId = u32;

/// The units of an end, or of several ends of pods. They are equivalent, unless ends are namespaces, so the first unit
/// can represent all.
#[derive(Debug)]
pub(crate) struct UnitGroup {
    /// At least one unit, each with its pods in the group. A workload may have only some pods of a unit.
    pub(crate) units: Vec<(UnitId, Placement)>,
}

/// The number of pods, and their nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placement {
    pub(crate) pods: usize,
    /// The known nodes of the pods, or the nodes that are the end. Sorted.
    pub(crate) nodes: Vec<Name>,
    /// Whether the node of some pod is unknown.
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

    /// Returns whether some of these pods can be a destination of `source`.
    pub(crate) fn may_be_called_by(&self, source: &PlacedEnd) -> bool {
        let nodes = &source.placement.nodes;
        match source.end {
            ConnectionEnd::OwnNode(_) => nodes.iter().any(|n| self.nodes.contains(n)),
            // The pods of a single node see it as their own node.
            ConnectionEnd::Nodes(_) => nodes.len() > 1 || self.unplaced || self.nodes != *nodes,
            _ => true,
        }
    }
}

/// An end of an answer, with its group and placement.
#[derive(Debug)]
pub(crate) struct PlacedEnd {
    pub(crate) end: ConnectionEnd,
    pub(crate) group: UnitGroupId,
    pub(crate) placement: Placement,
}

/// The sorted ends of an answer, and their groups.
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

    /// Adds a group of some pods of these units.
    fn group(&mut self, reach: &Reach, units: &[Share]) -> UnitGroupId {
        let units = units.iter().map(|(id, pods)| (*id, Placement::of(reach, pods))).collect();
        self.groups.push(UnitGroup { units });
        self.groups.len() as UnitGroupId - 1
    }

    /// Adds an end of these pods.
    fn add_pods(&mut self, reach: &Reach, end: ConnectionEnd, group: UnitGroupId, pods: &[u32]) {
        let placement = Placement::of(reach, pods);
        self.ends.push(PlacedEnd { end, group, placement });
    }

    /// Adds an end for each workload, or several if its pods are not equivalent.
    fn workloads(&mut self, reach: &Reach) {
        for ((namespace, workload), units) in by_workload(reach) {
            let parts = equivalent(reach, units);
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
            // All pods of a unit have the same namespace, since policies distinguish namespaces.
            let namespace = &reach.pods[pods[0] as usize].key.namespace;
            found.entry(namespace).or_default().push((unit, pods.to_vec()));
        }
        for (namespace, units) in found {
            let group = self.group(reach, &units);
            self.add_pods(reach, ConnectionEnd::Namespace(namespace.clone()), group, &all_pods(&units));
        }
    }

    /// Adds an end for each set of equivalent pods.
    fn classes(&mut self, reach: &Reach) {
        let all = units_of_pods(reach).map(|(unit, pods)| (unit, pods.to_vec())).collect();
        let mut totals: HashMap<(&Name, &Workload), usize> = HashMap::new();
        for pod in &reach.pods {
            *totals.entry((&pod.key.namespace, &pod.workload)).or_default() += 1;
        }
        for part in equivalent(reach, all) {
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

    /// Adds an end of units that are not pods.
    fn add_others(&mut self, end: ConnectionEnd, units: Vec<UnitId>, nodes: Vec<Name>) {
        let group = self.groups.len() as UnitGroupId;
        self.groups
            .push(UnitGroup { units: units.into_iter().map(|id| (id, Placement::default())).collect() });
        self.ends.push(PlacedEnd { end, group, placement: Placement { nodes, ..Placement::default() } });
    }

    /// Adds ends of equivalent nodes; as the own node of their pods, or as other peers.
    fn nodes(&mut self, reach: &Reach, own_node: bool) {
        let rows = Family::BOTH.map(|family| reach.rows_in_use(family));
        let mut found: HashMap<[Option<SpecialTraffic>; 2], Equivalent<NodeAddresses>> = HashMap::new();
        for (id, unit) in others(reach) {
            let Members::Node { name, addresses } = &unit.members else { continue };
            let key = [0, 1].map(|family| {
                let class = unit.classes[family]?;
                // Connections from the own node are always allowed, so there is nothing to distinguish nodes by.
                Some(if own_node { Vec::new() } else { reach.special_traffic(class, &rows[family]) })
            });
            let (units, members) = found.entry(key).or_default();
            units.push(id);
            let mut addresses = addresses.clone();
            addresses.sort_unstable();
            members.push(NodeAddresses { name: name.clone(), addresses, whole: true });
        }
        let counted = |members: &mut dyn Iterator<Item = &NodeAddresses>| {
            let mut counts: HashMap<Name, usize> = HashMap::new();
            members.for_each(|n| *counts.entry(n.name.clone()).or_default() += n.addresses.len());
            counts
        };
        let all = counted(&mut found.values().flat_map(|(_, members)| members));
        for (units, mut members) in found.into_values() {
            let own = counted(&mut members.iter());
            let whole: Vec<bool> = members.iter().map(|n| all.get(&n.name) == own.get(&n.name)).collect();
            members.iter_mut().zip(whole).for_each(|(member, whole)| member.whole = whole);
            members.sort_unstable();
            let mut nodes: Vec<Name> = members.iter().map(|n| n.name.clone()).collect();
            nodes.dedup();
            let end = if own_node { ConnectionEnd::OwnNode(members) } else { ConnectionEnd::Nodes(members) };
            self.add_others(end, units, nodes);
        }
    }

    /// Adds the controller, if there are routes.
    fn controller(&mut self, pods: Option<Vec<WorkloadPods>>) {
        if let Some(pods) = pods {
            // It is in no group. Its traffic is computed separately.
            let (end, placement) = (ConnectionEnd::IngressController(pods), Placement::default());
            self.ends.push(PlacedEnd { end, group: UnitGroupId::MAX, placement });
        }
    }

    /// Adds ends of equivalent external addresses in the same filter ranges.
    fn externals(&mut self, reach: &Reach) {
        for family in Family::BOTH {
            let rows = reach.rows_in_use(family);
            let mut found: HashMap<(&[usize], SpecialTraffic), Equivalent<CutRange>> = HashMap::new();
            for (id, unit) in others(reach) {
                let Members::External { family: of, ranges, spanned, filter_ranges } = &unit.members else {
                    continue;
                };
                let Some(class) = unit.classes[index(family)].filter(|_| *of == family) else { continue };
                let key = (&filter_ranges[..], reach.special_traffic(class, &rows));
                let (units, all) = found.entry(key).or_default();
                units.push(id);
                all.extend(ranges.iter().map(|range| (*range, false)));
                all.extend(spanned.iter().map(|range| (*range, true)));
            }
            for (units, all) in found.into_values() {
                let of =
                    |spanned| union(all.iter().filter(|(_, s)| *s == spanned).map(|(r, _)| *r).collect());
                let end = ExternalRanges { family, ranges: of(false), spanned: of(true) };
                self.add_others(ConnectionEnd::External(end), units, Vec::new());
            }
        }
    }
}

/// Equivalent units and their members.
type Equivalent<T> = (Vec<UnitId>, Vec<T>);

/// An external range, and whether it has the addresses of pods and nodes in it.
type CutRange = (IpRange, bool);

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

/// Divides units into sets of equivalent ones, in the order of their first units.
fn equivalent(reach: &Reach, units: Vec<Share>) -> Vec<Vec<Share>> {
    if units.len() == 1 {
        return vec![units];
    }
    let mut parts: Vec<Vec<Share>> = Vec::new();
    let mut by_hash: HashMap<u64, Vec<usize>> = HashMap::new();
    // Hashing all connections of a unit costs as much as one comparison, so it pays off with more than one.
    let hashed = units.len() > 2;
    for (id, pods) in units {
        let unit = &reach.units[id as usize];
        let hash = if hashed { hash_of_connections(reach, unit) } else { 0 };
        let candidates = by_hash.entry(hash).or_default();
        let same = candidates.iter().copied().find(|p| {
            let first = &reach.units[parts[*p][0].0 as usize];
            reach.is_equivalent(first, unit)
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

/// Returns a hash of a unit's connections, which is equal for equivalent units.
fn hash_of_connections(reach: &Reach, unit: &Unit) -> u64 {
    let mut hasher = DefaultHasher::new();
    unit.forwarding.hash(&mut hasher);
    for other in &reach.units {
        (reach.cell(unit, other), reach.cell(other, unit)).hash(&mut hasher);
        if reach.has_unknown_places() {
            (reach.possible_cell(unit, other), reach.possible_cell(other, unit)).hash(&mut hasher);
        }
    }
    hasher.finish()
}

fn all_pods(units: &[Share]) -> Vec<u32> {
    let mut pods: Vec<u32> = units.iter().flat_map(|(_, pods)| pods).copied().collect();
    pods.sort_unstable();
    pods
}

/// Returns the names of pods, sorted. Pods are numbered in the order of their keys, and these have the same namespace.
fn names(reach: &Reach, pods: &[u32]) -> Vec<Name> {
    pods.iter().map(|pod| reach.pods[*pod as usize].key.name.clone()).collect()
}

fn workload_pods(namespace: &Name, workload: &Workload, pods: Vec<Name>, whole: bool) -> WorkloadPods {
    let (kind, name) = (workload.kind.clone(), workload.name.clone());
    WorkloadPods { namespace: namespace.clone(), name, kind, pods, whole }
}

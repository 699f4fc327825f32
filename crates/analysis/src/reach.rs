//! What any address may send to any other, counted once for all addresses that no policy tells apart.
//!
//! Pods that agree in what policies can see of them (namespace, mentioned labels, mentioned port names, the blocks that
//! hold their addresses) form one [`Unit`]; so do the addresses of a node, and the outside addresses held by the same
//! blocks. Subjects with equal rules share one [`Row`], which says what each class of peers may do; a row stores only
//! the classes that some rule of it names. What one unit may send to another is the intersection of two rows' entries,
//! and those recur, so each is worked out once.

mod enter;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    rc::Rc,
};

use palisade_policy::{
    Cluster, Direction, EffectiveRules, Family, IpRange, Labels, Name, NamespaceMatch, ObjectKey, Peer, Pod,
    Policy, Traffic, Workload,
};

use crate::{
    classes::{ClassId, Classes, IdentityId, Who},
    entrances::{Entered, Entrances, Targets},
    families::index,
    traffics::{Cell, TrafficId, Traffics},
};

/// Names a [`Unit`].
pub(crate) type UnitId = u32;
/// Names a [`Row`].
type RowId = u32;

/// A live pod, as answers name it.
#[derive(Clone, Debug)]
pub(crate) struct PodFacts {
    pub(crate) key: ObjectKey,
    /// The pod itself, if it belongs to nothing else.
    pub(crate) workload: Workload,
    pub(crate) node: Option<Name>,
}

/// How rows treat a class: each row that gives it something special, and what.
pub(crate) type Treatment = [(RowId, TrafficId)];

/// Who a unit is.
#[derive(Clone, Debug)]
pub(crate) enum Members {
    /// Live pods, by their place in [`Reach::pods`]; at least one.
    Pods(Vec<u32>),
    /// Addresses of one node, at most one of each family.
    Node { name: Name, addresses: Vec<IpAddr> },
    /// Outside addresses of one family, and the marks that hold them.
    External { family: Family, ranges: Vec<IpRange>, marks: Vec<usize> },
}

/// Ends of connections that no policy tells apart.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    pub(crate) members: Members,
    /// The classes of its addresses, by family; `None` if it has no address of the family.
    pub(crate) classes: [Option<ClassId>; 2],
    /// What it may send and receive; `None` if nothing restricts it.
    egress: Option<RowId>,
    ingress: Option<RowId>,
    /// What is forwarded to each of its pods, by number.
    pub(crate) target: u32,
    /// What of that may be.
    pub(crate) entered: Entered,
}

/// What a subject allows each class of peers in one direction.
#[derive(Debug)]
struct Row {
    rest: TrafficId,
    /// Classes that differ from `rest`, sorted.
    special: Vec<(ClassId, TrafficId)>,
}

impl Row {
    fn at(&self, class: ClassId) -> TrafficId {
        match self.special.binary_search_by_key(&class, |(c, _)| *c) {
            Ok(found) => self.special[found].1,
            Err(_) => self.rest,
        }
    }
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Reach {
    pub(crate) pods: Vec<PodFacts>,
    /// Those of pods first.
    pub(crate) units: Vec<Unit>,
    pub(crate) pod_units: usize,
    pub(crate) classes: usize,
    rows: Vec<Row>,
    pub(crate) traffics: Traffics,
    pub(crate) targets: Targets,
}

impl Reach {
    /// Works everything out. `O(addresses + policies × what they name + units²)`.
    pub(crate) fn new(cluster: &Cluster, marks: &[Vec<IpRange>], entrances: &Entrances) -> Self {
        let mut classes = Classes::new(cluster, marks);
        let owners = owners(cluster);
        let targets = Targets::new(cluster, &entrances.routes);
        let (pods, mut units, identities) = pod_units(&owners, &mut classes, &targets);
        let pod_units = units.len();
        units.extend(node_units(cluster, &owners, &mut classes));
        units.extend(external_units(&mut classes, marks.len()));
        let unknown = entrances.controller.is_empty() && entrances.lead_somewhere();
        let unknown = unknown.then(|| classes.unknown_pod());
        let mut rows = Rows::new(cluster, classes);
        let subjects = Subjects::new(cluster);
        for (unit, (identity, subject)) in units.iter_mut().zip(identities) {
            [unit.egress, unit.ingress] = rows.of_subject(identity, subject, &subjects);
        }
        let unknown = unknown.map(|(pod, namespace, held)| {
            let policies = subjects.selecting(&pod, Some(&namespace.labels));
            let effective = EffectiveRules::new(Direction::Egress, &pod, &policies);
            let egress = effective.map(|effective| rows.row(effective));
            Unit { egress, ..Unit::unrestricted(Members::Pods(Vec::new()), held.map(Some)) }
        });
        let Rows { classes, rows, traffics, .. } = rows;
        let mut reach = Self { pods, units, pod_units, classes: classes.len(), rows, traffics, targets };
        reach.learn_meets();
        reach.enter(cluster, entrances, unknown.as_ref());
        reach
    }

    /// Works out every intersection that [`Self::cell`] will ask for. The outside restricts nothing, so that only
    /// pairs of pods have any.
    fn learn_meets(&mut self) {
        let restricted =
            |row: fn(&Unit) -> Option<RowId>, units: &[Unit]| -> Vec<(RowId, [Option<ClassId>; 2])> {
                let mut found: Vec<_> = units.iter().filter_map(|u| Some((row(u)?, u.classes))).collect();
                found.sort_unstable();
                found.dedup();
                found
            };
        let sources = restricted(|u| u.egress, &self.units[..self.pod_units]);
        let targets = restricted(|u| u.ingress, &self.units[..self.pod_units]);
        for (egress, from) in &sources {
            for (ingress, to) in &targets {
                for family in 0..2 {
                    if family == 1 && from[0] == from[1] && to[0] == to[1] {
                        continue;
                    }
                    let (Some(from), Some(to)) = (from[family], to[family]) else { continue };
                    let sent = self.rows[*egress as usize].at(to);
                    let received = self.rows[*ingress as usize].at(from);
                    self.traffics.learn_meet(sent, received);
                }
            }
        }
    }

    /// What one unit may send to another. Between pods of one unit: to another pod of it. Not for a node and its own
    /// pods: see [`Self::cell_from_own_node`].
    pub(crate) fn cell(&self, from: &Unit, to: &Unit) -> Cell {
        let family = |family: usize| {
            let (sent, received) = self.sides(from, to, family)?;
            self.traffics.meet(sent, received)
        };
        let first = family(0);
        if from.classes[0] == from.classes[1] && to.classes[0] == to.classes[1] {
            return [first, first];
        }
        [first, family(1)]
    }

    /// What one unit may send as far as its own rules go, and the other receive; `None` if they don't share the family.
    pub(crate) fn sides(&self, from: &Unit, to: &Unit, family: usize) -> Option<(TrafficId, TrafficId)> {
        let at = |row: Option<RowId>, class| row.map_or(Traffics::ALL, |r| self.rows[r as usize].at(class));
        let (source, target) = (from.classes[family]?, to.classes[family]?);
        Some((at(from.egress, target), at(to.ingress, source)))
    }

    /// What a node may send to those pods of a unit that are on it: everything (SEMANTICS A39, D9).
    pub(crate) fn cell_from_own_node(&self, node: &Unit, to: &Unit) -> Cell {
        [0, 1].map(|family| node.classes[family].and(to.classes[family]).map(|_| Traffics::ALL))
    }

    pub(crate) fn traffic(&self, id: TrafficId) -> &Traffic {
        self.traffics.get(id)
    }

    /// For every class, the rows in use that treat it specially, and how. Two classes of one family with equal entries
    /// are treated alike by every pod of that family.
    pub(crate) fn treatment(&self, family: Family) -> HashMap<ClassId, Vec<(RowId, TrafficId)>> {
        let used = self.units[..self.pod_units].iter().filter(|u| u.classes[index(family)].is_some());
        let rows = used.flat_map(|u| [u.egress, u.ingress]);
        let mut rows: Vec<RowId> = rows.flatten().collect();
        rows.sort_unstable();
        rows.dedup();
        let mut out: HashMap<ClassId, Vec<(RowId, TrafficId)>> = HashMap::new();
        for row in rows {
            for (class, id) in &self.rows[row as usize].special {
                out.entry(*class).or_default().push((row, *id));
            }
        }
        out
    }

    /// Whether two units of pods may be told apart by what they may do, with any other end.
    pub(crate) fn alike(&self, a: &Unit, b: &Unit) -> bool {
        let families = |u: &Unit| u.classes.map(|c| c.is_some());
        if families(a) != families(b) {
            return false;
        }
        if a.entered != b.entered {
            return false;
        }
        if (a.egress, a.ingress, a.classes) == (b.egress, b.ingress, b.classes) {
            return true;
        }
        self.units.iter().all(|other| {
            self.cell(a, other) == self.cell(b, other) && self.cell(other, a) == self.cell(other, b)
        })
    }
}

/// The live pods by the addresses that they own (SEMANTICS G-10).
pub(crate) fn owners(cluster: &Cluster) -> HashMap<IpAddr, &Pod> {
    let mut owners: HashMap<IpAddr, &Pod> = HashMap::with_capacity(cluster.pods.len());
    for pod in cluster.pods.values().filter(|p| p.is_live()) {
        for address in &pod.addresses {
            let owner = owners.entry(*address).or_insert(pod);
            if Pod::precedence(pod, owner).is_lt() {
                *owner = pod;
            }
        }
    }
    owners
}

/// Who is asked for, for one unit: what policies see, and one pod of it.
type Subject<'c> = (IdentityId, &'c Pod);

fn pod_units<'c>(
    owners: &HashMap<IpAddr, &'c Pod>,
    classes: &mut Classes,
    targets: &Targets,
) -> (Vec<PodFacts>, Vec<Unit>, Vec<Subject<'c>>) {
    let mut pods: Vec<&Pod> = owners.values().copied().collect();
    pods.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    pods.dedup_by(|a, b| a.key == b.key);
    let (mut facts, mut units, mut subjects) = (Vec::with_capacity(pods.len()), Vec::new(), Vec::new());
    let mut known: HashMap<(IdentityId, [Option<ClassId>; 2], u32), UnitId> = HashMap::new();
    for pod in pods {
        let identity = classes.identity(pod);
        let mut held = [None; 2];
        for address in pod.addresses.iter().filter(|a| owners.get(a).is_some_and(|o| o.key == pod.key)) {
            let set = classes.space.set_of(*address);
            held[index(Family::of(*address))] = Some(classes.class(Who::Pod(identity), set));
        }
        let number = facts.len() as u32;
        let own = || Workload { kind: "Pod".into(), name: pod.key.name.clone() };
        facts.push(PodFacts {
            key: pod.key.clone(),
            workload: pod.workload.clone().unwrap_or_else(own),
            node: pod.node.clone(),
        });
        let target = targets.of(&pod.key);
        let unit = *known.entry((identity, held, target)).or_insert_with(|| {
            let unit = Unit::unrestricted(Members::Pods(Vec::new()), held);
            units.push(Unit { target, ..unit });
            subjects.push((identity, pod));
            units.len() as UnitId - 1
        });
        if let Members::Pods(members) = &mut units[unit as usize].members {
            members.push(number);
        }
    }
    (facts, units, subjects)
}

impl Unit {
    fn unrestricted(members: Members, classes: [Option<ClassId>; 2]) -> Self {
        let entered = Entered::default();
        Self { members, classes, egress: None, ingress: None, target: 0, entered }
    }
}

/// Each node with its first address of each family; further addresses by themselves, as CIDRs may tell them apart.
/// An address that a pod owns, or an earlier node has, is not the node's (as [`Cluster::endpoint`] reads it).
fn node_units(cluster: &Cluster, owners: &HashMap<IpAddr, &Pod>, classes: &mut Classes) -> Vec<Unit> {
    let mut taken: HashSet<IpAddr> = HashSet::new();
    let mut units = Vec::new();
    for node in cluster.nodes.values() {
        let who = classes.node(node);
        let mut rounds: Vec<[Option<IpAddr>; 2]> = Vec::new();
        for address in &node.addresses {
            if owners.contains_key(address) || !taken.insert(*address) {
                continue;
            }
            let family = index(Family::of(*address));
            match rounds.iter_mut().find(|round| round[family].is_none()) {
                Some(round) => round[family] = Some(*address),
                None => {
                    let mut round = [None; 2];
                    round[family] = Some(*address);
                    rounds.push(round);
                }
            }
        }
        for round in rounds {
            let held = round.map(|a| {
                let set = classes.space.set_of(a?);
                Some(classes.class(who, set))
            });
            let addresses = round.into_iter().flatten().collect();
            units.push(Unit::unrestricted(Members::Node { name: node.name.clone(), addresses }, held));
        }
    }
    units
}

fn external_units(classes: &mut Classes, marks: usize) -> Vec<Unit> {
    let mut units = Vec::new();
    for family in Family::BOTH {
        let mut by_set: BTreeMap<u32, Vec<IpRange>> = BTreeMap::new();
        for (range, set) in classes.ranges(family) {
            by_set.entry(set).or_default().push(range);
        }
        for (set, ranges) in by_set {
            let mut held = [None; 2];
            held[index(family)] = Some(classes.class(Who::External(family), set));
            let marks = (0..marks).filter(|m| classes.in_mark(*m).contains(&set)).collect();
            units.push(Unit::unrestricted(Members::External { family, ranges, marks }, held));
        }
    }
    units
}

/// Policies by where their subjects are.
struct Subjects<'c> {
    by_namespace: HashMap<&'c Name, Vec<&'c Policy>>,
    cluster_wide: Vec<&'c Policy>,
}

impl<'c> Subjects<'c> {
    fn new(cluster: &'c Cluster) -> Self {
        let mut out = Self { by_namespace: HashMap::new(), cluster_wide: Vec::new() };
        for policy in cluster.policies.values() {
            match &policy.subject.namespaces {
                NamespaceMatch::Named(name) => out.by_namespace.entry(name).or_default().push(policy),
                NamespaceMatch::Selected(_) => out.cluster_wide.push(policy),
            }
        }
        out
    }

    /// The policies that select a pod in a namespace with these labels.
    fn selecting(&self, pod: &Pod, labels: Option<&Labels>) -> Vec<&'c Policy> {
        let own = self.by_namespace.get(&pod.key.namespace).into_iter().flatten();
        own.chain(&self.cluster_wide)
            .copied()
            .filter(|p| p.subject.matches(&pod.key.namespace, labels, &pod.labels))
            .collect()
    }
}

/// The rows of all subjects, made once for equal rules.
struct Rows<'c> {
    cluster: &'c Cluster,
    classes: Classes,
    held_by: HashMap<Peer, Rc<[ClassId]>>,
    known: HashMap<EffectiveRules, RowId>,
    of_identity: HashMap<IdentityId, [Option<RowId>; 2]>,
    rows: Vec<Row>,
    traffics: Traffics,
}

impl<'c> Rows<'c> {
    fn new(cluster: &'c Cluster, classes: Classes) -> Self {
        Self {
            cluster,
            classes,
            held_by: HashMap::new(),
            known: HashMap::new(),
            of_identity: HashMap::new(),
            rows: Vec::new(),
            traffics: Traffics::new(),
        }
    }

    /// The rows of egress and ingress for pods that are seen as `subject` is.
    fn of_subject(
        &mut self,
        identity: IdentityId,
        subject: &Pod,
        subjects: &Subjects<'_>,
    ) -> [Option<RowId>; 2] {
        if let Some(known) = self.of_identity.get(&identity) {
            return *known;
        }
        let labels = self.cluster.namespaces.get(&subject.key.namespace).map(|n| &n.labels);
        let policies = subjects.selecting(subject, labels);
        let effective = Direction::BOTH.map(|direction| EffectiveRules::new(direction, subject, &policies));
        let rows = effective.map(|effective| effective.map(|effective| self.row(effective)));
        self.of_identity.insert(identity, rows);
        rows
    }

    fn row(&mut self, effective: EffectiveRules) -> RowId {
        if let Some(known) = self.known.get(&effective) {
            return *known;
        }
        let rest = self.traffics.id(effective.allowed(&[], &[]));
        let names: HashSet<&Name> = effective.port_names().collect();
        let mut named: Vec<(ClassId, usize)> = Vec::new();
        for (rule, peer) in effective.peers() {
            named.extend(self.held_by(peer).iter().map(|class| (*class, rule)));
        }
        if !names.is_empty() {
            // A rule for everyone means something else for each pod that has such a port: `usize::MAX` is no rule.
            named.extend(self.classes.with_port_names(&names).into_iter().map(|class| (class, usize::MAX)));
        }
        named.sort_unstable();
        named.dedup();
        let mut special = Vec::new();
        let mut known: HashMap<(Vec<usize>, &[_]), TrafficId> = HashMap::new();
        for of_class in named.chunk_by(|a, b| a.0 == b.0) {
            let class = of_class[0].0;
            let rules: Vec<usize> =
                of_class.iter().map(|(_, rule)| *rule).filter(|r| *r != usize::MAX).collect();
            let ports = if names.is_empty() { &[] } else { self.classes.ports(class) };
            let id = match known.get(&(rules.clone(), ports)) {
                Some(id) => *id,
                None => {
                    let id = self.traffics.id(effective.allowed(&rules, ports));
                    known.insert((rules, ports), id);
                    id
                }
            };
            if id != rest {
                special.push((class, id));
            }
        }
        let id = self.rows.len() as RowId;
        self.rows.push(Row { rest, special });
        self.known.insert(effective, id);
        id
    }

    fn held_by(&mut self, peer: &Peer) -> Rc<[ClassId]> {
        if let Some(known) = self.held_by.get(peer) {
            return Rc::clone(known);
        }
        let found: Rc<[ClassId]> = self.classes.held_by(peer, self.cluster).into();
        self.held_by.insert(peer.clone(), Rc::clone(&found));
        found
    }
}

//! The connections between all addresses, computed once for addresses that no policy distinguishes.
//!
//! Pods with equal properties that policies refer to (namespace, labels, port names, blocks of their addresses) form
//! one [`Unit`]. So do the addresses of a node, and external addresses in the same blocks. Subjects with equal rules
//! share a [`Row`], which has the traffic with each class of peers; it only stores classes that its rules refer to. The
//! traffic from one unit to another is the intersection of two rows' entries. These intersections recur, so each is
//! computed once.

mod find;
mod forwarding;
mod scan;

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
    classes::{AddressOwner, ClassId, Classes, IdentityId},
    controller::{ControllerRoutes, ForwardingTargets, UnitForwarding},
    families::index,
    traffics::{Cell, TrafficId, Traffics},
};
use scan::ByClass;
pub(crate) use scan::Scan;

/// Identifies a [`Unit`].
pub(crate) type UnitId = u32;
/// Identifies a [`Row`].
type RowId = u32;

/// A running pod.
#[derive(Clone, Debug)]
pub(crate) struct PodFacts {
    pub(crate) key: ObjectKey,
    /// The pod itself, if it has no owner.
    pub(crate) workload: Workload,
    pub(crate) node: Option<Name>,
}

/// The rows with an entry for a class, and their entries.
pub(crate) type SpecialTraffic = Vec<(RowId, TrafficId)>;

/// The members of a unit.
#[derive(Clone, Debug)]
pub(crate) enum Members {
    /// Running pods, as indexes into [`Reach::pods`]. There is at least one.
    Pods(Vec<u32>),
    /// Addresses of a node, at most one of each family.
    Node { name: Name, addresses: Vec<IpAddr> },
    /// External ranges of one family, and the filter ranges that contain them.
    External { family: Family, ranges: Vec<IpRange>, filter_ranges: Vec<usize> },
}

/// Ends of connections that no policy distinguishes.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    pub(crate) members: Members,
    /// The class of its address in each family; `None` if it has none.
    pub(crate) classes: [Option<ClassId>; 2],
    /// The rows for what it may send and receive; `None` if it is not isolated and no other policy applies.
    egress: Option<RowId>,
    ingress: Option<RowId>,
    /// The number of the traffic that is forwarded to each of its pods.
    pub(crate) target: u32,
    /// What the controller may forward.
    pub(crate) forwarding: UnitForwarding,
}

/// The traffic of a subject with each class of peers in one direction.
#[derive(Debug)]
struct Row {
    rest: TrafficId,
    /// Classes whose traffic differs from `rest`, sorted.
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

/// The connections of a cluster. See the module documentation.
#[derive(Debug)]
pub(crate) struct Reach {
    pub(crate) pods: Vec<PodFacts>,
    /// The units. Those of pods come first.
    pub(crate) units: Vec<Unit>,
    pub(crate) pod_units: usize,
    pub(crate) classes: usize,
    rows: Vec<Row>,
    by_class: ByClass,
    pub(crate) traffics: Traffics,
    pub(crate) targets: ForwardingTargets,
}

impl Reach {
    /// Computes all connections. `O(addresses + policies × what they refer to + units²)`.
    pub(crate) fn new(
        cluster: &Cluster,
        filter_ranges: &[Vec<IpRange>],
        controller_routes: &ControllerRoutes,
    ) -> Self {
        let mut classes = Classes::new(cluster, filter_ranges);
        let owners = owners(cluster);
        let targets = ForwardingTargets::new(cluster, &controller_routes.routes);
        let (pods, mut units, identities) = pod_units(&owners, &mut classes, &targets);
        let pod_units = units.len();
        units.extend(node_units(cluster, &owners, &mut classes));
        units.extend(external_units(&mut classes, filter_ranges.len()));
        let unknown = controller_routes.controller.is_empty() && controller_routes.have_backends();
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
        let by_class = ByClass::new(&rows, classes.len());
        let classes = classes.len();
        let mut reach = Self { pods, units, pod_units, classes, rows, by_class, traffics, targets };
        reach.compute_intersections();
        reach.compute_forwarding(cluster, controller_routes, unknown.as_ref());
        reach
    }

    /// Computes all intersections that [`Self::cell`] needs. Policies only restrict pods, so only pairs of pods have
    /// any.
    fn compute_intersections(&mut self) {
        type Key = (Option<RowId>, [Option<ClassId>; 2]);
        let distinct = |key: fn(&Unit) -> Key| -> Vec<&Unit> {
            let mut found: Vec<&Unit> = self.units[..self.pod_units].iter().collect();
            found.retain(|unit| key(unit).0.is_some());
            found.sort_by_key(|unit| key(unit));
            found.dedup_by_key(|unit| key(unit));
            found
        };
        let sources = distinct(|unit| (unit.egress, unit.classes));
        let targets = distinct(|unit| (unit.ingress, unit.classes));
        let mut needed: HashSet<(TrafficId, TrafficId)> = HashSet::new();
        let mut scan = Scan::new(&self.rows, &self.by_class);
        for source in sources {
            scan.from(source);
            for target in &targets {
                let [v4, v6] = scan.sides(target);
                for (sent, received) in v4.into_iter().chain(v6.filter(|_| v4 != v6)) {
                    if !Traffics::is_trivial(sent, received) {
                        needed.insert((sent, received));
                    }
                }
            }
        }
        // Numbers of traffic follow this order, so it has to be the same in every run.
        let mut needed: Vec<_> = needed.into_iter().collect();
        needed.sort_unstable();
        for (sent, received) in needed {
            self.traffics.intersect(sent, received);
        }
    }

    /// Returns the traffic from one unit to another. Within a unit, it is the traffic between two of its pods. For a
    /// node and its own pods, use [`Self::cell_from_own_node`].
    pub(crate) fn cell(&self, from: &Unit, to: &Unit) -> Cell {
        let family = |family: usize| {
            let (sent, received) = self.sides(from, to, family)?;
            self.traffics.intersection_of(sent, received)
        };
        let first = family(0);
        if from.classes[0] == from.classes[1] && to.classes[0] == to.classes[1] {
            return [first, first];
        }
        [first, family(1)]
    }

    /// Returns what the rules of the source allow it to send, and what those of the destination allow it to receive;
    /// `None` if they don't share the family.
    pub(crate) fn sides(&self, from: &Unit, to: &Unit, family: usize) -> Option<(TrafficId, TrafficId)> {
        let at = |row: Option<RowId>, class| row.map_or(Traffics::ALL, |r| self.rows[r as usize].at(class));
        let (source, target) = (from.classes[family]?, to.classes[family]?);
        Some((at(from.egress, target), at(to.ingress, source)))
    }

    /// Returns the traffic from a node to the pods of a unit on that node: everything (SEMANTICS A39, D9).
    pub(crate) fn cell_from_own_node(&self, node: &Unit, to: &Unit) -> Cell {
        [0, 1].map(|family| node.classes[family].and(to.classes[family]).map(|_| Traffics::ALL))
    }

    pub(crate) fn traffic(&self, id: TrafficId) -> &Traffic {
        self.traffics.get(id)
    }

    /// Returns whether no policy restricts what a unit may send or receive.
    pub(crate) fn is_unrestricted(&self, unit: &Unit, direction: Direction) -> bool {
        let row = if direction == Direction::Egress { unit.egress } else { unit.ingress };
        row.map(|row| &self.rows[row as usize])
            .is_none_or(|row| row.rest == Traffics::ALL && row.special.is_empty())
    }

    /// Returns the rows in use in a family.
    pub(crate) fn rows_in_use(&self, family: Family) -> HashSet<RowId> {
        let used = self.units[..self.pod_units].iter().filter(|u| u.classes[index(family)].is_some());
        used.flat_map(|u| [u.egress, u.ingress]).flatten().collect()
    }

    /// Returns those of some rows that have an entry for a class, sorted. Classes of a family with equal entries in the
    /// rows in use are equivalent for every pod of that family.
    pub(crate) fn special_traffic(&self, class: ClassId, rows: &HashSet<RowId>) -> SpecialTraffic {
        self.by_class.entries(class).iter().filter(|(row, _)| rows.contains(row)).copied().collect()
    }

    /// Returns whether two units of pods have the same connections with all ends.
    pub(crate) fn is_equivalent(&self, a: &Unit, b: &Unit) -> bool {
        let families = |u: &Unit| u.classes.map(|c| c.is_some());
        if families(a) != families(b) {
            return false;
        }
        if a.forwarding != b.forwarding {
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

/// Returns the running pods by the addresses that they own (SEMANTICS G-10).
pub(crate) fn owners(cluster: &Cluster) -> HashMap<IpAddr, &Pod> {
    let mut owners: HashMap<IpAddr, &Pod> = HashMap::with_capacity(cluster.pods.len());
    for pod in cluster.pods.values().filter(|p| p.is_running()) {
        for address in &pod.addresses {
            let owner = owners.entry(*address).or_insert(pod);
            if Pod::precedence(pod, owner).is_lt() {
                *owner = pod;
            }
        }
    }
    owners
}

/// The identity of a unit, and one of its pods.
type Subject<'c> = (IdentityId, &'c Pod);

fn pod_units<'c>(
    owners: &HashMap<IpAddr, &'c Pod>,
    classes: &mut Classes,
    targets: &ForwardingTargets,
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
            held[index(Family::of(*address))] = Some(classes.class(AddressOwner::Pod(identity), set));
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

/// The rows and classes of a unit.
pub(crate) type UnitTrafficKey = ([Option<RowId>; 2], [Option<ClassId>; 2]);

impl Unit {
    /// Returns a value that is equal for units with the same traffic.
    pub(crate) fn traffic_key(&self) -> UnitTrafficKey {
        ([self.egress, self.ingress], self.classes)
    }

    fn unrestricted(members: Members, classes: [Option<ClassId>; 2]) -> Self {
        let forwarding = UnitForwarding::default();
        Self { members, classes, egress: None, ingress: None, target: 0, forwarding }
    }
}

/// Returns units with the first address of each family of a node, and further units for its other addresses, since
/// CIDRs may distinguish them. An address of a pod or of an earlier node is left out (as in [`Cluster::endpoint`]).
fn node_units(cluster: &Cluster, owners: &HashMap<IpAddr, &Pod>, classes: &mut Classes) -> Vec<Unit> {
    let mut taken: HashSet<IpAddr> = HashSet::new();
    let mut units = Vec::new();
    for node in cluster.nodes.values() {
        let owner = classes.node(node);
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
                Some(classes.class(owner, set))
            });
            let addresses = round.into_iter().flatten().collect();
            units.push(Unit::unrestricted(Members::Node { name: node.name.clone(), addresses }, held));
        }
    }
    units
}

fn external_units(classes: &mut Classes, filter_ranges: usize) -> Vec<Unit> {
    let mut units = Vec::new();
    for family in Family::BOTH {
        let mut by_set: BTreeMap<u32, Vec<IpRange>> = BTreeMap::new();
        for (range, set) in classes.ranges(family) {
            by_set.entry(set).or_default().push(range);
        }
        for (set, ranges) in by_set {
            let mut held = [None; 2];
            held[index(family)] = Some(classes.class(AddressOwner::External(family), set));
            let filter_ranges =
                (0..filter_ranges).filter(|m| classes.in_filter_range(*m).contains(&set)).collect();
            units.push(Unit::unrestricted(Members::External { family, ranges, filter_ranges }, held));
        }
    }
    units
}

/// Policies by the namespaces of their subjects.
pub(crate) struct Subjects<'c> {
    by_namespace: HashMap<&'c Name, Vec<&'c Policy>>,
    cluster_wide: Vec<&'c Policy>,
}

impl<'c> Subjects<'c> {
    pub(crate) fn new(cluster: &'c Cluster) -> Self {
        let mut out = Self { by_namespace: HashMap::new(), cluster_wide: Vec::new() };
        for policy in cluster.policies.values() {
            match &policy.subject.namespaces {
                NamespaceMatch::Named(name) => out.by_namespace.entry(name).or_default().push(policy),
                NamespaceMatch::Selected(_) => out.cluster_wide.push(policy),
            }
        }
        out
    }

    /// Returns the policies that select a pod in a namespace with these labels.
    pub(crate) fn selecting(&self, pod: &Pod, labels: Option<&Labels>) -> Vec<&'c Policy> {
        let own = self.by_namespace.get(&pod.key.namespace).into_iter().flatten();
        own.chain(&self.cluster_wide)
            .copied()
            .filter(|p| p.subject.matches(&pod.key.namespace, labels, &pod.labels))
            .collect()
    }
}

/// The rows of all subjects. Equal rules share a row.
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

    /// Returns the rows for egress and ingress of pods that policies see like `subject`.
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
            // A rule for all peers matches differently for each pod with such a port. `usize::MAX` is no rule.
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

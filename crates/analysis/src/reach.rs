//! The connections between all addresses, computed once for addresses that no policy distinguishes.
//!
//! Pods with equal properties that policies refer to (namespace, labels, port names, blocks of their addresses) form
//! one [`Unit`]. So do the addresses of a node, and external addresses in the same blocks. Subjects with equal rules
//! share a [`Row`], which has the traffic with each class of peers; it only stores classes that its rules refer to. The
//! traffic from one unit to another is the intersection of two rows' entries. These intersections recur, so each is
//! computed once.

mod find;
mod forwarding;
mod others;
mod rows;
mod scan;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use palisade_policy::{
    Cluster, Direction, EffectiveRules, Family, IpRange, Name, ObjectKey, Pod, Traffic, Workload,
};

pub(crate) use rows::{RowId, Subjects};
pub(crate) use scan::Scan;

use crate::{
    classes::{AddressOwner, ClassId, Classes, IdentityId},
    controller::{ControllerRoutes, ForwardingTargets, UnitForwarding},
    families::index,
    places::PlaceId,
    traffics::{Cell, TrafficId, Traffics},
};
use others::{external_units, node_units};
use rows::{Row, Rows};
use scan::ByClass;

/// Identifies a [`Unit`].
pub(crate) type UnitId = u32;

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
    External {
        family: Family,
        /// Without the addresses of pods and nodes. There is at least one.
        ranges: Vec<IpRange>,
        /// With them.
        spanned: Vec<IpRange>,
        filter_ranges: Vec<usize>,
    },
}

/// Ends of connections that no policy distinguishes.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    pub(crate) members: Members,
    /// The class of its address in each family; `None` if it has none.
    pub(crate) classes: [Option<ClassId>; 2],
    /// The rows for what it may send and receive; `None` if it is not isolated and no other policy applies.
    pub(crate) egress: Option<RowId>,
    pub(crate) ingress: Option<RowId>,
    /// The number of the traffic that is forwarded to each of its pods.
    pub(crate) target: u32,
    /// What the controller may forward.
    pub(crate) forwarding: UnitForwarding,
}

/// The rows of all subjects.
#[derive(Debug)]
struct RowTable {
    rows: Vec<Row>,
    by_class: ByClass,
}

impl RowTable {
    fn new(rows: Vec<Row>, classes: usize) -> Self {
        Self { by_class: ByClass::new(&rows, classes), rows }
    }

    fn scan(&self) -> Scan<'_> {
        Scan::new(&self.rows, &self.by_class)
    }

    fn at(&self, row: Option<RowId>, class: ClassId) -> TrafficId {
        row.map_or(Traffics::ALL, |row| self.rows[row as usize].at(class))
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
    /// What is allowed wherever unknown addresses lie.
    certain: RowTable,
    /// What is allowed for some possible values of unknown addresses; `None` if every address is known.
    possible: Option<RowTable>,
    /// The classes of unknown addresses with their places, sorted.
    unknown_places: Vec<(ClassId, PlaceId)>,
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
        let (pods, mut units, identities) = pod_units(cluster, &owners, &mut classes, &targets);
        let pod_units = units.len();
        units.extend(node_units(cluster, &owners, &mut classes));
        units.extend(external_units(cluster, &owners, &mut classes, filter_ranges.len()));
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
        let Rows { classes, rows, possible, traffics, .. } = rows;
        let unknown_places = classes.unknown_places();
        let classes = classes.len();
        let possible = (!unknown_places.is_empty()).then(|| RowTable::new(possible, classes));
        let certain = RowTable::new(rows, classes);
        let mut reach =
            Self { pods, units, pod_units, classes, certain, possible, unknown_places, traffics, targets };
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
        for table in [Some(&self.certain), self.possible.as_ref()].into_iter().flatten() {
            let mut scan = table.scan();
            for source in &sources {
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
        }
        // Numbers of traffic follow this order, so it has to be the same in every run.
        let mut needed: Vec<_> = needed.into_iter().collect();
        needed.sort_unstable();
        for (sent, received) in needed {
            self.traffics.intersect(sent, received);
        }
    }

    /// Returns the traffic from one unit to another that is allowed wherever unknown addresses lie. Within a unit, it is
    /// the traffic between two of its pods. For a node and its own pods, use [`Self::cell_from_own_node`].
    pub(crate) fn cell(&self, from: &Unit, to: &Unit) -> Cell {
        self.cell_of(from, to, |family| self.sides(from, to, family))
    }

    /// Returns the same for traffic that is allowed for some possible values of unknown addresses.
    pub(crate) fn possible_cell(&self, from: &Unit, to: &Unit) -> Cell {
        self.cell_of(from, to, |family| self.possible_sides(from, to, family))
    }

    fn cell_of(
        &self,
        from: &Unit,
        to: &Unit,
        sides: impl Fn(usize) -> Option<(TrafficId, TrafficId)>,
    ) -> Cell {
        let family = |family: usize| {
            let (sent, received) = sides(family)?;
            self.traffics.intersection_of(sent, received)
        };
        let first = family(0);
        if from.classes[0] == from.classes[1] && to.classes[0] == to.classes[1] {
            return [first, first];
        }
        [first, family(1)]
    }

    /// Returns what the rules of the source allow it to send, and what those of the destination allow it to receive,
    /// wherever unknown addresses lie; `None` if they don't share the family.
    pub(crate) fn sides(&self, from: &Unit, to: &Unit, family: usize) -> Option<(TrafficId, TrafficId)> {
        let (source, target) = (from.classes[family]?, to.classes[family]?);
        Some((self.certain.at(from.egress, target), self.certain.at(to.ingress, source)))
    }

    /// Returns the same for some possible values of unknown addresses.
    pub(crate) fn possible_sides(
        &self,
        from: &Unit,
        to: &Unit,
        family: usize,
    ) -> Option<(TrafficId, TrafficId)> {
        let table = self.possible.as_ref().unwrap_or(&self.certain);
        let (source, target) = (from.classes[family]?, to.classes[family]?);
        Some((table.at(from.egress, target), table.at(to.ingress, source)))
    }

    /// Returns whether some address is unknown, so that [`Self::possible_cell`] may differ from [`Self::cell`].
    pub(crate) fn has_unknown_places(&self) -> bool {
        self.possible.is_some()
    }

    /// Returns the place of a class; `None` if its address is known.
    pub(crate) fn unknown_place(&self, class: ClassId) -> Option<PlaceId> {
        let found = self.unknown_places.binary_search_by_key(&class, |(c, _)| *c).ok()?;
        Some(self.unknown_places[found].1)
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
        row.map(|row| &self.certain.rows[row as usize])
            .is_none_or(|row| row.rest == Traffics::ALL && row.special.is_empty())
    }

    /// Returns the rows in use in a family.
    pub(crate) fn rows_in_use(&self, family: Family) -> HashSet<RowId> {
        let used = self.units[..self.pod_units].iter().filter(|u| u.classes[index(family)].is_some());
        used.flat_map(|u| [u.egress, u.ingress]).flatten().collect()
    }

    /// Returns those of some rows that have an entry for a class, sorted; then, if an address is unknown, the same for what
    /// is possible. Classes of a family with equal entries in the
    /// rows in use are equivalent for every pod of that family.
    pub(crate) fn special_traffic(&self, class: ClassId, rows: &HashSet<RowId>) -> SpecialTraffic {
        let possible_rows = self.certain.rows.len() as RowId;
        let of = |table: &RowTable, first: RowId| -> SpecialTraffic {
            let entries = table.by_class.entries(class).iter().filter(|(row, _)| rows.contains(row));
            entries.map(|(row, id)| (first + row, *id)).collect()
        };
        let mut found = of(&self.certain, 0);
        found.extend(self.possible.iter().flat_map(|table| of(table, possible_rows)));
        found
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
            let same = |cell: fn(&Self, &Unit, &Unit) -> Cell| {
                cell(self, a, other) == cell(self, b, other) && cell(self, other, a) == cell(self, other, b)
            };
            same(Self::cell) && (!self.has_unknown_places() || same(Self::possible_cell))
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
    cluster: &Cluster,
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
            let class = classes.class_at(AddressOwner::Pod(identity), &cluster.addressing, *address);
            held[index(Family::of(*address))] = Some(class);
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

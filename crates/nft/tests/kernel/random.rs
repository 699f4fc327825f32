//! Random plans with overlapping peers, from a seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::{
    AuditPlan, Direction, Family, IpRange, NodePlan, PeerSet, PeerSetId, PolicyTable, PolicyTableId, PortSet, Protocol,
    Traffic,
    address::{from_number, max_number, to_number},
};

/// A xorshift generator. The same seed gives the same numbers on every platform.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// The content of a table, before peer sets have ids.
#[derive(Clone)]
struct Spec {
    direction: Direction,
    classes: BTreeMap<usize, Traffic>,
    ranges: Vec<(Vec<IpRange>, Traffic)>,
    rest: Traffic,
}

/// A plan that changes step by step and is valid after each step.
#[derive(Clone)]
pub(crate) struct World {
    pods: Vec<IpAddr>,
    classes: usize,
    class_of: BTreeMap<IpAddr, usize>,
    tables: BTreeMap<usize, Spec>,
    dispatch: BTreeMap<(Direction, IpAddr), usize>,
    hairpin: BTreeMap<IpAddr, Traffic>,
    /// The same for what policies in audit mode would decide.
    audit: BTreeMap<(Direction, IpAddr), usize>,
    audit_hairpin: BTreeMap<IpAddr, Traffic>,
}

impl World {
    /// `classes` limits the number of peer sets of a table.
    pub(crate) fn new(random: &mut Random, classes: usize) -> Self {
        let mut pods: Vec<IpAddr> = (1..=24u8).map(|n| IpAddr::from([10, 244, 0, n])).collect();
        pods.extend((1..=12u16).map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n])));
        let mut world = Self {
            pods,
            classes,
            class_of: BTreeMap::new(),
            tables: BTreeMap::new(),
            dispatch: BTreeMap::new(),
            hairpin: BTreeMap::new(),
            audit: BTreeMap::new(),
            audit_hairpin: BTreeMap::new(),
        };
        for _ in 0..12 {
            world.step(random);
        }
        while world.plan().peer_sets.is_empty() {
            world.step(random);
        }
        world
    }

    /// Makes several changes at once.
    pub(crate) fn step(&mut self, random: &mut Random) {
        for _ in 0..1 + random.below(4) {
            match random.below(11) {
                0..=2 => {
                    for _ in 0..1 + random.below(6) {
                        let pod = *random.pick(&self.pods);
                        let class = random.below(self.classes);
                        if random.chance(25) {
                            self.class_of.remove(&pod);
                        } else {
                            self.class_of.insert(pod, class);
                        }
                    }
                }
                3 => {
                    let id = random.below(5);
                    let spec = self.spec(random, direction_of(id));
                    self.tables.insert(id, spec);
                }
                4 => {
                    if let Some(spec) = self.tables.values_mut().nth(random.below(5)) {
                        spec.rest = traffic(random);
                        spec.classes.insert(random.below(self.classes), traffic(random));
                    }
                }
                5 => self.change_hairpins(random),
                kind => {
                    let pod = *random.pick(&self.pods);
                    let direction = *random.pick(&Direction::BOTH);
                    let ids: Vec<usize> = self
                        .tables
                        .iter()
                        .filter(|(_, s)| s.direction == direction)
                        .map(|(id, _)| *id)
                        .collect();
                    let dispatch = if kind > 8 { &mut self.audit } else { &mut self.dispatch };
                    if ids.is_empty() || random.chance(25) {
                        dispatch.remove(&(direction, pod));
                    } else {
                        dispatch.insert((direction, pod), *random.pick(&ids));
                    }
                }
            }
        }
    }

    /// Moves pods between peer sets, without other changes.
    pub(crate) fn move_members(&mut self, random: &mut Random) {
        for _ in 0..60 {
            let pod = *random.pick(&self.pods);
            let class = random.below(self.classes);
            if random.chance(20) {
                self.class_of.remove(&pod);
            } else {
                self.class_of.insert(pod, class);
            }
        }
    }

    /// Changes what some pods, isolated or not, may use of themselves. Rows that allow everything are valid too.
    pub(crate) fn change_hairpins(&mut self, random: &mut Random) {
        for _ in 0..1 + random.below(6) {
            let pod = *random.pick(&self.pods);
            let hairpin = if random.chance(30) { &mut self.audit_hairpin } else { &mut self.hairpin };
            if random.chance(30) {
                hairpin.remove(&pod);
            } else {
                hairpin.insert(pod, traffic(random));
            }
        }
    }

    /// Changes tables and the pods that use them, without moving pods between peer sets.
    pub(crate) fn change_tables(&mut self, random: &mut Random) {
        for id in 0..5 {
            let spec = self.spec(random, direction_of(id));
            self.tables.insert(id, spec);
        }
        for pod in self.pods.clone() {
            let id = random.below(5);
            self.dispatch.insert((self.tables[&id].direction, pod), id);
        }
    }

    fn spec(&self, random: &mut Random, direction: Direction) -> Spec {
        let share = *random.pick(&[20, 60, 100]);
        let mut classes = BTreeMap::new();
        for class in 0..self.classes {
            if random.chance(share) {
                classes.insert(class, traffic(random));
            }
        }
        Spec { direction, classes, ranges: ranges(random), rest: traffic(random) }
    }

    /// Returns the current plan.
    pub(crate) fn plan(&self) -> NodePlan {
        let mut plan = NodePlan { hairpin: self.hairpin.clone(), ..NodePlan::default() };
        plan.local = self.dispatch.keys().map(|(_, pod)| *pod).collect();
        // Every second one, from the first or the second.
        plan.refusing = plan.local.iter().skip(self.tables.len() % 2).step_by(2).copied().collect();
        plan.nodes = self.class_of.iter().filter(|(_, class)| **class == 1).map(|(a, _)| *a).collect();
        for ((direction, pod), id) in &self.dispatch {
            let Some(table) = self.add_table(*direction, *id, &mut plan) else { continue };
            let dispatch =
                if *direction == Direction::Ingress { &mut plan.ingress } else { &mut plan.egress };
            dispatch.insert(*pod, table);
        }
        for ((direction, pod), id) in &self.audit {
            let Some(table) = self.add_table(*direction, *id, &mut plan) else { continue };
            let AuditPlan { ingress, egress, .. } = &mut plan.audit;
            let dispatch = if *direction == Direction::Ingress { ingress } else { egress };
            dispatch.insert(*pod, table);
        }
        let hairpins = self.audit_hairpin.iter().filter(|(pod, _)| plan.audit.has(**pod));
        plan.audit.hairpin = hairpins.map(|(pod, traffic)| (*pod, traffic.clone())).collect();
        plan
    }

    /// Adds a table and its peer sets, if it decides this direction.
    fn add_table(&self, direction: Direction, id: usize, plan: &mut NodePlan) -> Option<PolicyTableId> {
        let spec = self.tables.get(&id).filter(|spec| spec.direction == direction)?;
        let table_id = PolicyTableId([id as u8; 16]);
        let mut table =
            PolicyTable { direction, exact: BTreeMap::new(), ranges: BTreeMap::new(), rest: spec.rest.clone() };
        for (class, row) in &spec.classes {
            let id = PeerSetId([*class as u8, 0xc1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            let members = self.class_of.iter().filter(|(_, c)| *c == class).map(|(a, _)| *a).collect();
            plan.peer_sets.insert(id, PeerSet::Addresses(members));
            table.exact.insert(id, row.clone());
        }
        for (ranges, row) in &spec.ranges {
            let id = name_of(ranges);
            plan.peer_sets.insert(id, PeerSet::Ranges(ranges.clone()));
            table.ranges.insert(id, row.clone());
        }
        plan.tables.insert(table_id, table);
        Some(table_id)
    }

    /// Returns all pods, isolated or not.
    pub(crate) fn pods(&self) -> &[IpAddr] {
        &self.pods
    }

    /// Returns addresses whose verdicts may differ: pods, unknown addresses, the edges of all ranges.
    pub(crate) fn interesting(&self) -> Vec<IpAddr> {
        let mut out: BTreeSet<IpAddr> = self.pods.iter().copied().collect();
        for text in [
            "0.0.0.0",
            "255.255.255.255",
            "192.0.2.1",
            "::",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:db8::1",
        ] {
            out.insert(text.parse().unwrap());
        }
        for range in self.tables.values().flat_map(|s| &s.ranges).flat_map(|(r, _)| r) {
            let family = Family::of(range.first);
            let (first, last) = (to_number(range.first), to_number(range.last));
            out.extend([range.first, range.last]);
            out.extend(first.checked_sub(1).map(|n| from_number(family, n)));
            out.extend((last < max_number(family)).then(|| from_number(family, last + 1)));
        }
        out.into_iter().collect()
    }
}

/// What the table with this number decides.
fn direction_of(table: usize) -> Direction {
    if table.is_multiple_of(2) { Direction::Ingress } else { Direction::Egress }
}

/// Returns the id of a range set. Its ranges never change, so they determine the id.
fn name_of(ranges: &[IpRange]) -> PeerSetId {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in format!("{ranges:?}").bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let mut id = [0xaa; 16];
    id[..8].copy_from_slice(&hash.to_be_bytes());
    PeerSetId(id)
}

/// Returns disjoint range sets: the address space is split at random, also at its ends, and the parts are distributed.
fn ranges(random: &mut Random) -> Vec<(Vec<IpRange>, Traffic)> {
    let count = *random.pick(&[0, 1, 2, 20]);
    let mut groups = vec![Vec::new(); count];
    for family in Family::BOTH {
        let base = to_number(if family == Family::V4 {
            IpAddr::from([10, 244, 0, 0])
        } else {
            IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 0])
        });
        let mut cuts: BTreeSet<u128> =
            (0..random.below(6 + 2 * count)).map(|_| base + random.below(30) as u128).collect();
        cuts.insert(0);
        if random.chance(50) {
            cuts.insert(1);
        }
        if random.chance(50) {
            cuts.insert(max_number(family));
        }
        let cuts: Vec<u128> = cuts.into_iter().collect();
        for (i, first) in cuts.iter().enumerate() {
            let last = cuts.get(i + 1).map_or(max_number(family), |next| next - 1);
            if let Some(group) = groups.get_mut(random.below(count + 2)) {
                group.push(IpRange { first: from_number(family, *first), last: from_number(family, last) });
            }
        }
    }
    let mut out: Vec<(Vec<IpRange>, Traffic)> = Vec::new();
    for mut group in groups {
        group.sort_unstable();
        if !out.iter().any(|(other, _)| *other == group) {
            out.push((group, traffic(random)));
        }
    }
    out
}

/// The edges of port ranges in random rows.
pub(crate) const PORTS: [u16; 12] = [0, 1, 53, 79, 80, 81, 443, 1000, 2000, 30_000, 65_534, 65_535];

fn ports(random: &mut Random) -> PortSet {
    match random.below(6) {
        0 => PortSet::none(),
        1 => PortSet::all(),
        2 => (0..5 + random.below(30)).fold(PortSet::none(), |acc, _| {
            let first = (random.below(3000) * 7) as u16;
            acc.union(&PortSet::range(first, first + random.below(9) as u16))
        }),
        _ => (0..1 + random.below(3)).fold(PortSet::none(), |acc, _| {
            let (a, b) = (*random.pick(&PORTS), *random.pick(&PORTS));
            let b = if random.chance(50) { a } else { b };
            acc.union(&PortSet::range(a.min(b), a.max(b)))
        }),
    }
}

fn traffic(random: &mut Random) -> Traffic {
    match random.below(6) {
        0 => Traffic::all(),
        1 => Traffic::none(),
        _ => {
            let mut out = if random.chance(20) {
                Traffic::of(Protocol::Other(1), PortSet::all())
            } else {
                Traffic::none()
            };
            for protocol in Protocol::WITH_PORTS {
                if random.chance(60) {
                    out = out.union(&Traffic::of(protocol, ports(random)));
                }
            }
            out
        }
    }
}

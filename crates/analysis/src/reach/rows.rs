//! Rows: what the rules of a subject allow for each class of peers, computed once for subjects with equal rules.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    rc::Rc,
};

use palisade_policy::{
    Cluster, Deciding, Direction, EffectiveRules, Labels, Name, NamespaceMatch, Peer, Pod, Policy, Protocol,
};

use crate::{
    classes::{ClassId, Classes, IdentityId},
    places::PlaceId,
    space::BlockSet,
    traffics::{Bounds, TrafficId, Traffics},
};

/// Identifies a [`Row`].
pub(crate) type RowId = u32;

/// The traffic of a subject with each class of peers in one direction.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) rest: TrafficId,
    /// Classes whose traffic differs from `rest`, sorted.
    pub(super) special: Vec<(ClassId, TrafficId)>,
}

impl Row {
    pub(super) fn at(&self, class: ClassId) -> TrafficId {
        match self.special.binary_search_by_key(&class, |(c, _)| *c) {
            Ok(found) => self.special[found].1,
            Err(_) => self.rest,
        }
    }
}

/// Policies by the namespaces of their subjects.
pub(crate) struct Subjects<'c> {
    by_namespace: HashMap<&'c Name, Vec<&'c Policy>>,
    cluster_wide: Vec<&'c Policy>,
}

impl<'c> Subjects<'c> {
    pub(crate) fn new(cluster: &'c Cluster) -> Self {
        let mut out = Self { by_namespace: HashMap::new(), cluster_wide: Vec::new() };
        for policy in cluster.deciding(Deciding::Enforced) {
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
pub(super) struct Rows<'c> {
    cluster: &'c Cluster,
    pub(super) classes: Classes,
    held_by: HashMap<Peer, Rc<[ClassId]>>,
    known: HashMap<EffectiveRules, RowId>,
    of_identity: HashMap<IdentityId, [Option<RowId>; 2]>,
    /// What is allowed wherever unknown addresses lie.
    pub(super) rows: Vec<Row>,
    /// The same rows with what is allowed for some possible values of unknown addresses; none if there are no such
    /// addresses.
    pub(super) possible: Vec<Row>,
    /// The classes of unknown addresses.
    unknown: Vec<(ClassId, PlaceId)>,
    pub(super) traffics: Traffics,
}

/// The indexes of rules, sorted.
type RuleIndexes = Vec<usize>;
/// Named ports of a peer.
type NamedPorts = [(Name, Protocol, u16)];

impl<'c> Rows<'c> {
    /// `classes` are those of all addresses.
    pub(super) fn new(cluster: &'c Cluster, classes: Classes) -> Self {
        Self {
            cluster,
            unknown: classes.unknown_places(),
            classes,
            held_by: HashMap::new(),
            known: HashMap::new(),
            of_identity: HashMap::new(),
            rows: Vec::new(),
            possible: Vec::new(),
            traffics: Traffics::new(),
        }
    }

    /// Returns the rows for egress and ingress of pods that policies see like `subject`.
    pub(super) fn of_subject(
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

    pub(super) fn row(&mut self, effective: EffectiveRules) -> RowId {
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
        let patterns = self.block_patterns(&effective);
        // The classes of unknown addresses that no other peer matches.
        let unknown =
            self.unknown.iter().filter(|_| patterns.iter().any(|p| p.len() > 1 || !p[0].is_empty()));
        let unknown: Vec<(ClassId, usize)> = unknown.map(|(class, _)| (*class, usize::MAX)).collect();
        named.extend(unknown);
        named.sort_unstable();
        named.dedup();
        let mut special: Vec<(ClassId, Bounds)> = Vec::new();
        let mut known: HashMap<(RuleIndexes, &NamedPorts, Option<PlaceId>), Bounds> = HashMap::new();
        for of_class in named.chunk_by(|a, b| a.0 == b.0) {
            let class = of_class[0].0;
            let rules: RuleIndexes =
                of_class.iter().map(|(_, rule)| *rule).filter(|r| *r != usize::MAX).collect();
            let ports = if names.is_empty() { &[] } else { self.classes.ports(class) };
            let place =
                self.unknown.binary_search_by_key(&class, |(c, _)| *c).ok().map(|i| self.unknown[i].1);
            let key = (rules, ports, place);
            let bounds = match known.get(&key) {
                Some(bounds) => *bounds,
                None => {
                    let patterns = place.map_or(&[][..], |place| &patterns[place as usize][..]);
                    let bounds = self.traffics.bounds(&effective, &key.0, ports, patterns);
                    known.insert(key, bounds);
                    bounds
                }
            };
            special.push((class, bounds));
        }
        let row = |of: fn(&Bounds) -> TrafficId| {
            let special = special.iter().map(|(class, bounds)| (*class, of(bounds)));
            Row { rest, special: special.filter(|(_, id)| *id != rest).collect() }
        };
        let id = self.rows.len() as RowId;
        if !self.unknown.is_empty() {
            self.possible.push(row(|bounds| bounds.possible));
        }
        self.rows.push(row(|bounds| bounds.certain));
        self.known.insert(effective, id);
        id
    }

    /// Returns, for each place, the rules whose blocks may contain an address there: one entry for each set of rules that
    /// some possible address is in. `O(blocks of the rules + what they distinguish)` for each place.
    fn block_patterns(&self, effective: &EffectiveRules) -> Vec<Vec<RuleIndexes>> {
        let places = self.classes.places.len() as PlaceId;
        if places == 0 {
            return Vec::new();
        }
        let mut rules_of: HashMap<BlockSet, BTreeSet<usize>> = HashMap::new();
        for (rule, peer) in effective.peers() {
            for set in self.classes.sets_with(peer) {
                rules_of.entry(*set).or_default().insert(rule);
            }
        }
        let of_place = |place: PlaceId| {
            let sets = self.classes.places.sets(place);
            let held = rules_of.iter().filter(|(set, _)| sets.binary_search(set).is_ok());
            let (mut inside, mut patterns) = (0, BTreeSet::new());
            for (_, rules) in held {
                inside += 1;
                patterns.insert(rules.iter().copied().collect::<RuleIndexes>());
            }
            if inside < sets.len() {
                patterns.insert(RuleIndexes::new());
            }
            patterns.into_iter().collect()
        };
        (0..places).map(of_place).collect()
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

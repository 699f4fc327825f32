//! What a table says, before anyone knows who the peers are.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use super::{
    budget::{Budget, Limit},
    names::{Attempt, Kind, Namer},
};
use crate::{
    Action, Direction, Name, Peer, PeerSetId, Pod, Policy, PolicyTableId, PortMatch, Protocol, Rule, Tier,
    Traffic, traffic::TrafficSum,
};

/// The rules that decide one direction of a profile, in order, with everything resolved that doesn't depend on the
/// peer. Pods with equal definitions share a table; the order of NetworkPolicies never shows (SEMANTICS A35).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Definition {
    pub(super) direction: Direction,
    /// The cluster-wide tier before NetworkPolicy, first match wins.
    admin: Vec<RuleDefinition>,
    /// The union of all NetworkPolicies; `None`: none isolates.
    developer: Option<Vec<RuleDefinition>>,
    /// The cluster-wide tier after NetworkPolicy.
    baseline: Vec<RuleDefinition>,
    /// The bound that the rules break by their number. There are none of them here then, and nothing is allowed.
    pub(super) excess: Option<Limit>,
    /// Whether some cluster-wide rule is in it, or was left out.
    tiered: bool,
}

/// The ports that a peer gives names to.
pub(super) type NamedPorts = [(Name, Protocol, u16)];

/// One rule of a [`Definition`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RuleDefinition {
    pub(super) action: Action,
    /// `None`: everyone.
    pub(super) peers: Option<BTreeSet<Peer>>,
    pub(super) ports: Ports,
}

/// The ports of a rule: numbers, and names that only the peer can resolve (egress).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Ports {
    pub(super) numbers: Traffic,
    pub(super) names: BTreeSet<(Option<Protocol>, Name)>,
}

impl Definition {
    /// What `policies` (those that select `subject`) say in one direction; `None` if none of them touches it.
    pub(super) fn new(
        direction: Direction,
        subject: &Pod,
        policies: &[&Policy],
        budget: &Budget,
    ) -> Option<Self> {
        if let Some(limit) = budget.broken_by(direction, policies) {
            let rules = |p: &&&Policy| p.rules(direction).is_some_and(|rules| !rules.is_empty());
            return Some(Self {
                direction,
                admin: Vec::new(),
                developer: None,
                baseline: Vec::new(),
                excess: Some(limit),
                tiered: policies.iter().filter(rules).any(|p| p.tier != Tier::Developer),
            });
        }
        let ordered = |tier: Tier| {
            let mut chosen: Vec<_> =
                policies.iter().copied().filter(|p| p.tier == tier && p.rules(direction).is_some()).collect();
            chosen.sort_by(|a, b| Policy::precedence(a, b));
            chosen
        };
        let rules = |chosen: &[&Policy]| -> Vec<RuleDefinition> {
            chosen
                .iter()
                .flat_map(|p| p.rules(direction).unwrap_or_default())
                .map(|rule| RuleDefinition::new(rule, direction, subject))
                .filter(|rule| !rule.is_void())
                .collect()
        };
        let developer = ordered(Tier::Developer);
        let developer = (!developer.is_empty()).then(|| union_by_ports(rules(&developer)));
        let (admin, baseline) = (rules(&ordered(Tier::Admin)), rules(&ordered(Tier::Baseline)));
        let tiered = !admin.is_empty() || !baseline.is_empty();
        (developer.is_some() || tiered).then_some(Self {
            direction,
            admin,
            developer,
            baseline,
            excess: None,
            tiered,
        })
    }

    /// All rules; their position here is the index that the other functions mean.
    pub(super) fn rules(&self) -> impl Iterator<Item = &RuleDefinition> {
        self.admin.iter().chain(self.developer.iter().flatten()).chain(&self.baseline)
    }

    /// The name of the table that says this, unless another table has it ([`super::definitions`]).
    pub(super) fn id(&self, namer: Namer, attempt: Attempt) -> PolicyTableId {
        PolicyTableId(namer.name(Kind::Table, attempt, self))
    }

    /// The rules of the cluster-wide tiers and of NetworkPolicies: where in [`Definition::rules`] the latter are. Those
    /// only add up.
    pub(super) fn additive(&self) -> Range<usize> {
        let begin = self.admin.len();
        begin..begin + self.developer.as_ref().map_or(0, Vec::len)
    }

    /// Flattens the tiers: what is allowed for a peer that the rules with the indexes `named_by` name (sorted), whose
    /// named ports are `ports` (SEMANTICS D). Rules without peers hold everyone.
    /// `O(n log n)` in the ports of these rules, and `O(cluster-wide rules × ports)`.
    pub(super) fn flatten(&self, named_by: &[usize], ports: &NamedPorts) -> Traffic {
        self.flatten_tiers(named_by, ports, || self.union(named_by, ports))
    }

    /// The same for a pod that reaches itself through a service: NetworkPolicies don't hold there (G-6).
    pub(super) fn flatten_hairpin(&self, named_by: &[usize], ports: &NamedPorts) -> Traffic {
        self.flatten_tiers(named_by, ports, Traffic::all)
    }

    /// The same with the union of the NetworkPolicies' rules that match given; asked for if there are any.
    pub(super) fn flatten_tiers(
        &self,
        named_by: &[usize],
        ports: &NamedPorts,
        developer: impl FnOnce() -> Traffic,
    ) -> Traffic {
        if self.excess.is_some() {
            return Traffic::none();
        }
        let (mut allowed, mut open) = (Traffic::none(), Traffic::all());
        self.tier(&self.admin, 0, named_by, ports, (&mut open, &mut allowed));
        if self.developer.is_some() {
            if self.admin.is_empty() {
                return developer();
            }
            return allowed.union(&open.intersection(&developer()));
        }
        self.tier(&self.baseline, self.additive().end, named_by, ports, (&mut open, &mut allowed));
        allowed.union(&open)
    }

    /// One ordered tier, whose first rule has the index `first`. Rules of one action in a row only add up.
    fn tier(
        &self,
        rules: &[RuleDefinition],
        first: usize,
        named_by: &[usize],
        ports: &NamedPorts,
        (open, allowed): (&mut Traffic, &mut Traffic),
    ) {
        let mut index = first;
        let mut passed = Traffic::none();
        for run in rules.chunk_by(|a, b| a.action == b.action) {
            let mut sum = TrafficSum::default();
            for rule in run {
                if rule.peers.is_none() || named_by.binary_search(&index).is_ok() {
                    rule.add_to(&mut sum, ports);
                }
                index += 1;
            }
            let hit = sum.finish().intersection(open);
            *open = open.difference(&hit);
            match run[0].action {
                Action::Accept => *allowed = allowed.union(&hit),
                Action::Deny => {}
                Action::Pass => passed = passed.union(&hit),
            }
        }
        *open = open.union(&passed);
    }

    /// What the NetworkPolicies allow such a peer.
    fn union(&self, named_by: &[usize], ports: &NamedPorts) -> Traffic {
        let mut sum = TrafficSum::default();
        let rules = self.developer.as_deref().unwrap_or_default();
        // One rule at most holds everyone, and it is the first.
        if let Some(rule) = rules.first().filter(|rule| rule.peers.is_none()) {
            rule.add_to(&mut sum, ports);
        }
        let additive = self.additive();
        let from = named_by.partition_point(|index| *index < additive.start);
        for index in named_by[from..].iter().take_while(|index| **index < additive.end) {
            rules[index - additive.start].add_to(&mut sum, ports);
        }
        sum.finish()
    }

    /// Whether some cluster-wide rule is in it.
    pub(super) fn has_cluster_wide_rules(&self) -> bool {
        self.tiered
    }

    /// The peers of the one rule that tells peers apart, if there is one.
    fn sole_peers(&self) -> Option<&BTreeSet<Peer>> {
        let mut with_peers = self.rules().filter(|rule| rule.peers.is_some() || !rule.ports.names.is_empty());
        match (with_peers.next(), with_peers.next()) {
            (Some(rule), None) if rule.ports.names.is_empty() => rule.peers.as_ref(),
            _ => None,
        }
    }

    /// The blocks among them.
    fn sole_blocks(&self) -> Vec<&Peer> {
        self.sole_peers().into_iter().flatten().filter(|peer| matches!(peer, Peer::Block(_))).collect()
    }
}

/// What decides who is in a group, so what its name stands for. Where one rule alone tells peers apart, that is the
/// rule's peers, so that every table that asks for the same peers shares the group; else table and row.
#[derive(Clone, Debug)]
pub(super) enum Meaning {
    /// Live pods among the sole peers of this definition.
    Pods(Arc<Definition>),
    /// Other addresses among them.
    Ranges(Arc<Definition>),
    /// Live pods that get this row of this table.
    PodsOfRow(PolicyTableId, Traffic),
    /// Other addresses that get it.
    RangesOfRow(PolicyTableId, Traffic),
}

impl Meaning {
    /// Of the live pods that get `row` in the table that is named `id` and says `definition`.
    pub(super) fn of_pods(id: PolicyTableId, definition: &Arc<Definition>, row: &Traffic) -> Self {
        match definition.sole_peers() {
            Some(_) => Self::Pods(Arc::clone(definition)),
            None => Self::PodsOfRow(id, row.clone()),
        }
    }

    /// Of the other addresses that get it.
    pub(super) fn of_ranges(id: PolicyTableId, definition: &Arc<Definition>, row: &Traffic) -> Self {
        match definition.sole_peers() {
            Some(_) => Self::Ranges(Arc::clone(definition)),
            None => Self::RangesOfRow(id, row.clone()),
        }
    }

    /// A name for it.
    pub(super) fn id(&self, namer: Namer, attempt: Attempt) -> PeerSetId {
        PeerSetId(match self {
            Self::Pods(of) => namer.name(Kind::PodsOfPeers, attempt, &of.sole_peers()),
            Self::Ranges(of) => namer.name(Kind::RangesOfPeers, attempt, &of.sole_blocks()),
            Self::PodsOfRow(table, row) => namer.name(Kind::PodsOfRow, attempt, &(table, row)),
            Self::RangesOfRow(table, row) => namer.name(Kind::RangesOfRow, attempt, &(table, row)),
        })
    }
}

impl PartialEq for Meaning {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pods(a), Self::Pods(b)) => Arc::ptr_eq(a, b) || a.sole_peers() == b.sole_peers(),
            (Self::Ranges(a), Self::Ranges(b)) => Arc::ptr_eq(a, b) || a.sole_blocks() == b.sole_blocks(),
            (Self::PodsOfRow(a, row), Self::PodsOfRow(b, other))
            | (Self::RangesOfRow(a, row), Self::RangesOfRow(b, other)) => a == b && row == other,
            _ => false,
        }
    }
}

impl RuleDefinition {
    fn new(rule: &Rule, direction: Direction, subject: &Pod) -> Self {
        let ports = match &rule.ports {
            None => Ports { numbers: Traffic::all(), names: BTreeSet::new() },
            Some(entries) => Ports::new(entries.iter().map(|e| &e.port), direction, subject),
        };
        let peers = rule.peers.as_ref().map(|entries| entries.iter().map(|e| e.peer.clone()).collect());
        Self { action: rule.action, peers, ports }
    }

    /// Matches nothing, whoever the peer is.
    fn is_void(&self) -> bool {
        self.ports == Ports::default() || self.peers.as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// Adds the ports that the rule means for a peer with these named ports.
    fn add_to(&self, sum: &mut TrafficSum, peer_ports: &NamedPorts) {
        sum.add_all(&self.ports.numbers);
        if self.ports.names.is_empty() {
            return;
        }
        for (name, protocol, port) in peer_ports {
            let is_meant = |protocol| self.ports.names.contains(&(protocol, name.clone()));
            if is_meant(None) || is_meant(Some(*protocol)) {
                sum.add(*protocol, *port, *port);
            }
        }
    }
}

impl Ports {
    fn new<'a>(entries: impl Iterator<Item = &'a PortMatch>, direction: Direction, subject: &Pod) -> Self {
        let (mut numbers, mut names) = (TrafficSum::default(), BTreeSet::new());
        for entry in entries {
            match entry {
                PortMatch::Numbers { protocol, first, last } => numbers.add(*protocol, *first, *last),
                // The destination resolves a name: for ingress that is the subject, for egress the peer (A27).
                PortMatch::Named { protocol, name } if direction == Direction::Ingress => {
                    for (protocol, port) in subject.named_ports(name, *protocol) {
                        numbers.add(protocol, port, port);
                    }
                }
                PortMatch::Named { protocol, name } => drop(names.insert((*protocol, name.clone()))),
            }
        }
        Self { numbers: numbers.finish(), names }
    }
}

/// Rules that only add up: those with the same ports become one with all their peers, sorted; those that hold everyone
/// become one, which is the first.
fn union_by_ports(rules: Vec<RuleDefinition>) -> Vec<RuleDefinition> {
    let mut everyone = (TrafficSum::default(), BTreeSet::new());
    let mut by_ports: BTreeMap<Ports, BTreeSet<Peer>> = BTreeMap::new();
    for rule in rules {
        match rule.peers {
            None => {
                everyone.0.add_all(&rule.ports.numbers);
                everyone.1.extend(rule.ports.names);
            }
            Some(peers) => by_ports.entry(rule.ports).or_default().extend(peers),
        }
    }
    let everyone = Ports { numbers: everyone.0.finish(), names: everyone.1 };
    // What everyone may, nobody needs to be named for.
    by_ports.remove(&everyone);
    let first = (everyone != Ports::default()).then_some((everyone, None));
    let others = by_ports.into_iter().map(|(ports, peers)| (ports, Some(peers)));
    let all = first.into_iter().chain(others);
    all.map(|(ports, peers)| RuleDefinition { action: Action::Accept, peers, ports }).collect()
}

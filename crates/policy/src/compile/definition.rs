//! The definition of a policy table, independent of the peers.

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
    Action, Direction, Mode, Name, Peer, PeerSetId, Pod, Policy, PolicyTableId, PortMatch, Protocol, Rule,
    Tier, Traffic, Verdict,
    tiers::{self, Carrier},
    traffic::TrafficSum,
};

/// The rules that decide one direction of a profile, in order, with everything resolved that doesn't depend on the
/// peer. Pods with equal definitions share a table. The order of NetworkPolicies has no effect (SEMANTICS A35).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Definition {
    pub(super) direction: Direction,
    /// Whether it decides, or is what policies in audit mode would decide. The two never share a table, so that one
    /// over its budget has no effect on the other.
    pub(super) mode: Mode,
    /// The Admin tier: the first match decides.
    admin: Vec<RuleDefinition>,
    /// The union of all NetworkPolicies; `None` if none isolates.
    developer: Option<Vec<RuleDefinition>>,
    /// The Baseline tier.
    baseline: Vec<RuleDefinition>,
    /// The limit that the number of rules exceeds. The definition then has no rules, and nothing is allowed.
    pub(super) excess: Option<Limit>,
    /// Whether it has cluster-wide rules, or had them before it exceeded a limit.
    tiered: bool,
}

/// The named ports of a peer.
pub(super) type NamedPorts = [(Name, Protocol, u16)];

/// A rule of a [`Definition`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RuleDefinition {
    pub(super) action: Action,
    /// `None`: every peer.
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
    /// Makes the definition for `policies`, which select `subject`, in one direction; `None` if none of them applies to
    /// it.
    pub(super) fn new(
        mode: Mode,
        direction: Direction,
        subject: &Pod,
        policies: &[&Policy],
        budget: &Budget,
    ) -> Option<Self> {
        if let Some(limit) = budget.broken_by(direction, policies) {
            let rules = |p: &&&Policy| p.rules(direction).is_some_and(|rules| !rules.is_empty());
            return Some(Self {
                direction,
                mode,
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
            mode,
            admin,
            developer,
            baseline,
            excess: None,
            tiered,
        })
    }

    /// Iterates over all rules. Rule indexes in this module are positions in this sequence.
    pub(super) fn rules(&self) -> impl Iterator<Item = &RuleDefinition> {
        self.admin.iter().chain(self.developer.iter().flatten()).chain(&self.baseline)
    }

    /// Returns the id of the table with this definition, unless another table has taken it ([`super::definitions`]).
    pub(super) fn id(&self, namer: Namer, attempt: Attempt) -> PolicyTableId {
        PolicyTableId(namer.name(Kind::Table, attempt, self))
    }

    /// Returns the indexes of the NetworkPolicies' rules, which only add up.
    pub(super) fn additive(&self) -> Range<usize> {
        let begin = self.admin.len();
        begin..begin + self.developer.as_ref().map_or(0, Vec::len)
    }

    /// Flattens the tiers: returns the traffic that is allowed for a peer that the rules with the indexes `named_by`
    /// (sorted) match and whose named ports are `ports` (SEMANTICS D). Rules without peers match every peer.
    /// `O(n log n)` in the ports of these rules, and `O(cluster-wide rules × ports)`.
    pub(super) fn flatten(&self, named_by: &[usize], ports: &NamedPorts) -> Traffic {
        self.flatten_tiers(named_by, ports, || self.union(named_by, ports))
    }

    /// Flattens the tiers for a pod that reaches itself through a service, where NetworkPolicies don't apply (G-6).
    pub(super) fn flatten_hairpin(&self, named_by: &[usize], ports: &NamedPorts) -> Traffic {
        self.flatten_tiers(named_by, ports, Traffic::all)
    }

    /// Flattens the tiers with the given union of the matching rules of NetworkPolicies. It is only computed if there
    /// are such policies.
    pub(super) fn flatten_tiers(
        &self,
        named_by: &[usize],
        ports: &NamedPorts,
        developer: impl FnOnce() -> Traffic,
    ) -> Traffic {
        if self.excess.is_some() {
            return Traffic::none();
        }
        let mut flattening = Flattening {
            definition: self,
            named_by,
            ports,
            developer: Some(developer),
            open: Traffic::all(),
            passed: Traffic::none(),
            allowed: Traffic::none(),
        };
        tiers::fold(&mut flattening);
        flattening.allowed
    }

    /// Returns the union of the NetworkPolicies' rules that match such a peer.
    fn union(&self, named_by: &[usize], ports: &NamedPorts) -> Traffic {
        let mut sum = TrafficSum::default();
        let rules = self.developer.as_deref().unwrap_or_default();
        // At most one rule matches every peer, and it is the first.
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

    /// Returns whether it has cluster-wide rules.
    pub(super) fn has_cluster_wide_rules(&self) -> bool {
        self.tiered
    }

    /// Returns the peers of the only rule that distinguishes peers, if there is exactly one.
    fn sole_peers(&self) -> Option<&BTreeSet<Peer>> {
        let mut with_peers = self.rules().filter(|rule| rule.peers.is_some() || !rule.ports.names.is_empty());
        match (with_peers.next(), with_peers.next()) {
            (Some(rule), None) if rule.ports.names.is_empty() => rule.peers.as_ref(),
            _ => None,
        }
    }

    /// Returns the blocks among them.
    fn sole_blocks(&self) -> Vec<&Peer> {
        self.sole_peers().into_iter().flatten().filter(|peer| matches!(peer, Peer::Block(_))).collect()
    }
}

/// The traffic of one peer on its way through the tiers of a definition.
struct Flattening<'a, F> {
    definition: &'a Definition,
    named_by: &'a [usize],
    ports: &'a NamedPorts,
    /// The union of the matching rules of NetworkPolicies.
    developer: Option<F>,
    open: Traffic,
    passed: Traffic,
    allowed: Traffic,
}

/// What one step of the fold takes.
enum Taking<'a> {
    /// Consecutive rules with one action, which only add up, with the index of the first.
    Run(usize, &'a [RuleDefinition]),
    /// The union of the NetworkPolicies.
    Developer,
}

impl<'a, F: FnOnce() -> Traffic> Carrier for Flattening<'a, F> {
    type Rule = Taking<'a>;
    type Traffic = Traffic;

    fn ordered_rules(&mut self, tier: Tier) -> Vec<(Action, Taking<'a>)> {
        if self.open.is_none() {
            return Vec::new();
        }
        let definition = self.definition;
        let (mut index, rules) = match tier {
            Tier::Admin => (0, &definition.admin),
            Tier::Developer | Tier::Baseline => (definition.additive().end, &definition.baseline),
        };
        let runs = rules.chunk_by(|a, b| a.action == b.action).map(|run| {
            let first = index;
            index += run.len();
            (run[0].action, Taking::Run(first, run))
        });
        runs.collect()
    }

    fn isolating_rules(&mut self) -> Option<Vec<Taking<'a>>> {
        self.definition.developer.is_some().then(|| vec![Taking::Developer])
    }

    /// The traffic that stays open after the NetworkPolicies isn't computed: they decide all of it.
    fn take(&mut self, taking: &Taking<'a>) -> Traffic {
        match taking {
            Taking::Developer => {
                let union = self.developer.take().map_or_else(Traffic::none, |union| union());
                if self.open.is_all() { union } else { union.intersection(&self.open) }
            }
            Taking::Run(first, run) => {
                let mut sum = TrafficSum::default();
                for (index, rule) in (*first..).zip(*run) {
                    if rule.peers.is_none() || self.named_by.binary_search(&index).is_ok() {
                        rule.add_to(&mut sum, self.ports);
                    }
                }
                let taken = sum.finish().intersection(&self.open);
                self.open = self.open.difference(&taken);
                taken
            }
        }
    }

    fn decide(&mut self, taken: Traffic, verdict: Verdict, _: &Taking<'a>) {
        if verdict.is_allow() {
            self.allowed = if self.allowed.is_none() { taken } else { self.allowed.union(&taken) };
        }
    }

    fn pass(&mut self, taken: Traffic, _: &Taking<'a>) {
        self.passed = self.passed.union(&taken);
    }

    fn end_tier(&mut self) {
        if !self.passed.is_none() {
            self.open = self.open.union(&std::mem::take(&mut self.passed));
        }
    }

    fn decide_isolated(&mut self) {
        self.open = Traffic::none();
    }

    fn decide_rest(&mut self) {
        self.allowed = self.allowed.union(&self.open);
    }
}

/// What determines the members of a peer set, and so its name. If a single rule distinguishes peers, it is the rule's
/// peers, so that all tables with the same peers share the set; else it is table and row.
#[derive(Clone, Debug)]
pub(super) enum Meaning {
    /// Pods among the sole peers of this definition.
    Pods(Arc<Definition>),
    /// Other addresses among them.
    Ranges(Arc<Definition>),
    /// Pods with this row of this table.
    PodsOfRow(PolicyTableId, Traffic),
    /// Other addresses with this row.
    RangesOfRow(PolicyTableId, Traffic),
}

impl Meaning {
    /// Makes the meaning of the set of pods with `row` in the table `id` with this definition.
    pub(super) fn of_pods(id: PolicyTableId, definition: &Arc<Definition>, row: &Traffic) -> Self {
        match definition.sole_peers() {
            Some(_) => Self::Pods(Arc::clone(definition)),
            None => Self::PodsOfRow(id, row.clone()),
        }
    }

    /// Makes the meaning of the set of other addresses with that row.
    pub(super) fn of_ranges(id: PolicyTableId, definition: &Arc<Definition>, row: &Traffic) -> Self {
        match definition.sole_peers() {
            Some(_) => Self::Ranges(Arc::clone(definition)),
            None => Self::RangesOfRow(id, row.clone()),
        }
    }

    /// Returns a name for it.
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

    /// Returns whether the rule matches no peer at all.
    fn is_void(&self) -> bool {
        self.ports == Ports::default() || self.peers.as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// Adds the ports of the rule for a peer with these named ports.
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
                // The destination resolves a name: the subject for ingress, the peer for egress (A27).
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

/// Merges rules that only add up: those with the same ports become one with all their peers, sorted; those that match
/// every peer become one, which comes first.
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
    // A rule with the ports that every peer may use is redundant.
    by_ports.remove(&everyone);
    let first = (everyone != Ports::default()).then_some((everyone, None));
    let others = by_ports.into_iter().map(|(ports, peers)| (ports, Some(peers)));
    let all = first.into_iter().chain(others);
    all.map(|(ports, peers)| RuleDefinition { action: Action::Accept, peers, ports }).collect()
}

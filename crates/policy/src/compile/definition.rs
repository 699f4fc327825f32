//! What a table says, before anyone knows who the peers are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::names::{self, Attempt, Kind};
use crate::{
    Action, Direction, GroupId, Name, Peer, Pod, Policy, PortMatch, PortSet, Protocol, Rule, TableId, Tier,
    Traffic,
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
}

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
    pub(super) fn new(direction: Direction, subject: &Pod, policies: &[&Policy]) -> Option<Self> {
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
        let decides = developer.is_some() || !admin.is_empty() || !baseline.is_empty();
        decides.then_some(Self { direction, admin, developer, baseline })
    }

    /// All rules; their position here is the index that the other functions mean.
    pub(super) fn rules(&self) -> impl Iterator<Item = &RuleDefinition> {
        self.admin.iter().chain(self.developer.iter().flatten()).chain(&self.baseline)
    }

    /// The name of the table that says this, unless another table has it ([`super::definitions`]).
    pub(super) fn id(&self, attempt: Attempt) -> TableId {
        TableId(names::name(Kind::Table, attempt, self))
    }

    /// Flattens the tiers: what is allowed for a peer that `matched` says is in the peers of these rules, on these
    /// ports (SEMANTICS D; `None`: the rule's peers don't hold it).
    pub(super) fn flatten(&self, matched: impl Fn(usize, &RuleDefinition) -> Option<Traffic>) -> Traffic {
        self.flatten_for(false, matched)
    }

    /// The same for a pod that reaches itself through a service: NetworkPolicies don't hold there (G-6).
    pub(super) fn flatten_hairpin(
        &self,
        matched: impl Fn(usize, &RuleDefinition) -> Option<Traffic>,
    ) -> Traffic {
        self.flatten_for(true, matched)
    }

    /// Whether some cluster-wide rule is in it.
    pub(super) fn has_cluster_wide_rules(&self) -> bool {
        !self.admin.is_empty() || !self.baseline.is_empty()
    }

    fn flatten_for(
        &self,
        itself: bool,
        matched: impl Fn(usize, &RuleDefinition) -> Option<Traffic>,
    ) -> Traffic {
        let mut allowed = Traffic::none();
        let mut open = Traffic::all();
        let mut index = 0;
        let mut tier = |rules: &[RuleDefinition], open: &mut Traffic, allowed: &mut Traffic| {
            let mut passed = Traffic::none();
            for rule in rules {
                if let Some(traffic) = matched(index, rule) {
                    let hit = traffic.intersection(open);
                    *open = open.difference(&hit);
                    match rule.action {
                        Action::Accept => *allowed = allowed.union(&hit),
                        Action::Deny => {}
                        Action::Pass => passed = passed.union(&hit),
                    }
                }
                index += 1;
            }
            *open = open.union(&passed);
        };
        tier(&self.admin, &mut open, &mut allowed);
        if let Some(rules) = &self.developer {
            if itself {
                return allowed.union(&open);
            }
            tier(rules, &mut open, &mut allowed);
            return allowed;
        }
        tier(&self.baseline, &mut open, &mut allowed);
        allowed.union(&open)
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
    PodsOfRow(TableId, Traffic),
    /// Other addresses that get it.
    RangesOfRow(TableId, Traffic),
}

impl Meaning {
    /// Of the live pods that get `row` in the table that is named `id` and says `definition`.
    pub(super) fn of_pods(id: TableId, definition: &Arc<Definition>, row: &Traffic) -> Self {
        match definition.sole_peers() {
            Some(_) => Self::Pods(Arc::clone(definition)),
            None => Self::PodsOfRow(id, row.clone()),
        }
    }

    /// Of the other addresses that get it.
    pub(super) fn of_ranges(id: TableId, definition: &Arc<Definition>, row: &Traffic) -> Self {
        match definition.sole_peers() {
            Some(_) => Self::Ranges(Arc::clone(definition)),
            None => Self::RangesOfRow(id, row.clone()),
        }
    }

    /// A name for it.
    pub(super) fn id(&self, attempt: Attempt) -> GroupId {
        GroupId(match self {
            Self::Pods(of) => names::name(Kind::PodsOfPeers, attempt, &of.sole_peers()),
            Self::Ranges(of) => names::name(Kind::RangesOfPeers, attempt, &of.sole_blocks()),
            Self::PodsOfRow(table, row) => names::name(Kind::PodsOfRow, attempt, &(table, row)),
            Self::RangesOfRow(table, row) => names::name(Kind::RangesOfRow, attempt, &(table, row)),
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

    /// The ports that the rule means for a peer with these named ports.
    pub(super) fn traffic(&self, peer_ports: &[(Name, Protocol, u16)]) -> Traffic {
        let named = peer_ports.iter().filter(|(name, protocol, _)| {
            self.ports.names.iter().any(|(p, n)| n == name && p.is_none_or(|p| p == *protocol))
        });
        named.fold(self.ports.numbers.clone(), |sum, (_, protocol, port)| {
            sum.union(&Traffic::of(*protocol, PortSet::range(*port, *port)))
        })
    }
}

impl Ports {
    fn new<'a>(entries: impl Iterator<Item = &'a PortMatch>, direction: Direction, subject: &Pod) -> Self {
        let mut out = Self::default();
        let mut add = |protocol, first, last| {
            out.numbers = out.numbers.union(&Traffic::of(protocol, PortSet::range(first, last)));
        };
        for entry in entries {
            match entry {
                PortMatch::Numbers { protocol, first, last } => add(*protocol, *first, *last),
                // The destination resolves a name: for ingress that is the subject, for egress the peer (A27).
                PortMatch::Named { protocol, name } if direction == Direction::Ingress => {
                    for (protocol, port) in subject.named_ports(name, *protocol) {
                        add(protocol, port, port);
                    }
                }
                PortMatch::Named { protocol, name } => drop(out.names.insert((*protocol, name.clone()))),
            }
        }
        out
    }
}

/// Rules that only add up: those with the same ports become one with all their peers, sorted.
fn union_by_ports(rules: Vec<RuleDefinition>) -> Vec<RuleDefinition> {
    let mut by_ports: BTreeMap<Ports, Option<BTreeSet<Peer>>> = BTreeMap::new();
    for rule in rules {
        match (by_ports.get_mut(&rule.ports), rule.peers) {
            (None, peers) => drop(by_ports.insert(rule.ports, peers)),
            (Some(everyone @ Some(_)), None) => *everyone = None,
            (Some(Some(known)), Some(more)) => known.extend(more),
            (Some(None), _) => {}
        }
    }
    by_ports
        .into_iter()
        .map(|(ports, peers)| RuleDefinition { action: Action::Accept, peers, ports })
        .collect()
}

//! What a table says, before anyone knows who the peers are.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
};

use sha2::{Digest, Sha256};

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

    /// The name of the table that says this.
    pub(super) fn id(&self) -> TableId {
        TableId(digest(self))
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

    /// The name of the group of live pods that get `row`. Where one rule alone tells peers apart, the group is named
    /// by that rule's peers, so that every table that asks for the same peers shares it.
    pub(super) fn exact_group(&self, row: &Traffic) -> GroupId {
        match self.sole_peers() {
            Some(peers) => GroupId(digest(&("pods", peers))),
            None => GroupId(digest(&("pods", self, row))),
        }
    }

    /// The name of the group of other addresses that get `row`; shared likewise.
    pub(super) fn range_group(&self, row: &Traffic) -> GroupId {
        match self.sole_peers() {
            Some(peers) => {
                let blocks: Vec<_> = peers.iter().filter(|p| matches!(p, Peer::Block(_))).collect();
                GroupId(digest(&("ranges", blocks)))
            }
            None => GroupId(digest(&("ranges", self, row))),
        }
    }

    fn sole_peers(&self) -> Option<&BTreeSet<Peer>> {
        let mut with_peers = self.rules().filter(|rule| rule.peers.is_some() || !rule.ports.names.is_empty());
        match (with_peers.next(), with_peers.next()) {
            (Some(rule), None) if rule.ports.names.is_empty() => rule.peers.as_ref(),
            _ => None,
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

/// A name for a value: the beginning of its SHA-256. A tenant must not be able to craft a policy whose group takes
/// another's name, so the hash is a cryptographic one; 80 bits leave a second preimage out of reach.
fn digest(value: &impl Hash) -> [u8; 10] {
    struct Sha(Sha256);
    impl Hasher for Sha {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut sha = Sha(Sha256::new());
    value.hash(&mut sha);
    let full = sha.0.finalize();
    let mut short = [0; 10];
    short.copy_from_slice(&full[..10]);
    short
}

//! The rules that ask for an address that is not known.

use std::{collections::HashMap, rc::Rc};

use palisade_policy::{
    Cluster, Direction, Endpoint, Family, IpBlock, Origin, Peer, RuleRef, Traffic,
    walk::{Entry, Walk},
};

use super::Judge;
use crate::{
    connections::{Connections, UndecidedEdge},
    families::index,
    places::PlaceId,
    reach::{Members, RowId, Unit},
};

/// A rule that asks for an address that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressQuestion {
    /// The direction of the rule. An egress rule asks for the address of the destination, an ingress rule for that of the
    /// source.
    pub direction: Direction,
    /// The rule.
    pub rule: RuleRef,
    /// The first block of the rule that contains some possible addresses and not others.
    pub block: IpBlock,
    /// The origin of that block.
    pub origin: Option<Origin>,
}

impl AddressQuestion {
    /// Returns what identifies the rule.
    pub(crate) fn place(&self) -> (Direction, palisade_policy::PolicyKey, usize) {
        (self.direction, self.rule.policy.clone(), self.rule.index)
    }
}

/// Returns the rules whose peers match in some of these walks and not in others, with the traffic that their ports match.
/// The walks are of one direction at different addresses, so they have the same policies.
pub(super) fn asking(walks: &[Walk]) -> Vec<(AddressQuestion, Traffic)> {
    let Some(first) = walks.first() else { return Vec::new() };
    let mut found = Vec::new();
    for (p, policy) in first.policies.iter().enumerate() {
        for (r, step) in policy.rules.iter().enumerate() {
            let others = || walks[1..].iter().filter_map(|w| w.policies.get(p)?.rules.get(r));
            if others().all(|other| other.peer_matches == step.peer_matches) {
                continue;
            }
            let peers = step.peers.iter().flatten().enumerate();
            let block = peers.filter_map(|(i, entry)| {
                let Entry::Peer(Peer::Block(block)) = &entry.entry else { return None };
                let differs = others().any(|o| {
                    o.peers.as_ref().and_then(|p| p.get(i)).is_some_and(|e| e.matches != entry.matches)
                });
                differs.then(|| (block.clone(), entry.origin.clone()))
            });
            for (block, origin) in block.take(1) {
                let (direction, rule) = (first.direction, step.rule.clone());
                found.push((AddressQuestion { direction, rule, block, origin }, step.holds.clone()));
            }
        }
    }
    found
}

/// Rules that ask for an address, with the traffic that their ports match.
type Asking = Rc<Vec<(AddressQuestion, Traffic)>>;

/// Finds the rules that ask for the addresses of undecided edges. Subjects with the same rules are evaluated once.
pub struct Questions<'c> {
    cluster: &'c Cluster,
    judge: Judge<'c>,
    connections: &'c Connections,
    known: HashMap<(Direction, RowId, PlaceId), Asking>,
}

impl<'c> Questions<'c> {
    /// Prepares to find the rules for edges of `connections`, which are those of `cluster`.
    #[must_use]
    pub fn new(cluster: &'c Cluster, connections: &'c Connections) -> Self {
        Self { cluster, judge: Judge::new(cluster), connections, known: HashMap::new() }
    }

    /// Returns the rules that ask for addresses of the ends of an edge and match some of its traffic, sorted by policy and
    /// rule. Empty for an ingress controller whose pods are unknown. `O(policies × rules)` for each set of rules.
    pub fn of(&mut self, edge: &UndecidedEdge) -> Vec<AddressQuestion> {
        let mut asking = Vec::new();
        for (from, to) in self.connections.unit_pairs(edge.from, edge.to) {
            for family in Family::BOTH.into_iter().filter(|family| edge.families.contains(*family)) {
                let of_pair = Direction::BOTH.map(|direction| self.asking(from, to, family, direction));
                asking.extend(of_pair.iter().flat_map(|found| found.iter().cloned()));
            }
        }
        let meets = |held: &Traffic| !held.intersection(&edge.traffic).is_none();
        // The ports of a name are those of one destination, and the edge may be about others.
        let any = asking.iter().any(|(_, held)| meets(held));
        let mut found: Vec<AddressQuestion> = asking
            .into_iter()
            .filter(|(_, held)| !any || meets(held))
            .map(|(question, _)| question)
            .collect();
        found.sort_by_cached_key(AddressQuestion::place);
        found.dedup_by(|a, b| a.place() == b.place());
        found
    }

    fn asking(&mut self, from: &Unit, to: &Unit, family: Family, direction: Direction) -> Asking {
        let (subject, peer) = if direction == Direction::Egress { (from, to) } else { (to, from) };
        let row = if direction == Direction::Egress { subject.egress } else { subject.ingress };
        let place = peer.classes[index(family)].and_then(|class| self.connections.reach.unknown_place(class));
        let (Some(row), Some(place)) = (row, place) else { return Rc::default() };
        let key = (direction, row, place);
        if let Some(known) = self.known.get(&key) {
            return Rc::clone(known);
        }
        let ends = self.endpoint(from, family).zip(self.endpoint(to, family));
        let walks = ends.map_or_else(Vec::new, |(source, destination)| {
            self.judge.walks(&source, &destination, true, direction, &Traffic::all())
        });
        let found = Rc::new(asking(&walks));
        self.known.insert(key, Rc::clone(&found));
        found
    }

    /// Returns an address of a unit.
    fn endpoint(&self, unit: &Unit, family: Family) -> Option<Endpoint> {
        match &unit.members {
            Members::Pods(pods) => {
                let key = &self.connections.reach.pods[*pods.first()? as usize].key;
                let address = self.cluster.pods.get(key)?.address(family)?;
                Some(Endpoint::Pod { key: key.clone(), address })
            }
            Members::Node { name, addresses } => {
                let address = addresses.iter().copied().find(|a| Family::of(*a) == family)?;
                Some(Endpoint::Node { name: name.clone(), address })
            }
            Members::External { ranges, .. } => ranges.first().map(|range| Endpoint::External(range.first)),
        }
    }
}

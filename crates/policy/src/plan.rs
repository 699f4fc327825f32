//! What one node's kernel must hold, as a value, and the difference of two such values.
//!
//! A [`NodePlan`] is the contract between the compiler, which makes it, and the data plane, which programs it. Its
//! meaning is [`NodePlan::decide`]; the property tests hold it equal to the reference.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use crate::{AddressSet, Direction, Family, IpRange, Protocol, Traffic, Verdict};

/// Names a table by what it says: for one build of the program the same rules give the same name, on every node and
/// after every restart. Another compiler may hash differently; then the next start replaces what the last one made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyTableId(pub [u8; 16]);

/// Names a group by what selects its members, not by who they are: members come and go, the name stays.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerSetId(pub [u8; 16]);

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

macro_rules! display_as_hex {
    ($($id:ty),*) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(&self.0, f)
            }
        }
        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(&self.0, f)
            }
        }
    )*};
}
display_as_hex!(PolicyTableId, PeerSetId);

/// A set of peer addresses, shared by all tables that need the same set. May hold both families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerSet {
    /// Single addresses of live pods: an exact look-up.
    Addresses(AddressSet),
    /// Ranges from CIDRs, sorted, disjoint. Fixed by the group's name: a group never changes its ranges.
    Ranges(Vec<IpRange>),
}

/// A profile compiled: which peers may use which ports, flattened over all tiers.
///
/// A peer's row is that of the first group in `exact` that holds its address (these groups are disjoint); else that of
/// the group in `ranges` that holds it (disjoint too); else `rest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTable {
    /// The direction that it decides.
    pub direction: Direction,
    /// Rows for live pods. All groups are [`PeerSet::Addresses`].
    pub exact: BTreeMap<PeerSetId, Traffic>,
    /// Rows for all other addresses. All groups are [`PeerSet::Ranges`].
    pub ranges: BTreeMap<PeerSetId, Traffic>,
    /// The row of every address that is in no group.
    pub rest: Traffic,
}

/// What one node's kernel must hold.
///
/// Addresses in neither `ingress` nor `egress` are not isolated or not local: everything passes in that direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePlan {
    /// Local pod addresses whose ingress some policy decides, each with its table.
    pub ingress: BTreeMap<IpAddr, PolicyTableId>,
    /// Local pod addresses whose egress some policy decides, each with its table.
    pub egress: BTreeMap<IpAddr, PolicyTableId>,
    /// What a local pod may use of itself through a service, where that is not everything: cluster-wide policies hold
    /// there, NetworkPolicies don't (SEMANTICS C25, G-6).
    pub hairpin: BTreeMap<IpAddr, Traffic>,
    /// Exactly the tables that `ingress` and `egress` mention.
    pub tables: BTreeMap<PolicyTableId, PolicyTable>,
    /// Exactly the groups that `tables` mention.
    pub peer_sets: BTreeMap<PeerSetId, PeerSet>,
    /// The addresses that the live pods of this node own, isolated or not. Pods that share the node's network have
    /// none of their own (SEMANTICS G-4). They decide nothing; the data plane protects them against forged packets.
    pub local: BTreeSet<IpAddr>,
    /// The addresses of all nodes of the cluster (G-18): the far ends of tunnels between them.
    pub nodes: BTreeSet<IpAddr>,
}

impl NodePlan {
    /// The table that decides for a local pod address, if any.
    #[must_use]
    pub fn table(&self, direction: Direction, local: IpAddr) -> Option<&PolicyTable> {
        let dispatch = if direction == Direction::Ingress { &self.ingress } else { &self.egress };
        self.tables.get(dispatch.get(&local)?)
    }

    /// What the plan says to a new flow with these addresses in one direction, on this node. A packet from an address
    /// to itself has gone through a service, or it would not be forwarded (SEMANTICS A41, G-6).
    /// `O(groups of the table)`.
    #[must_use]
    pub fn decide(
        &self,
        direction: Direction,
        source: IpAddr,
        destination: IpAddr,
        protocol: Protocol,
        port: u16,
    ) -> Verdict {
        if source == destination {
            let denied = self.hairpin.get(&source).is_some_and(|traffic| !traffic.contains(protocol, port));
            return if denied { Verdict::Deny } else { Verdict::Allow };
        }
        let (local, peer) = match direction {
            Direction::Ingress => (destination, source),
            Direction::Egress => (source, destination),
        };
        match self.table(direction, local) {
            Some(table) if !self.row(table, peer).contains(protocol, port) => Verdict::Deny,
            _ => Verdict::Allow,
        }
    }

    /// The row of `table` for a peer address.
    #[must_use]
    pub fn row<'a>(&self, table: &'a PolicyTable, peer: IpAddr) -> &'a Traffic {
        let holds = |id: &PeerSetId| match self.peer_sets.get(id) {
            Some(PeerSet::Addresses(set)) => set.contains(&peer),
            Some(PeerSet::Ranges(ranges)) => {
                let after = ranges.partition_point(|r| r.first <= peer);
                after > 0 && ranges[after - 1].contains(peer)
            }
            None => false,
        };
        table.exact.iter().chain(&table.ranges).find(|(id, _)| holds(id)).map_or(&table.rest, |(_, row)| row)
    }

    /// What leads from `self` to `to`. `O(both plans)`: for start-up and tests; the compiler makes deltas as it goes.
    #[must_use]
    pub fn delta_to(&self, to: &Self) -> Delta {
        let mut delta = Delta {
            ingress: AddressChanges::between(&self.ingress, &to.ingress),
            egress: AddressChanges::between(&self.egress, &to.egress),
            hairpin: AddressChanges::between(&self.hairpin, &to.hairpin),
            local: MemberChanges::between(&self.local, &to.local),
            nodes: MemberChanges::between(&self.nodes, &to.nodes),
            ..Delta::default()
        };
        for (id, table) in &to.tables {
            if self.tables.get(id) != Some(table) {
                delta.tables_set.insert(*id, table.clone());
            }
        }
        delta.tables_removed = self.tables.keys().filter(|id| !to.tables.contains_key(id)).copied().collect();
        for (id, group) in &to.peer_sets {
            match (self.peer_sets.get(id), group) {
                (Some(PeerSet::Addresses(old)), PeerSet::Addresses(new)) => {
                    let change = MemberChanges {
                        added: new.difference(old).collect(),
                        removed: old.difference(new).collect(),
                    };
                    if !change.is_empty() {
                        delta.members.insert(*id, change);
                    }
                }
                (Some(old), new) if old == new => {}
                _ => drop(delta.peer_sets_added.insert(*id, group.clone())),
            }
        }
        delta.peer_sets_removed =
            self.peer_sets.keys().filter(|id| !to.peer_sets.contains_key(id)).copied().collect();
        delta
    }

    /// Performs a delta. What it mentions and the plan lacks is ignored, so a delta may be applied twice.
    pub fn apply(&mut self, delta: &Delta) {
        self.peer_sets.extend(delta.peer_sets_added.iter().map(|(id, g)| (*id, g.clone())));
        for (id, change) in &delta.members {
            if let Some(PeerSet::Addresses(set)) = self.peer_sets.get_mut(id) {
                for a in &change.removed {
                    set.remove(a);
                }
                set.extend(&change.added);
            }
        }
        self.tables.extend(delta.tables_set.iter().map(|(id, t)| (*id, t.clone())));
        delta.ingress.apply(&mut self.ingress);
        delta.egress.apply(&mut self.egress);
        delta.hairpin.apply(&mut self.hairpin);
        delta.local.apply(&mut self.local);
        delta.nodes.apply(&mut self.nodes);
        for id in &delta.tables_removed {
            self.tables.remove(id);
        }
        for id in &delta.peer_sets_removed {
            self.peer_sets.remove(id);
        }
    }

    /// How many set elements the plan needs in the kernel, by family.
    #[must_use]
    pub fn elements(&self, family: Family) -> usize {
        self.peer_sets
            .values()
            .map(|g| match g {
                PeerSet::Addresses(set) => set.len_of(family),
                PeerSet::Ranges(ranges) => ranges.iter().filter(|r| Family::of(r.first) == family).count(),
            })
            .sum()
    }
}

/// Changes of one map from local addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressChanges<V = PolicyTableId> {
    /// Addresses that are new or now lead to something else.
    pub set: BTreeMap<IpAddr, V>,
    /// Addresses that are gone.
    pub removed: BTreeSet<IpAddr>,
}

impl<V> Default for AddressChanges<V> {
    fn default() -> Self {
        Self { set: BTreeMap::new(), removed: BTreeSet::new() }
    }
}

impl<V: Clone + PartialEq> AddressChanges<V> {
    fn between(from: &BTreeMap<IpAddr, V>, to: &BTreeMap<IpAddr, V>) -> Self {
        Self {
            set: to.iter().filter(|(a, t)| from.get(*a) != Some(*t)).map(|(a, v)| (*a, v.clone())).collect(),
            removed: from.keys().filter(|a| !to.contains_key(*a)).copied().collect(),
        }
    }

    fn apply(&self, map: &mut BTreeMap<IpAddr, V>) {
        for a in &self.removed {
            map.remove(a);
        }
        map.extend(self.set.iter().map(|(a, v)| (*a, v.clone())));
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }
}

/// Changes of one set of addresses. No address is in both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberChanges {
    /// Addresses that join.
    pub added: BTreeSet<IpAddr>,
    /// Addresses that leave.
    pub removed: BTreeSet<IpAddr>,
}

impl MemberChanges {
    fn between(from: &BTreeSet<IpAddr>, to: &BTreeSet<IpAddr>) -> Self {
        Self {
            added: to.difference(from).copied().collect(),
            removed: from.difference(to).copied().collect(),
        }
    }

    fn apply(&self, set: &mut BTreeSet<IpAddr>) {
        for address in &self.removed {
            set.remove(address);
        }
        set.extend(&self.added);
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

/// The difference of two plans: what one kernel transaction carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// New groups, whole.
    pub peer_sets_added: BTreeMap<PeerSetId, PeerSet>,
    /// Groups that nothing mentions any more.
    pub peer_sets_removed: BTreeSet<PeerSetId>,
    /// Members that join and leave groups that stay.
    pub members: BTreeMap<PeerSetId, MemberChanges>,
    /// Tables that are new or say something else now.
    pub tables_set: BTreeMap<PolicyTableId, PolicyTable>,
    /// Tables that nothing mentions any more.
    pub tables_removed: BTreeSet<PolicyTableId>,
    /// Changes of the ingress dispatch.
    pub ingress: AddressChanges,
    /// Changes of the egress dispatch.
    pub egress: AddressChanges,
    /// Changes of what pods may use of themselves.
    pub hairpin: AddressChanges<Traffic>,
    /// Addresses that become or stop being those of local pods.
    pub local: MemberChanges,
    /// Addresses that become or stop being those of nodes.
    pub nodes: MemberChanges,
}

impl Delta {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

//! The plan of one node, and the difference of two plans.
//!
//! A [`NodePlan`] is the contract between the compiler, which makes it, and the data plane, which programs it.
//! [`NodePlan::decide`] defines its meaning; property tests hold it equal to the reference.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

mod audit;
mod check;

pub use audit::{AuditChanges, AuditPlan};
pub use check::BrokenPlan;

use crate::{AddressSet, Deciding, Direction, Family, IpRange, Protocol, Traffic, Verdict};

/// Identifies a policy table by a hash of its rules. Within one build of the program the same rules have the same id,
/// on every node and after every restart. Another build may hash differently; it replaces the tables at its start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyTableId(pub [u8; 16]);

/// Identifies a peer set by a hash of what selects its members. The id stays when members join and leave.
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

/// A set of peer addresses, shared by all tables that need it. May contain both families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerSet {
    /// Addresses of running pods, of nodes and of learned names, for an exact lookup.
    Addresses(AddressSet),
    /// Ranges of CIDRs, sorted, disjoint. They never change while the id stays.
    Ranges(Vec<IpRange>),
}

/// The compiled policies of a profile (pods that the same policies select): the ports that each peer may use, with all
/// tiers flattened.
///
/// A peer's row is that of the peer set in `exact` that contains its address (these sets are disjoint), else that of
/// the peer set in `ranges` that contains it (disjoint too), else `rest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTable {
    /// The direction.
    pub direction: Direction,
    /// Rows of pods, nodes and learned addresses. All peer sets are [`PeerSet::Addresses`].
    pub exact: BTreeMap<PeerSetId, Traffic>,
    /// Rows of all other addresses. All peer sets are [`PeerSet::Ranges`].
    pub ranges: BTreeMap<PeerSetId, Traffic>,
    /// The row of every address that is in no peer set.
    pub rest: Traffic,
}

/// What the kernel of one node must hold.
///
/// The fields are plain data, so that tests can construct any plan. [`NodePlan::check`] checks what they promise.
///
/// Addresses in neither `ingress` nor `egress` are not isolated or not local: all their traffic in that direction is
/// allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePlan {
    /// The policy table of each local pod address to whose ingress policies apply.
    pub ingress: BTreeMap<IpAddr, PolicyTableId>,
    /// The policy table of each local pod address to whose egress policies apply.
    pub egress: BTreeMap<IpAddr, PolicyTableId>,
    /// The traffic that a local pod may send to itself through a service, if not all of it is allowed: cluster-wide
    /// policies apply there, NetworkPolicies don't (SEMANTICS C25, G-6).
    pub hairpin: BTreeMap<IpAddr, Traffic>,
    /// What policies in audit mode would decide.
    pub audit: AuditPlan,
    /// Exactly the tables to which `ingress`, `egress` and those of `audit` refer.
    pub tables: BTreeMap<PolicyTableId, PolicyTable>,
    /// Exactly the peer sets to which `tables` refer.
    pub peer_sets: BTreeMap<PeerSetId, PeerSet>,
    /// The addresses of the running pods of this node, isolated or not. Host-network pods have no address of their own
    /// (SEMANTICS G-4). These addresses affect no decision; the data plane protects them against spoofed packets.
    pub local: BTreeSet<IpAddr>,
    /// The addresses of all nodes of the cluster (G-18): the endpoints of tunnels between them.
    pub nodes: BTreeSet<IpAddr>,
    /// The addresses among `local` whose policies refuse what they deny, instead of dropping it ([`crate::Deny`]). They affect no
    /// decision.
    pub refusing: BTreeSet<IpAddr>,
}

impl NodePlan {
    /// Returns the table of a local pod address, if it has one.
    #[must_use]
    pub fn table(&self, direction: Direction, local: IpAddr) -> Option<&PolicyTable> {
        let dispatch = if direction == Direction::Ingress { &self.ingress } else { &self.egress };
        self.tables.get(dispatch.get(&local)?)
    }

    /// Returns the table that would decide for a local pod address if every policy were enforced, if it has one.
    #[must_use]
    pub fn audit_table(&self, direction: Direction, local: IpAddr) -> Option<&PolicyTable> {
        match self.audit.dispatch(direction).get(&local) {
            Some(id) => self.tables.get(id),
            None => self.table(direction, local),
        }
    }

    /// Decides a new connection with these addresses in one direction on this node. A packet from an address to itself
    /// has passed a service, otherwise it wouldn't be forwarded (SEMANTICS A41, G-6). `O(peer sets of the table)`.
    #[must_use]
    pub fn decide(
        &self,
        direction: Direction,
        source: IpAddr,
        destination: IpAddr,
        protocol: Protocol,
        port: u16,
    ) -> Verdict {
        self.decide_by(Deciding::Enforced, direction, source, destination, protocol, port)
    }

    /// Decides as [`NodePlan::decide`], by these policies.
    #[must_use]
    pub fn decide_by(
        &self,
        deciding: Deciding,
        direction: Direction,
        source: IpAddr,
        destination: IpAddr,
        protocol: Protocol,
        port: u16,
    ) -> Verdict {
        if source == destination {
            let audited = deciding == Deciding::All && self.audit.has(source);
            let hairpin = if audited { &self.audit.hairpin } else { &self.hairpin };
            let denied = hairpin.get(&source).is_some_and(|traffic| !traffic.contains(protocol, port));
            return if denied { Verdict::Deny } else { Verdict::Allow };
        }
        let (local, peer) = match direction {
            Direction::Ingress => (destination, source),
            Direction::Egress => (source, destination),
        };
        let table = match deciding {
            Deciding::Enforced => self.table(direction, local),
            Deciding::All => self.audit_table(direction, local),
        };
        match table {
            Some(table) if !self.row(table, peer).contains(protocol, port) => Verdict::Deny,
            _ => Verdict::Allow,
        }
    }

    /// Returns the row of `table` for a peer address.
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

    /// Returns the difference from `self` to `to`. `O(both plans)`: for startup and tests. The compiler tracks deltas
    /// as it goes.
    #[must_use]
    pub fn delta_to(&self, to: &Self) -> Delta {
        let mut delta = Delta {
            ingress: AddressChanges::between(&self.ingress, &to.ingress),
            egress: AddressChanges::between(&self.egress, &to.egress),
            hairpin: AddressChanges::between(&self.hairpin, &to.hairpin),
            audit: AuditChanges::between(&self.audit, &to.audit),
            local: MemberChanges::between(&self.local, &to.local),
            nodes: MemberChanges::between(&self.nodes, &to.nodes),
            refusing: MemberChanges::between(&self.refusing, &to.refusing),
            ..Delta::default()
        };
        for (id, table) in &to.tables {
            if self.tables.get(id) != Some(table) {
                delta.tables_set.insert(*id, table.clone());
            }
        }
        delta.tables_removed = self.tables.keys().filter(|id| !to.tables.contains_key(id)).copied().collect();
        for (id, set) in &to.peer_sets {
            match (self.peer_sets.get(id), set) {
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
                _ => drop(delta.peer_sets_added.insert(*id, set.clone())),
            }
        }
        delta.peer_sets_removed =
            self.peer_sets.keys().filter(|id| !to.peer_sets.contains_key(id)).copied().collect();
        delta
    }

    /// Applies a delta. Parts that refer to something that the plan doesn't have are ignored, so a delta may be applied
    /// twice.
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
        delta.audit.apply(&mut self.audit);
        delta.local.apply(&mut self.local);
        delta.nodes.apply(&mut self.nodes);
        delta.refusing.apply(&mut self.refusing);
        for id in &delta.tables_removed {
            self.tables.remove(id);
        }
        for id in &delta.peer_sets_removed {
            self.peer_sets.remove(id);
        }
    }

    /// Returns the plan without what policies in audit mode would decide. `O(plan)`.
    #[must_use]
    pub fn without_audit(&self) -> Self {
        let mut out = Self { audit: AuditPlan::default(), ..self.clone() };
        let used: BTreeSet<&PolicyTableId> = self.ingress.values().chain(self.egress.values()).collect();
        out.tables.retain(|id, _| used.contains(id));
        let tables = out.tables.values();
        let sets: BTreeSet<&PeerSetId> = tables.flat_map(|t| t.exact.keys().chain(t.ranges.keys())).collect();
        out.peer_sets.retain(|id, _| sets.contains(id));
        out
    }

    /// Returns how many set elements of a family the plan needs in the kernel.
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

/// Changes of a map from local addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressChanges<V = PolicyTableId> {
    /// Addresses that were added, or whose value changed.
    pub set: BTreeMap<IpAddr, V>,
    /// Addresses that were removed.
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

    /// Returns whether there are no changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }
}

/// Changes of a set of addresses. No address is in both fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberChanges {
    /// Added addresses.
    pub added: BTreeSet<IpAddr>,
    /// Removed addresses.
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

    /// Returns whether there are no changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

/// The difference of two plans, which one kernel transaction carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// New peer sets with their members.
    pub peer_sets_added: BTreeMap<PeerSetId, PeerSet>,
    /// Peer sets that are no longer used.
    pub peer_sets_removed: BTreeSet<PeerSetId>,
    /// Members that join and leave other peer sets.
    pub members: BTreeMap<PeerSetId, MemberChanges>,
    /// Tables that are new or changed.
    pub tables_set: BTreeMap<PolicyTableId, PolicyTable>,
    /// Tables that are no longer used.
    pub tables_removed: BTreeSet<PolicyTableId>,
    /// Changes of the tables for ingress.
    pub ingress: AddressChanges,
    /// Changes of the tables for egress.
    pub egress: AddressChanges,
    /// Changes of the traffic that pods may send to themselves.
    pub hairpin: AddressChanges<Traffic>,
    /// Changes of what policies in audit mode would decide.
    pub audit: AuditChanges,
    /// Changes of the local pod addresses.
    pub local: MemberChanges,
    /// Changes of the node addresses.
    pub nodes: MemberChanges,
    /// Changes of the local addresses whose policies refuse what they deny.
    pub refusing: MemberChanges,
}

impl Delta {
    /// Returns whether there are no changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

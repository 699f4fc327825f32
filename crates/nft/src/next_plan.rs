//! The plan after a delta, without building it: a peer set can hold a hundred thousand addresses, a delta one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::{
    AddressChanges, Delta, Direction, Family, IpRange, MemberChanges, Mode, NodePlan, PeerSet, PeerSetId,
    PolicyTable, PolicyTableId, Traffic,
    address::{max_number, to_number},
};

use crate::ruleset::{Content, Element, Set};

/// `plan` after `delta`, as [`NodePlan::apply`] would make it.
pub(crate) struct NextPlan<'a> {
    pub(crate) plan: &'a NodePlan,
    pub(crate) delta: &'a Delta,
}

impl<'a> NextPlan<'a> {
    /// Returns the table with this id.
    pub(crate) fn table(&self, id: PolicyTableId) -> Option<&'a PolicyTable> {
        if self.delta.tables_removed.contains(&id) {
            return None;
        }
        self.delta.tables_set.get(&id).or_else(|| self.plan.tables.get(&id))
    }

    /// Returns the peer set with this id, without the delta's changes of its members.
    pub(crate) fn peer_set(&self, id: PeerSetId) -> Option<&'a PeerSet> {
        if self.delta.peer_sets_removed.contains(&id) {
            return None;
        }
        self.delta.peer_sets_added.get(&id).or_else(|| self.plan.peer_sets.get(&id))
    }

    /// Returns the table that decides for a local address, or that would decide if every policy were enforced.
    pub(crate) fn table_of(
        &self,
        mode: Mode,
        direction: Direction,
        address: IpAddr,
    ) -> Option<PolicyTableId> {
        let changes = self.changes(mode, direction);
        match changes.set.get(&address) {
            Some(table) => Some(*table),
            None if changes.removed.contains(&address) => None,
            None => dispatch_map(self.plan, mode, direction).get(&address).copied(),
        }
    }

    /// Returns what a local address may use of itself, if that is less than everything.
    pub(crate) fn hairpin(&self, mode: Mode, address: IpAddr) -> Option<&'a Traffic> {
        let (plan, changes) = match mode {
            Mode::Enforce => (&self.plan.hairpin, &self.delta.hairpin),
            Mode::Audit => (&self.plan.audit.hairpin, &self.delta.audit.hairpin),
        };
        match changes.set.get(&address) {
            None if changes.removed.contains(&address) => None,
            None => plan.get(&address),
            traffic => traffic,
        }
    }

    /// Returns the local addresses whose hairpin traffic may change.
    pub(crate) fn changed_hairpins(&self, mode: Mode) -> impl Iterator<Item = IpAddr> {
        let changes = match mode {
            Mode::Enforce => &self.delta.hairpin,
            Mode::Audit => &self.delta.audit.hairpin,
        };
        changes.set.keys().chain(&changes.removed).copied()
    }

    /// Returns the local addresses whose chain may change: those in the delta, and those of tables that it changes.
    pub(crate) fn changed_dispatch(&self, mode: Mode) -> BTreeSet<(Direction, IpAddr)> {
        let mut out = BTreeSet::new();
        for direction in Direction::BOTH {
            let changes = self.changes(mode, direction);
            out.extend(changes.set.keys().chain(&changes.removed).map(|a| (direction, *a)));
            if !self.delta.tables_set.is_empty() || !self.delta.tables_removed.is_empty() {
                let changed = |id: &PolicyTableId| {
                    self.delta.tables_set.contains_key(id) || self.delta.tables_removed.contains(id)
                };
                out.extend(
                    dispatch_map(self.plan, mode, direction)
                        .iter()
                        .filter(|(_, id)| changed(id))
                        .map(|(a, _)| (direction, *a)),
                );
            }
        }
        out
    }

    /// Returns the addresses of local pods.
    pub(crate) fn local(&self) -> impl Iterator<Item = IpAddr> {
        after(&self.plan.local, &self.delta.local)
    }

    /// Returns the addresses of local pods whose policies refuse what they deny.
    pub(crate) fn refusing(&self) -> impl Iterator<Item = IpAddr> {
        after(&self.plan.refusing, &self.delta.refusing)
    }

    /// Returns the addresses of nodes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = IpAddr> {
        after(&self.plan.nodes, &self.delta.nodes)
    }

    /// Returns whether the peer set held the address before the delta.
    pub(crate) fn was_member(&self, id: PeerSetId, address: IpAddr) -> bool {
        matches!(self.plan.peer_sets.get(&id), Some(PeerSet::Addresses(set)) if set.contains(&address))
    }

    /// Returns whether the peer set holds the address after the delta.
    pub(crate) fn is_member(&self, id: PeerSetId, address: IpAddr) -> bool {
        if let Some(change) = self.delta.members.get(&id) {
            if change.added.contains(&address) {
                return matches!(self.peer_set(id), Some(PeerSet::Addresses(_)));
            }
            if change.removed.contains(&address) {
                return false;
            }
        }
        matches!(self.peer_set(id), Some(PeerSet::Addresses(set)) if set.contains(&address))
    }

    /// Returns the addresses whose membership may have changed, for each peer set that existed before.
    pub(crate) fn changed_members(&self) -> BTreeMap<PeerSetId, BTreeSet<IpAddr>> {
        let mut out: BTreeMap<PeerSetId, BTreeSet<IpAddr>> = BTreeMap::new();
        for (id, change) in &self.delta.members {
            out.entry(*id).or_default().extend(change.added.iter().chain(&change.removed));
        }
        for (id, new) in &self.delta.peer_sets_added {
            if let (Some(PeerSet::Addresses(old)), PeerSet::Addresses(new)) =
                (self.plan.peer_sets.get(id), new)
            {
                out.entry(*id).or_default().extend(old.difference(new).chain(new.difference(old)));
            }
        }
        out
    }

    /// Returns all elements of a set of peers or ports.
    pub(crate) fn elements(&self, set: &Set) -> Vec<Element> {
        match &set.content {
            Content::Ports(ranges) => {
                ranges.iter().map(|(first, last)| Element::Ports(*first, *last)).collect()
            }
            Content::PeerSets(ids, family) if set.intervals => {
                let mut ranges: Vec<IpRange> = ids
                    .iter()
                    .filter_map(|id| match self.peer_set(*id) {
                        Some(PeerSet::Ranges(ranges)) => Some(ranges),
                        _ => None,
                    })
                    .flatten()
                    .filter(|r| Family::of(r.first) == *family)
                    .copied()
                    .collect();
                merge(&mut ranges);
                ranges.into_iter().map(Element::Range).collect()
            }
            Content::PeerSets(ids, family) => {
                let mut members = BTreeSet::new();
                for id in ids {
                    self.collect(*id, *family, &mut members);
                }
                members.into_iter().map(Element::Address).collect()
            }
            Content::Dispatch(..)
            | Content::SelfPairs(_)
            | Content::Revoked(..)
            | Content::Shares(..)
            | Content::DnsShares(_)
            | Content::NewPods(_)
            | Content::NewConnections(_)
            | Content::LinkDispatch
            | Content::Generation
            | Content::Node(_) => Vec::new(),
        }
    }

    fn collect(&self, id: PeerSetId, family: Family, out: &mut BTreeSet<IpAddr>) {
        let Some(PeerSet::Addresses(base)) = self.peer_set(id) else { return };
        let of_family = |a: &IpAddr| Family::of(*a) == family;
        match self.delta.members.get(&id) {
            Some(change) => {
                out.extend(base.iter().filter(of_family).filter(|a| !change.removed.contains(a)));
                out.extend(change.added.iter().copied().filter(of_family));
            }
            None => out.extend(base.iter().filter(of_family)),
        }
    }

    fn changes(&self, mode: Mode, direction: Direction) -> &'a AddressChanges {
        match (mode, direction) {
            (Mode::Enforce, Direction::Ingress) => &self.delta.ingress,
            (Mode::Enforce, Direction::Egress) => &self.delta.egress,
            (Mode::Audit, Direction::Ingress) => &self.delta.audit.ingress,
            (Mode::Audit, Direction::Egress) => &self.delta.audit.egress,
        }
    }
}

/// Returns the plan's local addresses with the tables that decide, or would decide if every policy were enforced.
pub(crate) fn dispatch_map(
    plan: &NodePlan,
    mode: Mode,
    direction: Direction,
) -> &BTreeMap<IpAddr, PolicyTableId> {
    match (mode, direction) {
        (Mode::Enforce, Direction::Ingress) => &plan.ingress,
        (Mode::Enforce, Direction::Egress) => &plan.egress,
        (Mode::Audit, direction) => plan.audit.dispatch(direction),
    }
}

/// Returns the members of a set of addresses after a change.
fn after<'a>(set: &'a BTreeSet<IpAddr>, change: &'a MemberChanges) -> impl Iterator<Item = IpAddr> + 'a {
    let stay = set.iter().filter(|a| !change.removed.contains(*a) && !change.added.contains(*a));
    stay.chain(&change.added).copied()
}

/// Sorts ranges of one family, and merges those that touch or overlap: the end marker of one would have the key of the
/// start of the next.
fn merge(ranges: &mut Vec<IpRange>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let end = to_number(last.last);
        let touches = end == max_number(Family::of(last.last)) || to_number(next.first) <= end + 1;
        if touches && to_number(next.last) > end {
            last.last = next.last;
        }
        touches
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_or_overlap_become_one() {
        let range = |a: &str, b: &str| IpRange { first: a.parse().unwrap(), last: b.parse().unwrap() };
        let mut ranges = vec![
            range("10.0.1.0", "10.0.1.255"),
            range("10.0.0.0", "10.0.0.255"),
            range("10.0.3.0", "10.0.3.9"),
            range("10.0.3.5", "10.0.3.7"),
            range("255.255.255.0", "255.255.255.255"),
            range("255.255.255.255", "255.255.255.255"),
        ];
        merge(&mut ranges);
        let want =
            [("10.0.0.0", "10.0.1.255"), ("10.0.3.0", "10.0.3.9"), ("255.255.255.0", "255.255.255.255")];
        assert_eq!(ranges, want.map(|(a, b)| range(a, b)));
    }
}

//! Who has which address: live pods, and who of them owns it (G-10); else a node.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::RangeInclusive,
};

use super::remove_from;

use crate::{Cluster, IpRange, Name, Node, ObjectKey, Pod};

/// The claims to addresses, sorted by address so that what a CIDR holds is one range.
#[derive(Clone, Debug, Default)]
pub(super) struct AddressBook {
    pods: BTreeMap<IpAddr, Claims>,
    nodes: BTreeMap<IpAddr, BTreeSet<Name>>,
}

/// Who has an address.
#[derive(Clone, Copy, Debug)]
pub(super) enum Holder<'a> {
    /// A live pod owns it.
    Pod(&'a Pod),
    /// No pod, but a node.
    Node(&'a Node),
}

/// Nearly always one pod: the second variant costs memory only where two report one address.
#[derive(Clone, Debug)]
enum Claims {
    One(ObjectKey),
    Many(Vec<ObjectKey>),
}

impl Claims {
    fn keys(&self) -> &[ObjectKey] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::Many(keys) => keys,
        }
    }
}

impl AddressBook {
    /// Notes a live pod's addresses.
    pub(super) fn claim(&mut self, pod: &Pod) {
        for address in &pod.addresses {
            let mut keys = self.claimants(*address).cloned().collect::<Vec<_>>();
            if !keys.contains(&pod.key) {
                keys.push(pod.key.clone());
            }
            self.put(*address, keys);
        }
    }

    /// Forgets them.
    pub(super) fn withdraw(&mut self, pod: &Pod) {
        for address in &pod.addresses {
            let keys = self.claimants(*address).filter(|key| **key != pod.key).cloned().collect();
            self.put(*address, keys);
        }
    }

    fn put(&mut self, address: IpAddr, mut keys: Vec<ObjectKey>) {
        match keys.len() {
            0 => drop(self.pods.remove(&address)),
            1 => drop(self.pods.insert(address, Claims::One(keys.remove(0)))),
            _ => drop(self.pods.insert(address, Claims::Many(keys))),
        }
    }

    /// The live pods that report `address`.
    pub(super) fn claimants(&self, address: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        self.pods.get(&address).map(Claims::keys).unwrap_or_default().iter()
    }

    /// The pod that owns `address`.
    pub(super) fn owner<'a>(&self, address: IpAddr, cluster: &'a Cluster) -> Option<&'a Pod> {
        self.claimants(address).filter_map(|key| cluster.pods.get(key)).min_by(|a, b| Pod::precedence(a, b))
    }

    /// Whoever has `address`; of nodes that share one, the first by name.
    pub(super) fn holder<'a>(&self, address: IpAddr, cluster: &'a Cluster) -> Option<Holder<'a>> {
        if let Some(pod) = self.owner(address, cluster) {
            return Some(Holder::Pod(pod));
        }
        let name = self.nodes.get(&address)?.first()?;
        cluster.nodes.get(name).map(Holder::Node)
    }

    /// Notes which addresses a node has instead of those that it had.
    pub(super) fn set_node(&mut self, old: Option<&Node>, new: Option<&Node>) {
        for (node, address) in old.into_iter().flat_map(|node| node.addresses.iter().map(move |a| (node, a)))
        {
            remove_from(&mut self.nodes, address, &node.name);
        }
        for (node, address) in new.into_iter().flat_map(|node| node.addresses.iter().map(move |a| (node, a)))
        {
            self.nodes.entry(*address).or_default().insert(node.name.clone());
        }
    }

    /// The addresses in a range that somebody has.
    pub(super) fn within(&self, range: IpRange) -> impl Iterator<Item = IpAddr> {
        let range: RangeInclusive<IpAddr> = range.first..=range.last;
        let nodes = self.nodes.range(range.clone()).map(|(address, _)| *address);
        self.pods.range(range).map(|(address, _)| *address).chain(nodes)
    }
}

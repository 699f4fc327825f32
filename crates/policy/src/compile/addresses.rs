//! The owner of each address: a running pod (G-10), else a node.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::remove_from;

use crate::{Cluster, Endpoint, IpRange, Name, Node, ObjectKey, Pod, address_set::AddressMap};

/// All reported addresses, sorted, so that the addresses of a CIDR are one range.
#[derive(Clone, Debug, Default)]
pub(super) struct AddressBook {
    pods: AddressMap<Claims>,
    nodes: BTreeMap<IpAddr, BTreeSet<Name>>,
}

/// The owner of an address.
#[derive(Clone, Copy, Debug)]
pub(super) enum Holder<'a> {
    /// A running pod.
    Pod(&'a Pod),
    /// No pod, but a node.
    Node(&'a Node),
}

/// Almost always one pod: the second variant uses memory only if several pods report one address. The pods are those of
/// the cluster, not copies.
#[derive(Clone, Debug)]
enum Claims {
    One(Arc<Pod>),
    Many(Box<[Arc<Pod>]>),
}

impl Claims {
    fn of(mut pods: Vec<Arc<Pod>>) -> Option<Self> {
        match pods.len() {
            0 => None,
            1 => pods.pop().map(Self::One),
            _ => Some(Self::Many(pods.into())),
        }
    }

    fn pods(&self) -> &[Arc<Pod>] {
        match self {
            Self::One(pod) => std::slice::from_ref(pod),
            Self::Many(pods) => pods,
        }
    }
}

impl AddressBook {
    /// Adds the addresses of a running pod. An earlier claim of the same pod must have been withdrawn.
    pub(super) fn claim(&mut self, pod: &Arc<Pod>) {
        for address in &pod.addresses {
            let others = self.claimants(*address).filter(|other| other.key != pod.key);
            let all = others.chain([pod]).cloned().collect();
            self.put(*address, Claims::of(all));
        }
    }

    /// Removes the addresses of a pod.
    pub(super) fn withdraw(&mut self, pod: &Pod) {
        for address in &pod.addresses {
            let others = self.claimants(*address).filter(|other| other.key != pod.key);
            let left = others.cloned().collect();
            self.put(*address, Claims::of(left));
        }
    }

    fn put(&mut self, address: IpAddr, claims: Option<Claims>) {
        match claims {
            Some(claims) => self.pods.insert(address, claims),
            None => self.pods.remove(&address),
        };
    }

    /// Iterates over the running pods that report `address`.
    pub(super) fn claimants(&self, address: IpAddr) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.get(&address).map(Claims::pods).unwrap_or_default().iter()
    }

    /// Returns the pod that owns `address`.
    pub(super) fn owner(&self, address: IpAddr) -> Option<&Pod> {
        self.claimants(address).map(|pod| &**pod).min_by(|a, b| Pod::precedence(a, b))
    }

    /// Returns whether the pod with this key owns `address`.
    pub(super) fn is_owner(&self, key: &ObjectKey, address: IpAddr) -> bool {
        self.owner(address).is_some_and(|pod| pod.key == *key)
    }

    /// Returns the owner of `address`; of several nodes the first by name.
    pub(super) fn holder<'a>(&'a self, address: IpAddr, cluster: &'a Cluster) -> Option<Holder<'a>> {
        if let Some(pod) = self.owner(address) {
            return Some(Holder::Pod(pod));
        }
        let name = self.nodes.get(&address)?.first()?;
        cluster.nodes.get(name).map(Holder::Node)
    }

    /// Returns an address of a network that a node or another running pod than this one has.
    pub(super) fn other_holder_in(&self, network: IpNet, pod: &ObjectKey) -> Option<Endpoint> {
        let (first, last) = (network.network(), network.broadcast());
        if let Some((address, names)) = self.nodes.range(first..=last).next() {
            return Some(Endpoint::Node { name: names.first()?.clone(), address: *address });
        }
        self.pods.keys_in(IpRange { first, last }).find_map(|address| {
            let owner = self.owner(address).filter(|owner| owner.key != *pod)?;
            Some(Endpoint::Pod { key: owner.key.clone(), address })
        })
    }

    /// Returns whether a node has `address`.
    pub(super) fn is_node(&self, address: IpAddr) -> bool {
        self.nodes.contains_key(&address)
    }

    /// Replaces the addresses of a node.
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
}

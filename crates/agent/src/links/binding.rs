//! Which pod each bridge port leads to (SEMANTICS G-19). Pure, but for what the caller reads of network namespaces.
//!
//! 1. A namespace that the container runtime or the CNI plugin has named is its pod's, whatever is configured in it.
//! 2. A port whose pod is known keeps it, as long as the port, its namespace and the pod's addresses are the same. So a pod that takes
//!    another pod's address later gains nothing.
//! 3. Other namespaces are read. One in which addresses of exactly one pod are configured is that pod's, unless another such namespace has
//!    addresses of the same pod. These go first: then a pod with the privilege to configure another pod's address beside its own only
//!    loses the ambiguity.
//! 4. Of what is left, a namespace is the pod's whose addresses it alone has, if that is one pod.
//!
//! All other ports are unbound. By steps 3 and 4 a pod that has configured *only* the address of another pod leaves both unbound.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_nft::{Mac, PortOwner};
use palisade_policy::ObjectKey;

/// A bridge port that leads to another network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    /// Its index in this namespace.
    pub(super) index: u32,
    /// The kernel's number of the other namespace.
    pub(super) namespace: i32,
    /// The index of its other end, in the other namespace.
    pub(super) peer: u32,
}

/// A pod's addresses, by the pod.
pub(super) type Pods = BTreeMap<ObjectKey, BTreeSet<IpAddr>>;

/// What is read of other network namespaces. `None` if it can't be read, such as for a namespace that is gone.
pub(super) trait Namespaces {
    /// Returns the addresses of all interfaces of a namespace.
    fn addresses(&mut self, namespace: i32) -> Option<BTreeSet<IpAddr>>;

    /// Returns the hardware address of the other end of a port.
    fn hardware(&mut self, port: &Port) -> Option<Mac>;
}

/// The pods of the ports, so far.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    bound: BTreeMap<u32, Bound>,
}

#[derive(Clone, Debug)]
struct Bound {
    namespace: i32,
    pod: ObjectKey,
    owner: PortOwner,
}

impl Bindings {
    /// Updates the bindings. `named` has the namespaces of rule 1. Reads only namespaces of ports that are not bound.
    pub(super) fn update(
        &mut self,
        ports: &[Port],
        pods: &Pods,
        named: &BTreeMap<i32, (ObjectKey, BTreeSet<IpAddr>)>,
        read: &mut impl Namespaces,
    ) {
        let stays = |index: &u32, bound: &Bound| {
            ports.iter().any(|port| port.index == *index && port.namespace == bound.namespace)
                && match named.get(&bound.namespace) {
                    Some((pod, addresses)) => *pod == bound.pod && *addresses == bound.owner.addresses,
                    None => pods.get(&bound.pod) == Some(&bound.owner.addresses),
                }
        };
        self.bound.retain(|index, bound| stays(index, bound));
        let mut found: BTreeMap<i32, (ObjectKey, BTreeSet<IpAddr>)> = BTreeMap::new();
        for bound in self.bound.values() {
            found.insert(bound.namespace, (bound.pod.clone(), bound.owner.addresses.clone()));
        }
        let is_present = |namespace: &i32| ports.iter().any(|port| port.namespace == *namespace);
        for (namespace, pod) in named.iter().filter(|(namespace, _)| is_present(namespace)) {
            found.insert(*namespace, pod.clone());
        }
        // What rule 1 settles is no other port's.
        let settled: BTreeSet<&ObjectKey> = named.values().map(|(pod, _)| pod).collect();
        found.retain(|namespace, (pod, _)| named.contains_key(namespace) || !settled.contains(pod));
        let taken: BTreeSet<ObjectKey> = found.values().map(|(pod, _)| pod.clone()).collect();
        let unread: BTreeSet<i32> =
            ports.iter().map(|port| port.namespace).filter(|n| !found.contains_key(n)).collect();
        let claims = claims(&unread, pods, &taken, read);
        for (namespace, pod) in resolve(claims) {
            if let Some(addresses) = pods.get(&pod) {
                found.insert(namespace, (pod, addresses.clone()));
            }
        }
        self.bound.retain(|_, bound| found.get(&bound.namespace).is_some_and(|(pod, _)| *pod == bound.pod));
        self.bind(ports, &found, read);
    }

    /// Forgets ports that were removed, so that another with the same index is not taken for it.
    pub(super) fn forget(&mut self, ports: &BTreeSet<u32>) {
        self.bound.retain(|index, _| !ports.contains(index));
    }

    /// Binds the ports of namespaces whose pods are found, and reads their hardware addresses where they are not known.
    fn bind(
        &mut self,
        ports: &[Port],
        found: &BTreeMap<i32, (ObjectKey, BTreeSet<IpAddr>)>,
        read: &mut impl Namespaces,
    ) {
        let mut new: BTreeMap<Mac, Vec<u32>> = BTreeMap::new();
        for port in ports {
            let Some((pod, addresses)) = found.get(&port.namespace) else { continue };
            let bound = self.bound.entry(port.index).or_insert_with(|| Bound {
                namespace: port.namespace,
                pod: pod.clone(),
                owner: PortOwner { addresses: addresses.clone(), hardware: None },
            });
            if bound.owner.hardware.is_none()
                && let Some(mac) = read.hardware(port)
            {
                new.entry(mac).or_default().push(port.index);
            }
        }
        // The first port keeps a hardware address. Of several at once, none gets it.
        let known: BTreeSet<Mac> = self.bound.values().filter_map(|bound| bound.owner.hardware).collect();
        for (mac, indexes) in new {
            if let ([index], false) = (&indexes[..], known.contains(&mac))
                && let Some(bound) = self.bound.get_mut(index)
            {
                bound.owner.hardware = Some(mac);
            }
        }
    }

    /// Returns the pod of each bound port, as its frames show it.
    pub(super) fn owners(&self) -> BTreeMap<u32, PortOwner> {
        self.bound.iter().map(|(index, bound)| (*index, bound.owner.clone())).collect()
    }

    /// Returns the name of the pod of a bound port.
    pub(super) fn pod(&self, index: u32) -> Option<&ObjectKey> {
        self.bound.get(&index).map(|bound| &bound.pod)
    }
}

/// Reads of which pods addresses are configured in these namespaces, without the pods that others are bound to.
fn claims(
    namespaces: &BTreeSet<i32>,
    pods: &Pods,
    taken: &BTreeSet<ObjectKey>,
    read: &mut impl Namespaces,
) -> BTreeMap<i32, BTreeSet<ObjectKey>> {
    if namespaces.is_empty() {
        return BTreeMap::new();
    }
    let owners: BTreeMap<IpAddr, &ObjectKey> =
        pods.iter().flat_map(|(pod, addresses)| addresses.iter().map(move |a| (*a, pod))).collect();
    let of = |addresses: BTreeSet<IpAddr>| {
        let pods = addresses.iter().filter_map(|address| owners.get(address).copied());
        pods.filter(|pod| !taken.contains(*pod)).cloned().collect()
    };
    namespaces.iter().filter_map(|namespace| Some((*namespace, of(read.addresses(*namespace)?)))).collect()
}

/// Rules 3 and 4.
fn resolve(mut claims: BTreeMap<i32, BTreeSet<ObjectKey>>) -> Vec<(i32, ObjectKey)> {
    let single = |pods: &BTreeSet<ObjectKey>| match pods.len() {
        1 => pods.first().cloned(),
        _ => None,
    };
    let mut claimants: BTreeMap<ObjectKey, Vec<i32>> = BTreeMap::new();
    for (namespace, pods) in &claims {
        if let Some(pod) = single(pods) {
            claimants.entry(pod).or_default().push(*namespace);
        }
    }
    let mut out = Vec::new();
    for (pod, namespaces) in &claimants {
        if let [namespace] = namespaces[..] {
            out.push((namespace, pod.clone()));
        }
        // Even if the pod then stays without a port: configuring more addresses is no better claim.
        namespaces.iter().for_each(|namespace| drop(claims.remove(namespace)));
    }
    for pods in claims.values_mut() {
        pods.retain(|pod| !claimants.contains_key(pod));
    }
    let mut left: BTreeMap<ObjectKey, usize> = BTreeMap::new();
    claims.values().flatten().for_each(|pod| *left.entry(pod.clone()).or_default() += 1);
    let alone = claims.iter().filter_map(|(namespace, pods)| Some((*namespace, single(pods)?)));
    out.extend(alone.filter(|(_, pod)| left.get(pod) == Some(&1)));
    out
}

#[cfg(test)]
mod tests;

//! Pods that are made to stand for sets of pods that may exist.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use palisade_policy::{
    Cluster, ContainerPort, Endpoint, Family, IpRange, LabelSet, LabelValues, Labels, NAMESPACE_NAME_LABEL,
    Name, Namespace, ObjectKey, Pod, Protocol,
    address::{from_number, union},
};

use super::FuturePod;
use crate::{
    exposure::PodSet,
    hypothetical::{NO_NAME, unknown_pod},
};

/// Where pods may get their addresses, if nothing says so: private ranges, from which networks of clusters are made.
const PRIVATE: [(&str, &str); 5] = [
    ("10.0.0.0", "10.255.255.255"),
    ("100.64.0.0", "100.127.255.255"),
    ("172.16.0.0", "172.31.255.255"),
    ("192.168.0.0", "192.168.255.255"),
    ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
];

/// Addresses that no network uses (RFC 1112, RFC 6666), with which made pods are told apart.
const PLACEHOLDERS: [(Family, u128); 2] = [(Family::V4, 0xF000_0000), (Family::V6, 0x0100_u128 << 112)];

/// Returns the addresses that pods may have: the ranges of pods; or those of the pods that exist; or private ones.
pub(super) fn pod_ranges(cluster: &Cluster) -> Vec<IpRange> {
    let known =
        Family::BOTH.into_iter().filter(|family| cluster.addressing.has(*family)).flat_map(|family| {
            let of_family = |range: &IpRange| Family::of(range.first) == family;
            let declared: Vec<IpRange> =
                cluster.addressing.pod_ranges.iter().copied().filter(of_family).collect();
            if !declared.is_empty() {
                return declared;
            }
            let pods = cluster.pods.values().flat_map(|pod| &pod.addresses);
            let possible =
                pods.filter_map(|address| cluster.addressing.possible(*address)).flat_map(|p| p.iter());
            let possible = union(possible.copied().filter(of_family).collect());
            if !possible.is_empty() {
                return possible;
            }
            let private = PRIVATE.iter().filter_map(|(first, last)| {
                Some(IpRange { first: first.parse().ok()?, last: last.parse().ok()? })
            });
            private.filter(of_family).collect()
        });
    union(known.collect())
}

/// The pods that were made.
pub(super) struct Witnesses {
    cluster: Option<Cluster>,
    ranges: Vec<IpRange>,
    used: HashSet<IpAddr>,
    new_namespaces: HashSet<Name>,
    made: BTreeMap<ObjectKey, FuturePod>,
}

impl Witnesses {
    pub(super) fn none() -> Self {
        Self {
            cluster: None,
            ranges: Vec::new(),
            used: HashSet::new(),
            new_namespaces: HashSet::new(),
            made: BTreeMap::new(),
        }
    }

    pub(super) fn new(cluster: &Cluster) -> Self {
        let pods = cluster.pods.values().flat_map(|pod| pod.addresses.iter().copied());
        let nodes = cluster.nodes.values().flat_map(|node| node.addresses.iter().copied());
        let used = pods.chain(nodes).collect();
        Self { cluster: Some(cluster.clone()), ranges: pod_ranges(cluster), used, ..Self::none() }
    }

    /// Returns the cluster with the pods, and the pods.
    pub(super) fn into_cluster(mut self) -> (Cluster, Self) {
        (self.cluster.take().unwrap_or_default(), self)
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&FuturePod> {
        self.made.get(key)
    }

    /// Makes a pod of a set, with these ports, and returns an endpoint for each family. `None` if no such pod can be made
    /// beside those that were made.
    pub(super) fn make(&mut self, set: &PodSet, ports: &[(Name, Protocol, u16)]) -> Option<Vec<Endpoint>> {
        let cluster = self.cluster.as_mut()?;
        let (namespace, is_new) = home(cluster, &self.new_namespaces, &set.namespaces)?;
        let ports: Arc<[ContainerPort]> = ports
            .iter()
            .map(|(name, protocol, port)| ContainerPort {
                name: Some(name.clone()),
                protocol: *protocol,
                port: *port,
                host_port: None,
            })
            .collect();
        let key = ObjectKey::new(namespace.name.clone(), format!("{NO_NAME}{}", self.made.len()));
        let mut pod = Pod {
            key: key.clone(),
            ports,
            ..unknown_pod(namespace.name.clone(), labels(&set.pods), Vec::new())
        };
        let allowed = set.addresses.as_ref().unwrap_or(&self.ranges);
        for (family, base) in PLACEHOLDERS {
            let own: Vec<IpRange> =
                allowed.iter().copied().filter(|r| Family::of(r.first) == family).collect();
            if own.is_empty() || !cluster.addressing.has(family) {
                continue;
            }
            let free = (base..).map(|number| from_number(family, number)).find(|a| !self.used.contains(a));
            let Some(address) = free else { continue };
            self.used.insert(address);
            cluster.addressing.add_placeholder(address, own.into());
            pod.addresses.push(address);
        }
        let ends = pod.addresses.iter().map(|a| Endpoint::Pod { key: key.clone(), address: *a }).collect();
        if is_new {
            self.new_namespaces.insert(namespace.name.clone());
            cluster.namespaces.insert(namespace.name.clone(), namespace.clone());
        }
        cluster.pods.insert(pod.clone());
        let namespace = is_new.then_some(namespace);
        self.made.insert(key, FuturePod { pod, namespace, set: set.clone() });
        Some(ends)
    }
}

/// Returns a namespace whose labels fit, and whether it doesn't exist; preferably one that exists.
fn home(cluster: &Cluster, made: &HashSet<Name>, set: &LabelSet) -> Option<(Namespace, bool)> {
    let fitting = || cluster.namespaces.values().filter(|n| set.contains(&n.labels));
    if let Some(known) = fitting().find(|n| !made.contains(&n.name)).or_else(|| fitting().next()) {
        return Some((known.clone(), made.contains(&known.name)));
    }
    let name: Name = match set.get(NAMESPACE_NAME_LABEL) {
        Some(LabelValues::OneOf(names)) => {
            names.iter().find(|name| !cluster.namespaces.contains_key(*name))?.clone()
        }
        _ => format!("{NO_NAME}{}", cluster.namespaces.len()).into(),
    };
    let namespace = Namespace::new(name, &labels(&set.without(NAMESPACE_NAME_LABEL)));
    set.contains(&namespace.labels).then_some((namespace, true))
}

/// Returns the fewest labels of a set.
fn labels(set: &LabelSet) -> Labels {
    let needed = set.iter().filter_map(|(key, values)| match values {
        LabelValues::OneOf(values) => Some((key.clone(), values.first()?.clone())),
        LabelValues::NoneOf { values, absent: false } => {
            let candidates = std::iter::once("other".to_owned()).chain((2..).map(|n| format!("other{n}")));
            let mut free = candidates.filter(|value| !values.contains(value.as_str()));
            Some((key.clone(), free.next()?.into()))
        }
        LabelValues::NoneOf { .. } | LabelValues::Absent => None,
    });
    needed.collect()
}

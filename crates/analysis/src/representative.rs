//! From ends of answers back to addresses that questions can be asked about.

use std::{cell::RefCell, collections::HashMap, net::IpAddr};

use palisade_policy::{
    Cluster, Direction, Endpoint as At, Family, Name, NamespaceMatch, ObjectKey, Pod, Pods, Traffic,
    walk::{Walk, walk},
};

use crate::{Endpoint, reach::owners};

/// Finds addresses that stand for ends. Costs the addresses of the cluster to make, and next to nothing to ask.
pub(crate) struct Representatives<'c> {
    cluster: &'c Cluster,
    owners: HashMap<IpAddr, &'c Pod>,
    /// For subjects in a namespace: the cluster without pods, and without the policies that select nothing there.
    reduced: RefCell<HashMap<Name, Cluster>>,
}

impl<'c> Representatives<'c> {
    pub(crate) fn new(cluster: &'c Cluster) -> Self {
        Self { cluster, owners: owners(cluster), reduced: RefCell::default() }
    }

    /// Walks through the tiers as [`walk`] does, past no policies but those of the subject's namespace and the
    /// cluster-wide ones: `O(those)` instead of `O(policies)`.
    pub(crate) fn walk(&self, source: &At, target: &At, direction: Direction, asked: &Traffic) -> Walk {
        let subject = if direction == Direction::Egress { source } else { target };
        let namespace = match subject {
            At::Pod { key, .. } => key.namespace.clone(),
            At::Node { .. } | At::External(_) => Name::default(),
        };
        let mut reduced = self.reduced.borrow_mut();
        let world = reduced.entry(namespace.clone()).or_insert_with(|| self.reduce(&namespace));
        let ends = [source, target].into_iter().filter_map(|at| match at {
            At::Pod { key, .. } => self.cluster.pods.get(key),
            At::Node { .. } | At::External(_) => None,
        });
        world.pods = ends.cloned().collect();
        walk(world, source, target, false, direction, asked)
    }

    fn reduce(&self, namespace: &Name) -> Cluster {
        let policies = self.cluster.policies.iter().filter(|(_, policy)| match &policy.subject.namespaces {
            NamespaceMatch::Named(name) => name == namespace,
            NamespaceMatch::Selected(_) => true,
        });
        Cluster {
            namespaces: self.cluster.namespaces.clone(),
            nodes: self.cluster.nodes.clone(),
            policies: policies.map(|(key, policy)| (key.clone(), policy.clone())).collect(),
            pods: Pods::default(),
            ..Cluster::default()
        }
    }

    /// Two addresses of a family, one of each end, between which a connection is what the pair of ends stands for:
    /// of different pods, and a pod on a node if and only if that is meant. `None` if there are none such.
    pub(crate) fn pair(&self, from: &Endpoint, to: &Endpoint, family: Family) -> Option<(At, At)> {
        let (sources, targets) = (self.of(from, family), self.of(to, family));
        let own = matches!(from, Endpoint::OwnNode(_));
        // Ends are alike in all their members: one of the first pairs will do, unless placement is in the way.
        sources.iter().find_map(|source| {
            let fits = |target: &&At| match (source, *target) {
                (At::Pod { key: a, .. }, At::Pod { key: b, .. }) => a != b,
                (At::Node { name, .. }, At::Pod { key, .. }) => self.is_on(key, name) == own,
                _ => true,
            };
            Some((source.clone(), targets.iter().find(fits)?.clone()))
        })
    }

    fn is_on(&self, pod: &ObjectKey, node: &Name) -> bool {
        self.cluster.pods.get(pod).is_some_and(|p| p.node.as_ref() == Some(node))
    }

    fn of(&self, end: &Endpoint, family: Family) -> Vec<At> {
        let pod = |namespace: &Name, name: &Name| {
            let key = ObjectKey { namespace: namespace.clone(), name: name.clone() };
            let pod = self.cluster.pods.get(&key).filter(|p| p.is_live())?;
            let owned = |a: &&IpAddr| self.owners.get(*a).is_some_and(|o| o.key == key);
            let address = pod.addresses.iter().filter(|a| Family::of(**a) == family).find(owned)?;
            Some(At::Pod { address: *address, key })
        };
        match end {
            Endpoint::Workload(w) => w.pods.iter().filter_map(|p| pod(&w.namespace, p)).collect(),
            Endpoint::Pod { key, .. } => pod(&key.namespace, &key.name).into_iter().collect(),
            Endpoint::Class(all) => {
                all.iter().flat_map(|w| w.pods.iter().filter_map(|p| pod(&w.namespace, p))).collect()
            }
            // The pods of a namespace differ: none stands for all.
            Endpoint::Namespace(_) => Vec::new(),
            Endpoint::OwnNode(nodes) | Endpoint::Nodes(nodes) => nodes
                .iter()
                .flat_map(|n| n.addresses.iter().map(|a| At::Node { name: n.name.clone(), address: *a }))
                .filter(|at| Family::of(at.address()) == family)
                .collect(),
            Endpoint::External(e) if e.family == family => {
                e.ranges.first().map(|r| At::External(r.first)).into_iter().collect()
            }
            Endpoint::External(_) | Endpoint::IngressController(_) => Vec::new(),
        }
    }
}

//! Finds addresses that represent the ends of answers.

use std::{
    cell::{OnceCell, RefCell},
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use palisade_policy::{
    Cluster, Deciding, Direction, Endpoint, Family, Name, NamespaceMatch, ObjectKey, Peer, Pod, Pods, Policy,
    PolicyKey, Traffic,
    walk::{Walk, walk},
};

use crate::{
    end::{ConnectionEnd, NodeAddresses, WorkloadPods},
    reach::owners,
};

/// Finds addresses that represent ends. The first query costs the addresses of the cluster; later ones are cheap.
pub(crate) struct Representatives<'c> {
    cluster: &'c Cluster,
    owners: OnceCell<HashMap<IpAddr, &'c Pod>>,
    /// Policies by the namespace of their subjects, and policies for several namespaces.
    by_namespace: HashMap<&'c Name, Vec<&'c Arc<Policy>>>,
    cluster_wide: Vec<&'c Arc<Policy>>,
    /// For each subject, a cluster with only the policies that select it.
    reduced_clusters: RefCell<HashMap<ObjectKey, Cluster>>,
}

impl<'c> Representatives<'c> {
    pub(crate) fn new(cluster: &'c Cluster) -> Self {
        let (mut by_namespace, mut cluster_wide): (HashMap<_, Vec<_>>, Vec<_>) = Default::default();
        for policy in cluster.deciding(Deciding::Enforced) {
            match &policy.subject.namespaces {
                NamespaceMatch::Named(name) => by_namespace.entry(name).or_default().push(policy),
                NamespaceMatch::Selected(_) => cluster_wide.push(policy),
            }
        }
        Self {
            cluster,
            owners: OnceCell::new(),
            by_namespace,
            cluster_wide,
            reduced_clusters: RefCell::default(),
        }
    }

    /// Like [`walk`], but only visits the policies that select the subject: `O(those)` instead of `O(policies)`.
    pub(crate) fn walk(
        &self,
        source: &Endpoint,
        target: &Endpoint,
        direction: Direction,
        requested: &Traffic,
    ) -> Walk {
        let subject = if direction == Direction::Egress { source } else { target };
        let mut reduced_clusters = self.reduced_clusters.borrow_mut();
        let mut without_policies = Cluster::default();
        let reduced = match subject {
            Endpoint::Pod { key, .. } => {
                reduced_clusters.entry(key.clone()).or_insert_with(|| self.reduced_cluster(key))
            }
            // Policies only apply to pods.
            Endpoint::Node { .. } | Endpoint::External(_) => &mut without_policies,
        };
        reduced.pods = Pods::default();
        for at in [source, target] {
            match at {
                Endpoint::Pod { key, .. } => {
                    if let Some(pod) = self.cluster.pods.get_shared(key) {
                        reduced.pods.insert(Arc::clone(pod));
                    }
                    if let Some(namespace) = self.cluster.namespaces.get(&key.namespace)
                        && !reduced.namespaces.contains_key(&key.namespace)
                    {
                        reduced.namespaces.insert(namespace.name.clone(), namespace.clone());
                    }
                }
                Endpoint::Node { name, .. } => {
                    if let Some(node) = self.cluster.nodes.get(name)
                        && !reduced.nodes.contains_key(name)
                    {
                        reduced.nodes.insert(name.clone(), node.clone());
                    }
                }
                Endpoint::External(_) => {}
            }
        }
        walk(reduced, source, target, false, direction, requested)
    }

    /// Returns a cluster with only the policies that select a pod.
    fn reduced_cluster(&self, key: &ObjectKey) -> Cluster {
        let Some(pod) = self.cluster.pods.get(key) else { return Cluster::default() };
        let policies: BTreeMap<PolicyKey, Arc<Policy>> =
            self.selecting(pod).map(|policy| (policy.key.clone(), Arc::clone(policy))).collect();
        let rules = policies
            .values()
            .flat_map(|policy| Direction::BOTH.into_iter().filter_map(|direction| policy.rules(direction)))
            .flatten();
        let named = rules
            .flat_map(|rule| rule.peers.iter().flatten())
            .any(|entry| matches!(entry.peer, Peer::DomainName(_)));
        let learned = if named { self.cluster.learned.clone() } else { BTreeMap::new() };
        Cluster { policies, learned, ..Cluster::default() }
    }

    /// Iterates over the policies that select a pod.
    pub(crate) fn selecting(&self, pod: &Pod) -> impl Iterator<Item = &'c Arc<Policy>> {
        let labels = self.cluster.namespaces.get(&pod.key.namespace).map(|n| &n.labels);
        let own = self.by_namespace.get(&pod.key.namespace).into_iter().flatten();
        let all = own.chain(&self.cluster_wide).copied();
        all.filter(move |p| p.subject.matches(&pod.key.namespace, labels, &pod.labels))
    }

    /// Returns whether a peer of a rule matches an endpoint, as [`walk`] has it.
    pub(crate) fn is_peer(&self, peer: &Peer, at: &Endpoint) -> bool {
        match (peer, at) {
            (Peer::Pods(choice), Endpoint::Pod { key, .. }) => {
                let labels = self.cluster.namespaces.get(&key.namespace).map(|n| &n.labels);
                let pod = self.cluster.pods.get(key).filter(|pod| pod.is_running());
                pod.is_some_and(|pod| choice.matches(&key.namespace, labels, &pod.labels))
            }
            (Peer::Block(block), at) => block.contains(at.address()),
            (Peer::DomainName(pattern), at) => self.cluster.is_learned(pattern, at.address()),
            (Peer::Nodes(selector), Endpoint::Node { name, .. }) => {
                self.cluster.nodes.get(name).is_some_and(|node| selector.matches(&node.labels))
            }
            (Peer::Pods(_) | Peer::Nodes(_), _) => false,
        }
    }

    /// Returns an address of each end, such that the connection between them is of the kind that the ends describe:
    /// between different pods, and between a node and a pod on it only if the source is the pod's own node. `None` if
    /// there is no such pair.
    pub(crate) fn pair(
        &self,
        from: &ConnectionEnd,
        to: &ConnectionEnd,
        family: Family,
    ) -> Option<(Endpoint, Endpoint)> {
        let own = matches!(from, ConnectionEnd::OwnNode(_));
        // The members of an end are equivalent, so one of the first pairs is suitable, except for placement.
        self.of(from, family).find_map(|source| {
            let fits = |target: &Endpoint| match (&source, target) {
                (Endpoint::Pod { key: a, .. }, Endpoint::Pod { key: b, .. }) => a != b,
                (Endpoint::Node { name, .. }, Endpoint::Pod { key, .. }) => self.is_on(key, name) == own,
                _ => true,
            };
            let target = self.of(to, family).find(fits)?;
            Some((source, target))
        })
    }

    fn is_on(&self, pod: &ObjectKey, node: &Name) -> bool {
        self.cluster.pods.get(pod).is_some_and(|p| p.node.as_ref() == Some(node))
    }

    /// Iterates over the addresses of an end in a family.
    pub(crate) fn of<'e>(
        &'e self,
        end: &'e ConnectionEnd,
        family: Family,
    ) -> Box<dyn Iterator<Item = Endpoint> + 'e> {
        let pod = move |namespace: &Name, name: &Name| {
            let key = ObjectKey { namespace: namespace.clone(), name: name.clone() };
            let pod = self.cluster.pods.get(&key).filter(|p| p.is_running())?;
            let owned = |a: &&IpAddr| {
                self.owners.get_or_init(|| owners(self.cluster)).get(*a).is_some_and(|o| o.key == key)
            };
            let address = pod.addresses.iter().filter(|a| Family::of(**a) == family).find(owned)?;
            Some(Endpoint::Pod { address: *address, key })
        };
        match end {
            ConnectionEnd::Workload(w) => Box::new(w.pods.iter().filter_map(move |p| pod(&w.namespace, p))),
            ConnectionEnd::Pod { key, .. } => Box::new(pod(&key.namespace, &key.name).into_iter()),
            ConnectionEnd::Class(all) => {
                let of = move |w: &'e WorkloadPods| w.pods.iter().filter_map(move |p| pod(&w.namespace, p));
                Box::new(all.iter().flat_map(of))
            }
            ConnectionEnd::OwnNode(nodes) | ConnectionEnd::Nodes(nodes) => {
                let of = |n: &'e NodeAddresses| {
                    n.addresses.iter().map(|a| Endpoint::Node { name: n.name.clone(), address: *a })
                };
                Box::new(nodes.iter().flat_map(of).filter(move |at| Family::of(at.address()) == family))
            }
            ConnectionEnd::External(e) if e.family == family => {
                Box::new(e.ranges.first().map(|r| Endpoint::External(r.first)).into_iter())
            }
            // No pod can represent a namespace, since its pods differ. The pods of the controller may be unknown.
            ConnectionEnd::Namespace(_)
            | ConnectionEnd::External(_)
            | ConnectionEnd::IngressController(_) => Box::new(std::iter::empty()),
        }
    }
}

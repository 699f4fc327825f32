//! Classes of endpoints that no policy distinguishes, so that a question about thousands of replicas is decided once for
//! each class.
//!
//! Policies see an endpoint in four ways: they select its pod or not, their peers match it or not, their blocks contain its
//! address or not, and port names mean the ports of its pod. Endpoints that are equal in all of them have the same
//! decisions with any other endpoint, except for two relations between the ends themselves: a pod and itself, and a pod and
//! its own node ([`Relation`]).

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use palisade_policy::{
    Cluster, ContainerPort, Direction, DomainPattern, Endpoint, Family, IpBlock, Labels, Name, Node,
    ObjectKey, Peer, Pod, PodMatch, Selector,
};

use crate::{
    numbering::Numbering,
    places::{Place, Places},
    space::AddressSpace,
};

/// How two ends are related, as far as decisions depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Relation {
    /// Not at all.
    Other,
    /// The source is the node of the destination (SEMANTICS A39, G-5).
    OwnNode,
    /// Both are the same pod (SEMANTICS A41).
    Itself,
}

impl Relation {
    /// Returns how two endpoints are related. `O(log pods)`.
    #[must_use]
    pub fn of(cluster: &Cluster, source: &Endpoint, destination: &Endpoint) -> Self {
        match (source, destination) {
            (Endpoint::Pod { key: a, .. }, Endpoint::Pod { key: b, .. }) if a == b => Self::Itself,
            (Endpoint::Node { name, .. }, Endpoint::Pod { key, .. })
                if cluster.pods.get(key).is_some_and(|pod| pod.node.as_ref() == Some(name)) =>
            {
                Self::OwnNode
            }
            _ => Self::Other,
        }
    }
}

/// Identifies a class.
pub type AlikeId = u32;

/// Divides endpoints into classes. Made once for a cluster; classes are numbered as they are found.
pub struct Alike<'c> {
    cluster: &'c Cluster,
    /// The selectors of pods that policies have, each once.
    pods: Vec<PodMatch>,
    /// The selectors of nodes that policies have, each once.
    nodes: Vec<Selector>,
    space: AddressSpace,
    places: Places,
    /// The keys that the selectors of pods refer to.
    keys: HashSet<Name>,
    /// Which selectors match pods with these labels, by namespace.
    matched: HashMap<(Name, Labels), u32>,
    signatures: Numbering<Vec<u32>>,
    all: Numbering<Class>,
}

impl std::fmt::Debug for Alike<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alike").field("classes", &self.all.values().len()).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Class {
    owner: Owner,
    family: Family,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    /// A pod, by the selectors that match it, and its ports.
    Pod(u32, Arc<[ContainerPort]>),
    /// A pod that is not in the cluster, which no policy selects.
    UnknownPod,
    /// A node, by the selectors that match it.
    Node(u32),
    External,
}

impl<'c> Alike<'c> {
    /// Reads the policies of a cluster. `O(n log n)` in their peers.
    #[must_use]
    pub fn new(cluster: &'c Cluster) -> Self {
        let (mut pods, mut nodes) = (Numbering::default(), Numbering::default());
        let mut blocks: Numbering<IpBlock> = Numbering::default();
        let mut domains: Numbering<DomainPattern> = Numbering::default();
        for policy in cluster.policies.values() {
            pods.number(policy.subject.clone());
            let rules = Direction::BOTH.into_iter().filter_map(|d| policy.rules(d)).flatten();
            for entry in rules.flat_map(|rule| rule.peers.iter().flatten()) {
                match &entry.peer {
                    Peer::Pods(choice) => drop(pods.number(choice.clone())),
                    Peer::Nodes(selector) => drop(nodes.number(selector.clone())),
                    Peer::Block(block) => drop(blocks.number(block.clone())),
                    Peer::DomainName(pattern) => drop(domains.number(pattern.clone())),
                }
            }
        }
        let keys = pods.values().iter().flat_map(|c: &PodMatch| c.pods.requirements()).map(|r| r.key.clone());
        let learned = domains.values().iter().map(|pattern| cluster.learned_ranges(pattern));
        Self {
            cluster,
            keys: keys.collect(),
            space: AddressSpace::new(blocks.values().iter().map(IpBlock::ranges).chain(learned)),
            places: Places::default(),
            pods: pods.values().to_vec(),
            nodes: nodes.values().to_vec(),
            matched: HashMap::new(),
            signatures: Numbering::default(),
            all: Numbering::default(),
        }
    }

    /// Returns the class of an endpoint. `O(log pods)` if a pod with the same labels was seen before, as far as selectors
    /// refer to them, else `O(selectors)`.
    pub fn class(&mut self, end: &Endpoint) -> AlikeId {
        let owner = match end {
            Endpoint::Pod { key, .. } => self.pod(key),
            Endpoint::Node { name, .. } => {
                self.cluster.nodes.get(name).map_or(Owner::External, |node| self.node(node))
            }
            Endpoint::External(_) => Owner::External,
        };
        let address = end.address();
        let class = Class { owner, family: Family::of(address), place: self.place(address) };
        self.all.number(class)
    }

    fn place(&mut self, address: IpAddr) -> Place {
        self.places.of(&self.space, &self.cluster.addressing, address)
    }

    fn pod(&mut self, key: &ObjectKey) -> Owner {
        let Some(pod) = self.cluster.pods.get(key).filter(|pod| pod.is_running()) else {
            return Owner::UnknownPod;
        };
        Owner::Pod(self.signature(pod), pod.ports.clone())
    }

    fn signature(&mut self, pod: &Pod) -> u32 {
        let labels = pod.labels.project(|key| self.keys.contains(key));
        let place = (pod.key.namespace.clone(), labels);
        if let Some(known) = self.matched.get(&place) {
            return *known;
        }
        let namespace = self.cluster.namespaces.get(&pod.key.namespace).map(|n| &n.labels);
        let matches = |choice: &PodMatch| choice.matches(&pod.key.namespace, namespace, &pod.labels);
        let signature = indexes(&self.pods, matches);
        let number = self.signatures.number(signature);
        self.matched.insert(place, number);
        number
    }

    fn node(&mut self, node: &Node) -> Owner {
        Owner::Node(self.signatures.number(indexes(&self.nodes, |selector| selector.matches(&node.labels))))
    }
}

fn indexes<T>(all: &[T], matches: impl Fn(&T) -> bool) -> Vec<u32> {
    all.iter().enumerate().filter(|(_, one)| matches(one)).map(|(index, _)| index as u32).collect()
}

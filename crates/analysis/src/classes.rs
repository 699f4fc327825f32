//! Peer classes of a whole cluster: sets of addresses that no policy distinguishes.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use palisade_policy::{
    Addressing, Cluster, Direction, DomainPattern, Family, IpBlock, IpRange, Labels, Name, Namespace,
    NamespaceMatch, Node, Peer, Pod, PodMatch, PortMatch, Protocol, Selector,
};

use crate::{
    hypothetical::{NO_NAME, unheld_address, unknown_pod},
    numbering::Numbering,
    places::{Place, PlaceId, Places},
    space::{AddressSpace, BlockSet},
};

/// Identifies a [`Class`].
pub(crate) type ClassId = u32;
/// Identifies an [`Identity`].
pub(crate) type IdentityId = u32;

/// The properties of a pod that policies refer to, except for its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) namespace: Name,
    /// The labels with keys that some selector refers to.
    pub(crate) labels: Labels,
    /// The named ports that some rule refers to, sorted.
    pub(crate) ports: Vec<(Name, Protocol, u16)>,
}

/// The owner of an address, as far as policies distinguish owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AddressOwner {
    /// A running pod.
    Pod(IdentityId),
    /// A node, by the number of its labels with keys that some node selector refers to.
    Node(u32),
    /// Outside the cluster.
    External(Family),
}

/// Addresses with equivalent owners in the same blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Class {
    pub(crate) owner: AddressOwner,
    pub(crate) place: Place,
}

/// What policies refer to.
#[derive(Default)]
struct Mentions {
    label_keys: HashSet<Name>,
    port_names: HashSet<Name>,
    node_keys: HashSet<Name>,
    blocks: Numbering<IpBlock>,
    domains: Numbering<DomainPattern>,
}

impl Mentions {
    fn of(cluster: &Cluster) -> Self {
        let mut out = Self::default();
        for policy in cluster.policies.values() {
            out.selector(&policy.subject.pods);
            for rule in Direction::BOTH.into_iter().filter_map(|d| policy.rules(d)).flatten() {
                for entry in rule.peers.iter().flatten() {
                    match &entry.peer {
                        Peer::Pods(choice) => out.selector(&choice.pods),
                        Peer::Block(block) => drop(out.blocks.number(block.clone())),
                        Peer::DomainName(pattern) => drop(out.domains.number(pattern.clone())),
                        Peer::Nodes(selector) => {
                            out.node_keys.extend(selector.requirements().iter().map(|r| r.key.clone()));
                        }
                    }
                }
                for entry in rule.ports.iter().flatten() {
                    if let PortMatch::Named { name, .. } = &entry.port {
                        out.port_names.insert(name.clone());
                    }
                }
            }
        }
        out
    }

    fn selector(&mut self, selector: &Selector) {
        for requirement in selector.requirements() {
            if !self.label_keys.contains(&requirement.key) {
                self.label_keys.insert(requirement.key.clone());
            }
        }
    }
}

/// The classes of a cluster. They are created as addresses are classified.
pub(crate) struct Classes {
    mentions: Mentions,
    pub(crate) space: AddressSpace,
    pub(crate) places: Places,
    identities: Numbering<Identity>,
    by_namespace: HashMap<Name, Vec<IdentityId>>,
    all: Numbering<Class>,
    of_identity: Vec<Vec<ClassId>>,
    of_set: HashMap<BlockSet, Vec<ClassId>>,
    node_labels: Numbering<Labels>,
    of_node_labels: Vec<Vec<ClassId>>,
    /// The namespace of the unknown pod, if there is one.
    unknown: Option<Namespace>,
    /// How many blocks and domain names policies have. In the address space, the filter ranges follow them.
    blocks: usize,
}

impl Classes {
    /// Makes an empty set of classes. The address space is divided by the blocks of policies and by `filter_ranges`, so
    /// that no range is partly in a filter range.
    pub(crate) fn new(cluster: &Cluster, filter_ranges: &[Vec<IpRange>]) -> Self {
        let mentions = Mentions::of(cluster);
        let blocks = mentions.blocks.values().len() + mentions.domains.values().len();
        let learned = mentions.domains.values().iter().map(|pattern| cluster.learned_ranges(pattern));
        let cuts = mentions.blocks.values().iter().map(IpBlock::ranges).chain(learned);
        let cuts = cuts.chain(filter_ranges.iter().cloned());
        Self {
            space: AddressSpace::new(cuts),
            places: Places::default(),
            mentions,
            identities: Numbering::default(),
            by_namespace: HashMap::new(),
            all: Numbering::default(),
            of_identity: Vec::new(),
            of_set: HashMap::new(),
            node_labels: Numbering::default(),
            of_node_labels: Vec::new(),
            unknown: None,
            blocks,
        }
    }

    /// Adds a pod that no policy can refer to: without labels, in a namespace with no label except its name, at
    /// addresses in no block, if there are any. Returns it with its namespace and its classes by family.
    pub(crate) fn unknown_pod(&mut self) -> (Pod, Namespace, [ClassId; 2]) {
        let namespace = Namespace::new(NO_NAME, &Labels::default());
        let pod = unknown_pod(namespace.name.clone(), Labels::default(), Vec::new());
        let identity = self.identities.number(Identity {
            namespace: namespace.name.clone(),
            labels: Labels::default(),
            ports: Vec::new(),
        });
        self.of_identity.resize_with(self.identities.values().len(), Vec::new);
        self.by_namespace.entry(namespace.name.clone()).or_default().push(identity);
        self.unknown = Some(namespace.clone());
        let classes = Family::BOTH.map(|family| {
            let set = self.space.set_of(unheld_address(&self.space, family));
            self.class(AddressOwner::Pod(identity), Place::In(set))
        });
        (pod, namespace, classes)
    }

    /// Returns the properties of a pod that policies refer to.
    pub(crate) fn identity(&mut self, pod: &Pod) -> IdentityId {
        let mentions = &self.mentions;
        let named = pod.ports.iter().filter_map(|p| Some((p.name.clone()?, p.protocol, p.port)));
        let mut ports: Vec<_> = named.filter(|(name, ..)| mentions.port_names.contains(name)).collect();
        ports.sort_unstable();
        ports.dedup();
        let labels = pod.labels.project(|key| mentions.label_keys.contains(key));
        let namespace = pod.key.namespace.clone();
        let id = self.identities.number(Identity { namespace: namespace.clone(), labels, ports });
        if id as usize == self.of_identity.len() {
            self.of_identity.push(Vec::new());
            self.by_namespace.entry(namespace).or_default().push(id);
        }
        id
    }

    /// Returns the properties of a node that policies refer to.
    pub(crate) fn node(&mut self, node: &Node) -> AddressOwner {
        let labels = node.labels.project(|key| self.mentions.node_keys.contains(key));
        let number = self.node_labels.number(labels);
        self.of_node_labels.resize_with(self.node_labels.values().len(), Vec::new);
        AddressOwner::Node(number)
    }

    /// Returns the class of an address of an owner.
    pub(crate) fn class_at(&mut self, owner: AddressOwner, addressing: &Addressing, at: IpAddr) -> ClassId {
        let place = self.places.of(&self.space, addressing, at);
        self.class(owner, place)
    }

    /// Returns the class of the addresses of an owner that lie in `place`.
    pub(crate) fn class(&mut self, owner: AddressOwner, place: Place) -> ClassId {
        let before = self.all.values().len();
        let id = self.all.number(Class { owner, place });
        if id as usize == before {
            // The blocks of an unknown address are considered apart from the other peers.
            if let Place::In(set) = place {
                self.of_set.entry(set).or_default().push(id);
            }
            match owner {
                AddressOwner::Pod(identity) => self.of_identity[identity as usize].push(id),
                AddressOwner::Node(labels) => self.of_node_labels[labels as usize].push(id),
                AddressOwner::External(_) => {}
            }
        }
        id
    }

    /// Returns the number of classes.
    pub(crate) fn len(&self) -> usize {
        self.all.values().len()
    }

    /// Returns the classes of unknown addresses with their places, sorted.
    pub(crate) fn unknown_places(&self) -> Vec<(ClassId, PlaceId)> {
        let unknown = |(id, class): (ClassId, &Class)| match class.place {
            Place::In(_) => None,
            Place::OneOf(place) => Some((id, place)),
        };
        (0..).zip(self.all.values()).filter_map(unknown).collect()
    }

    /// Returns the sets of blocks that contain a block of some policy, or the learned addresses of a domain name; none for
    /// another peer.
    pub(crate) fn sets_with(&self, peer: &Peer) -> &[BlockSet] {
        let number = match peer {
            Peer::Block(block) => self.mentions.blocks.find(block).map(|number| number as usize),
            Peer::DomainName(pattern) => {
                let number = self.mentions.domains.find(pattern);
                number.map(|number| self.mentions.blocks.values().len() + number as usize)
            }
            Peer::Pods(_) | Peer::Nodes(_) => None,
        };
        number.map_or(&[], |number| self.space.sets_with(number))
    }

    /// Returns the named ports of a class of pods; none for other classes.
    pub(crate) fn ports(&self, class: ClassId) -> &[(Name, Protocol, u16)] {
        match self.all.get(class).owner {
            AddressOwner::Pod(identity) => &self.identities.get(identity).ports,
            AddressOwner::Node(_) | AddressOwner::External(_) => &[],
        }
    }

    /// Returns the classes that match a peer; for a block, only classes of known addresses.
    pub(crate) fn held_by(&self, peer: &Peer, cluster: &Cluster) -> Vec<ClassId> {
        match peer {
            Peer::Pods(choice) => self.pods(choice, cluster),
            Peer::Block(_) | Peer::DomainName(_) => {
                let of_sets = self.sets_with(peer).iter().filter_map(|set| self.of_set.get(set));
                of_sets.flatten().copied().collect()
            }
            Peer::Nodes(selector) => {
                let nodes = self.node_labels.values().iter().zip(&self.of_node_labels);
                nodes
                    .filter(|(labels, _)| selector.matches(labels))
                    .flat_map(|(_, all)| all)
                    .copied()
                    .collect()
            }
        }
    }

    fn pods(&self, choice: &PodMatch, cluster: &Cluster) -> Vec<ClassId> {
        let in_namespace = |name: &Name, found: &mut Vec<ClassId>| {
            for identity in self.by_namespace.get(name).into_iter().flatten() {
                if choice.pods.matches(&self.identities.get(*identity).labels) {
                    found.extend(&self.of_identity[*identity as usize]);
                }
            }
        };
        let mut found = Vec::new();
        match &choice.namespaces {
            NamespaceMatch::Named(name) => in_namespace(name, &mut found),
            NamespaceMatch::Selected(selector) => {
                let known = cluster.namespaces.values().chain(&self.unknown);
                for namespace in known.filter(|n| selector.matches(&n.labels)) {
                    in_namespace(&namespace.name, &mut found);
                }
            }
        }
        found
    }

    /// Returns the classes of pods that have a port with one of these names.
    pub(crate) fn with_port_names(&self, names: &HashSet<&Name>) -> Vec<ClassId> {
        let has = |identity: &Identity| identity.ports.iter().any(|(name, ..)| names.contains(name));
        let identities = self.identities.values().iter().zip(&self.of_identity);
        identities.filter(|(identity, _)| has(identity)).flat_map(|(_, classes)| classes).copied().collect()
    }

    /// Returns the ranges of a family with the blocks and filter ranges that contain them.
    pub(crate) fn ranges(&self, family: Family) -> Vec<(IpRange, BlockSet)> {
        self.space.ranges(family).collect()
    }

    /// Returns the block sets that are in a filter range.
    pub(crate) fn in_filter_range(&self, filter_range: usize) -> &[BlockSet] {
        self.space.sets_with(self.blocks + filter_range)
    }
}

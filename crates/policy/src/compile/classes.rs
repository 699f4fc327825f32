//! Peer classes: addresses of pods and nodes that no table of this node can distinguish.
//!
//! Two addresses are in one class if their pods have the same namespace, the same labels with keys that some table
//! mentions and the same ports with names that some table mentions, if the same mentioned CIDRs contain them, and if
//! they were learned for names that the same mentioned domain names match. The pods of a workload are almost always in
//! one class, and tables are evaluated once per class. Addresses of nodes have their own classes, and so have learned
//! addresses of neither.
//!
//! Once mentioned, a key, name, CIDR or domain name stays mentioned until the agent restarts: classes that are finer than necessary
//! don't change the plan.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map::Entry},
    marker::PhantomData,
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::{addresses::Holder, learned::Learned, remove_from};
use crate::{
    AddressSet, Cluster, ContainerPort, DomainPattern, Family, IpRange, Labels, Name, PeerSetId, Pod,
    Protocol, address_set::AddressMap,
};

/// Identifies a class within one compiler.
pub(super) type ClassId = u32;

/// Identifies a selection within one compiler. See [`super::selections`].
pub(super) type SelectionId = u32;

/// Who has the addresses of a class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ClassOwner {
    /// Pods of this namespace.
    Pods(Name),
    Nodes,
    /// No pod or node: the addresses were learned for names.
    Outside,
}

impl ClassOwner {
    /// Returns the namespace of the pods.
    pub(super) fn namespace(&self) -> Option<&Name> {
        match self {
            Self::Pods(namespace) => Some(namespace),
            Self::Nodes | Self::Outside => None,
        }
    }
}

/// What the members of a class have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClassKey {
    pub(super) owner: ClassOwner,
    pub(super) labels: Labels,
    pub(super) ports: Vec<(Name, Protocol, u16)>,
    /// The mentioned CIDRs that contain the members, sorted.
    pub(super) nets: Vec<IpNet>,
    /// The mentioned domain names that match a name for which the members were learned, sorted.
    pub(super) domains: Vec<DomainPattern>,
}

/// A class.
#[derive(Clone, Debug)]
pub(super) struct Class {
    pub(super) key: ClassKey,
    pub(super) members: AddressSet,
    /// The peer sets that contain all its members.
    pub(super) sets: BTreeSet<PeerSetId>,
    /// The selections that match it.
    pub(super) selections: BTreeSet<SelectionId>,
}

/// A cache of the classes of pods in one update, by the addresses of shared allocations: pods of one workload find
/// their class without comparing labels. Valid as long as nothing new is mentioned and the pods stay.
#[derive(Default)]
pub(super) struct KnownClasses<'c> {
    by_place: HashMap<(Place, Mentions), ClassId>,
    pods: PhantomData<&'c Pod>,
}

/// The allocations of the namespace, the labels and the ports of a pod.
type Place = (*const u8, *const (), *const ContainerPort);

/// The mentioned CIDRs and domain names of an address.
type Mentions = (Vec<IpNet>, Vec<DomainPattern>);

impl<'c> KnownClasses<'c> {
    fn get(&mut self, pod: &'c Pod, mentions: Mentions, find: impl FnOnce(Mentions) -> ClassId) -> ClassId {
        let place =
            (Arc::as_ptr(&pod.key.namespace).cast(), pod.labels.place(), Arc::as_ptr(&pod.ports).cast());
        match self.by_place.entry((place, mentions)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let mentions = new.key().1.clone();
                *new.insert(find(mentions))
            }
        }
    }
}

/// All classes, and what tables mention.
#[derive(Clone, Debug, Default)]
pub(super) struct Classes {
    all: HashMap<ClassId, Class>,
    by_key: HashMap<ClassKey, ClassId>,
    by_owner: BTreeMap<ClassOwner, BTreeSet<ClassId>>,
    by_port_name: BTreeMap<Name, BTreeSet<ClassId>>,
    by_domain: BTreeMap<DomainPattern, BTreeSet<ClassId>>,
    of: AddressMap<ClassId>,
    next: ClassId,
    mentioned: Mentioned,
    /// Mentions for which the existing addresses have not been checked.
    outdated: Mentioned,
    /// Classes added or emptied since they were last taken.
    touched: BTreeSet<ClassId>,
}

/// Label keys, port names, CIDRs and domain names that tables mention.
#[derive(Clone, Debug, Default)]
struct Mentioned {
    label_keys: HashSet<Name>,
    port_names: HashSet<Name>,
    /// By family and prefix length, so that finding the CIDRs of an address costs one lookup per length in use.
    nets: BTreeMap<(Family, u8), HashSet<IpNet>>,
    domains: HashSet<DomainPattern>,
}

impl Mentioned {
    fn insert_net(&mut self, net: IpNet) -> bool {
        self.nets.entry((Family::of_net(&net), net.prefix_len())).or_default().insert(net)
    }

    fn nets_of(&self, address: IpAddr) -> Vec<IpNet> {
        let family = Family::of(address);
        let mut found: Vec<IpNet> = self
            .nets
            .range((family, 0)..=(family, u8::MAX))
            .filter_map(|((_, length), nets)| {
                let net = IpNet::new(address, *length).ok()?.trunc();
                nets.contains(&net).then_some(net)
            })
            .collect();
        found.sort_unstable();
        found
    }

    /// Returns the domain names that match a name for which an address was learned, sorted.
    fn domains_of(&self, address: IpAddr, learned: &Learned) -> Vec<DomainPattern> {
        if self.domains.is_empty() {
            return Vec::new();
        }
        let patterns = learned.names(address).iter().flat_map(crate::DomainName::patterns);
        let mut found: Vec<DomainPattern> = patterns.filter(|p| self.domains.contains(p)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    fn is_empty(&self) -> bool {
        self.label_keys.is_empty()
            && self.port_names.is_empty()
            && self.nets.is_empty()
            && self.domains.is_empty()
    }
}

impl Classes {
    pub(super) fn get(&self, id: ClassId) -> Option<&Class> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ClassId) -> Option<&mut Class> {
        self.all.get_mut(&id)
    }

    pub(super) fn in_namespace(&self, namespace: &Name) -> impl Iterator<Item = ClassId> {
        self.by_owner.get(&ClassOwner::Pods(namespace.clone())).into_iter().flatten().copied()
    }

    /// Returns the class of an address.
    pub(super) fn of(&self, address: IpAddr) -> Option<ClassId> {
        self.of.get(&address).copied()
    }

    /// Iterates over the classes of nodes.
    pub(super) fn of_nodes(&self) -> impl Iterator<Item = ClassId> {
        self.by_owner.get(&ClassOwner::Nodes).into_iter().flatten().copied()
    }

    /// Iterates over the namespaces that have classes, each with its classes.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = (&Name, &BTreeSet<ClassId>)> {
        self.by_owner.iter().filter_map(|(owner, ids)| Some((owner.namespace()?, ids)))
    }

    /// Iterates over the classes whose pods have a port with this name.
    pub(super) fn with_port_name(&self, name: &Name) -> impl Iterator<Item = ClassId> {
        self.by_port_name.get(name).into_iter().flatten().copied()
    }

    /// Iterates over the classes whose addresses were learned for names that a pattern matches.
    pub(super) fn learned_for(&self, pattern: &DomainPattern) -> impl Iterator<Item = ClassId> {
        self.by_domain.get(pattern).into_iter().flatten().copied()
    }

    pub(super) fn mention_domain(&mut self, pattern: &DomainPattern) {
        if self.mentioned.domains.insert(pattern.clone()) {
            self.outdated.domains.insert(pattern.clone());
        }
    }

    pub(super) fn mention_label_key(&mut self, key: &Name) {
        if self.mentioned.label_keys.insert(key.clone()) {
            self.outdated.label_keys.insert(key.clone());
        }
    }

    pub(super) fn mention_port_name(&mut self, name: &Name) {
        if self.mentioned.port_names.insert(name.clone()) {
            self.outdated.port_names.insert(name.clone());
        }
    }

    pub(super) fn mention_net(&mut self, net: IpNet) {
        if self.mentioned.insert_net(net) {
            self.outdated.insert_net(net);
        }
    }

    /// Returns the addresses that new mentions may distinguish from others of their class.
    ///
    /// The cost of a CIDR is its own pods, that of a domain name one comparison for each learned name. A label key or port name that was never mentioned before costs a pass over
    /// all pods. That happens once per key and process, and an index from every key to its pods would use memory
    /// permanently.
    pub(super) fn take_outdated(&mut self, cluster: &Cluster) -> BTreeSet<IpAddr> {
        let new = std::mem::take(&mut self.outdated);
        let mut found = BTreeSet::new();
        if new.is_empty() {
            return found;
        }
        if !new.domains.is_empty() {
            let is_new = |name: &crate::DomainName| name.patterns().any(|p| new.domains.contains(&p));
            let concerned = cluster.learned.values().filter(|learned| is_new(&learned.name));
            found.extend(concerned.flat_map(|learned| learned.addresses.iter()));
        }
        if self.of.is_empty() {
            return found;
        }
        for net in new.nets.values().flatten() {
            found.extend(self.of.keys_in(IpRange::of_net(net)));
        }
        if !new.label_keys.is_empty() || !new.port_names.is_empty() {
            let is_named = |name: &Option<Name>| name.as_ref().is_some_and(|n| new.port_names.contains(n));
            let concerned = cluster.pods.values().filter(|pod| {
                pod.labels.iter().any(|(key, _)| new.label_keys.contains(key))
                    || pod.ports.iter().any(|port| is_named(&port.name))
            });
            found.extend(concerned.filter(|p| p.is_running()).flat_map(|p| p.addresses.iter().copied()));
            let nodes = cluster.nodes.values();
            let concerned = nodes.filter(|n| n.labels.iter().any(|(key, _)| new.label_keys.contains(key)));
            found.extend(concerned.flat_map(|node| node.addresses.iter().copied()));
        }
        found
    }

    /// Moves an address to the class of its owner, or to none. `moved` receives the peer sets that it leaves (`false`),
    /// then those that it joins (`true`). `known` is the cache for this update. Without an owner, an address has a class
    /// if it was learned for a name that matters.
    pub(super) fn update<'c>(
        &mut self,
        address: IpAddr,
        holder: Option<Holder<'c>>,
        learned: &Learned,
        known: &mut KnownClasses<'c>,
        mut moved: impl FnMut(&BTreeSet<PeerSetId>, bool),
    ) {
        let domains = self.mentioned.domains_of(address, learned);
        let has_class = holder.is_some() || !domains.is_empty();
        let target = has_class.then(|| {
            let nets = self.mentioned.nets_of(address);
            let without_pod =
                |owner, labels, nets, domains| ClassKey { owner, labels, ports: Vec::new(), nets, domains };
            match holder {
                Some(Holder::Pod(pod)) => {
                    known.get(pod, (nets, domains), |mentions| self.id_for(self.key_for(pod, mentions)))
                }
                Some(Holder::Node(node)) => {
                    let labels = self.projected(&node.labels);
                    self.id_for(without_pod(ClassOwner::Nodes, labels, nets, domains))
                }
                None => self.id_for(without_pod(ClassOwner::Outside, Labels::default(), nets, domains)),
            }
        });
        let current = self.of.get(&address).copied();
        if current == target {
            return;
        }
        if let Some(class) = current.and_then(|id| self.all.get_mut(&id)) {
            class.members.remove(&address);
            moved(&class.sets, false);
            if class.members.is_empty() {
                self.touched.extend(current);
            }
        }
        match target {
            Some(id) => {
                self.of.insert(address, id);
                if let Some(class) = self.all.get_mut(&id) {
                    class.members.insert(address);
                    moved(&class.sets, true);
                }
            }
            None => drop(self.of.remove(&address)),
        }
    }

    /// Returns the classes added or emptied since the last call.
    pub(super) fn take_touched(&mut self) -> BTreeSet<ClassId> {
        std::mem::take(&mut self.touched)
    }

    /// Removes a class without members.
    pub(super) fn remove(&mut self, id: ClassId) {
        let Some(class) = self.all.remove(&id) else { return };
        self.by_key.remove(&class.key);
        remove_from(&mut self.by_owner, &class.key.owner, &id);
        for pattern in &class.key.domains {
            remove_from(&mut self.by_domain, pattern, &id);
        }
        for (name, ..) in &class.key.ports {
            remove_from(&mut self.by_port_name, name, &id);
        }
    }

    fn key_for(&self, pod: &Pod, (nets, domains): Mentions) -> ClassKey {
        let mut ports: Vec<_> = pod
            .ports
            .iter()
            .filter_map(|port| Some((port.name.clone()?, port.protocol, port.port)))
            .filter(|(name, ..)| self.mentioned.port_names.contains(name))
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ClassKey {
            owner: ClassOwner::Pods(pod.key.namespace.clone()),
            labels: self.projected(&pod.labels),
            ports,
            nets,
            domains,
        }
    }

    fn projected(&self, labels: &Labels) -> Labels {
        labels.project(|key| self.mentioned.label_keys.contains(key))
    }

    fn id_for(&mut self, key: ClassKey) -> ClassId {
        if let Some(id) = self.by_key.get(&key) {
            return *id;
        }
        let id = self.next;
        self.next += 1;
        self.by_key.insert(key.clone(), id);
        self.by_owner.entry(key.owner.clone()).or_default().insert(id);
        for pattern in &key.domains {
            self.by_domain.entry(pattern.clone()).or_default().insert(id);
        }
        for (name, ..) in &key.ports {
            self.by_port_name.entry(name.clone()).or_default().insert(id);
        }
        let class =
            Class { key, members: AddressSet::default(), sets: BTreeSet::new(), selections: BTreeSet::new() };
        self.all.insert(id, class);
        self.touched.insert(id);
        id
    }
}

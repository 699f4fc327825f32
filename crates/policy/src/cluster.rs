//! The objects that policies depend on: namespaces, pods, nodes, services and policies, as plain values.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use crate::{
    Addressing, AnnotatedSources, Deny, DomainName, DomainPattern, IpRange, Labels, LearnedName, Mode, Name,
    ObjectKey, Pod, Pods, Policy, PolicyKey, Service, address::union,
};

/// The label of every namespace whose value is the namespace's name (SEMANTICS A13).
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// The name.
    pub name: Name,
    /// The labels. The caller adds [`NAMESPACE_NAME_LABEL`], as the API server does.
    pub labels: Labels,
    /// What happens to packets that policies of its pods deny, if its annotation [`crate::DENY_KEY`] says so.
    pub deny: Option<Deny>,
    /// Within which networks its pods may set sources, by [`crate::ALLOW_SOURCE_WITHIN_KEY`].
    pub allow_source_within: AnnotatedSources,
}

impl Namespace {
    /// Makes a namespace with `labels` and the name label.
    #[must_use]
    pub fn new(name: impl Into<Name>, labels: &Labels) -> Self {
        let name = name.into();
        Self {
            labels: labels.with(NAMESPACE_NAME_LABEL, &name),
            name,
            deny: None,
            allow_source_within: AnnotatedSources::default(),
        }
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The name.
    pub name: Name,
    /// The labels.
    pub labels: Labels,
    /// Every entry of `status.addresses` that is an IP address (G-18).
    pub addresses: Vec<IpAddr>,
    /// The ranges of the addresses of its pods (`spec.podCIDRs`). They affect no decision, and not every network uses them.
    pub pod_cidrs: Vec<IpNet>,
}

/// A snapshot of a cluster. Two clusters are equal if all their objects are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Namespaces by name.
    pub namespaces: BTreeMap<Name, Namespace>,
    /// Pods by namespace and name.
    pub pods: Pods,
    /// Nodes by name.
    pub nodes: BTreeMap<Name, Node>,
    /// Services by namespace and name.
    pub services: BTreeMap<ObjectKey, Service>,
    /// Policies of every kind.
    pub policies: BTreeMap<PolicyKey, std::sync::Arc<Policy>>,
    /// The addresses that were learned for names. No object of the API has them.
    pub learned: BTreeMap<DomainName, LearnedName>,
    /// The IP families, and what is known about addresses that no object reports.
    pub addressing: Addressing,
    /// The mode of policies for which neither an annotation nor the label of their namespace sets one.
    pub mode: Mode,
    /// What happens to packets that policies of pods deny whose namespace does not say so.
    pub deny: Deny,
}

/// One edit of a [`Cluster`]. Setting an object replaces the one with the same key. Removing an unknown object does
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A namespace was added, or its labels changed.
    SetNamespace(Namespace),
    /// A namespace was deleted.
    RemoveNamespace(Name),
    /// A pod was added or changed.
    SetPod(Pod),
    /// A pod was deleted.
    RemovePod(ObjectKey),
    /// A node was added or changed.
    SetNode(Node),
    /// A node was deleted.
    RemoveNode(Name),
    /// A service was added or changed.
    SetService(Service),
    /// A service was deleted.
    RemoveService(ObjectKey),
    /// A policy was added or changed.
    SetPolicy(std::sync::Arc<Policy>),
    /// A policy was deleted.
    RemovePolicy(PolicyKey),
    /// Addresses were learned for a name, or expired. Replaces those that were known.
    SetLearned(LearnedName),
    /// Nothing is known about a name any more.
    RemoveLearned(DomainName),
}

impl Cluster {
    /// Returns what happens to packets that the policies of pods of a namespace deny. `O(log namespaces)`.
    #[must_use]
    pub fn deny_of(&self, namespace: &Name) -> Deny {
        self.namespaces.get(namespace).and_then(|namespace| namespace.deny).unwrap_or(self.deny)
    }

    /// Applies one change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::SetNamespace(n) => drop(self.namespaces.insert(n.name.clone(), n)),
            Change::RemoveNamespace(name) => drop(self.namespaces.remove(&name)),
            Change::SetPod(p) => drop(self.pods.insert(p)),
            Change::RemovePod(key) => drop(self.pods.remove(&key)),
            Change::SetNode(n) => drop(self.nodes.insert(n.name.clone(), n)),
            Change::RemoveNode(name) => drop(self.nodes.remove(&name)),
            Change::SetService(s) => drop(self.services.insert(s.key.clone(), s)),
            Change::RemoveService(key) => drop(self.services.remove(&key)),
            Change::SetPolicy(p) => drop(self.policies.insert(p.key.clone(), p)),
            Change::RemovePolicy(key) => drop(self.policies.remove(&key)),
            Change::SetLearned(l) => drop(self.learned.insert(l.name.clone(), l)),
            Change::RemoveLearned(name) => drop(self.learned.remove(&name)),
        }
    }

    /// Returns the changes that build this cluster from an empty one: namespaces, nodes, pods, services, policies,
    /// learned names.
    pub fn into_changes(self) -> impl Iterator<Item = Change> {
        let namespaces = self.namespaces.into_values().map(Change::SetNamespace);
        let nodes = self.nodes.into_values().map(Change::SetNode);
        let pods = self.pods.into_values().map(Change::SetPod);
        let services = self.services.into_values().map(Change::SetService);
        let policies = self.policies.into_values().map(Change::SetPolicy);
        let learned = self.learned.into_values().map(Change::SetLearned);
        namespaces.chain(nodes).chain(pods).chain(services).chain(policies).chain(learned)
    }

    /// Returns the changes from `self` to `to`: deletions first, then additions and updates. `O(objects)`: for sources
    /// that deliver whole snapshots, such as a directory, not for watches.
    #[must_use]
    pub fn changes_to(&self, to: &Self) -> Vec<Change> {
        fn diff<K: Ord + Clone, V: PartialEq + Clone>(
            from: &BTreeMap<K, V>,
            to: &BTreeMap<K, V>,
            out: &mut Vec<Change>,
            remove: impl Fn(K) -> Change,
            set: impl Fn(V) -> Change,
        ) {
            out.extend(from.keys().filter(|k| !to.contains_key(*k)).cloned().map(remove));
            out.extend(to.iter().filter(|(k, v)| from.get(*k) != Some(*v)).map(|(_, v)| set(v.clone())));
        }
        let mut out = Vec::new();
        diff(&self.namespaces, &to.namespaces, &mut out, Change::RemoveNamespace, Change::SetNamespace);
        diff(&self.nodes, &to.nodes, &mut out, Change::RemoveNode, Change::SetNode);
        let gone = self.pods.keys().filter(|key| !to.pods.contains_key(key));
        out.extend(gone.cloned().map(Change::RemovePod));
        let set = to.pods.values().filter(|pod| self.pods.get(&pod.key) != Some(*pod));
        out.extend(set.cloned().map(Change::SetPod));
        diff(&self.services, &to.services, &mut out, Change::RemoveService, Change::SetService);
        diff(&self.policies, &to.policies, &mut out, Change::RemovePolicy, Change::SetPolicy);
        diff(&self.learned, &to.learned, &mut out, Change::RemoveLearned, Change::SetLearned);
        out
    }

    /// Returns the running pod that owns an address. Of several pods that report it, the owner is the Running one, then
    /// the newest, then the first by name (G-10). No placeholder has an owner. `O(pods)`: not for use per packet.
    #[must_use]
    pub fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        if self.addressing.is_placeholder(address) {
            return None;
        }
        self.pods
            .values()
            .filter(|p| p.is_running() && p.addresses.contains(&address))
            .min_by(|a, b| Pod::precedence(a, b))
    }

    /// Returns whether an address was learned for a name that `pattern` matches. `O(learned names)`.
    #[must_use]
    pub fn is_learned(&self, pattern: &DomainPattern, address: IpAddr) -> bool {
        self.learned.values().any(|l| pattern.matches(&l.name) && l.addresses.contains(&address))
    }

    /// Returns the addresses that were learned for names that `pattern` matches, as ranges: sorted, disjoint, not adjacent.
    /// `O(learned names + addresses)`.
    #[must_use]
    pub fn learned_ranges(&self, pattern: &DomainPattern) -> Vec<IpRange> {
        let matching = self.learned.values().filter(|learned| pattern.matches(&learned.name));
        let addresses = matching.flat_map(|learned| learned.addresses.iter());
        union(addresses.map(|a| IpRange { first: a, last: a }).collect())
    }

    /// Returns the endpoint with this address: the pod that owns it, else the node, else an external address. `O(pods +
    /// nodes)`.
    #[must_use]
    pub fn endpoint(&self, address: IpAddr) -> crate::Endpoint {
        if let Some(pod) = self.pod_at(address) {
            crate::Endpoint::Pod { key: pod.key.clone(), address }
        } else if let Some(node) = self.node_at(address) {
            crate::Endpoint::Node { name: node.name.clone(), address }
        } else {
            crate::Endpoint::External(address)
        }
    }

    /// Whether an address lies in a range of addresses of pods: of a node, or one that was given. `O(nodes)`.
    #[must_use]
    pub fn is_in_pod_range(&self, address: IpAddr) -> bool {
        self.pod_ranges().any(|range| range.contains(address))
    }

    /// Whether all of these addresses lie in ranges of addresses of pods. `O(nodes · log nodes)`.
    #[must_use]
    pub fn are_in_pod_ranges(&self, addresses: IpRange) -> bool {
        let ranges = union(self.pod_ranges().collect());
        ranges.iter().any(|range| range.contains(addresses.first) && range.contains(addresses.last))
    }

    fn pod_ranges(&self) -> impl Iterator<Item = IpRange> {
        let of_nodes = self.nodes.values().flat_map(|node| &node.pod_cidrs).map(IpRange::of_net);
        self.addressing.pod_ranges.iter().copied().chain(of_nodes)
    }

    /// Returns the node with this address, which is no placeholder. `O(nodes)`.
    #[must_use]
    pub fn node_at(&self, address: IpAddr) -> Option<&Node> {
        let known = !self.addressing.is_placeholder(address);
        self.nodes.values().filter(|_| known).find(|n| n.addresses.contains(&address))
    }
}

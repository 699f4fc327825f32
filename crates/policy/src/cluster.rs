//! The world as policies see it: namespaces, pods, nodes, services and policies, as plain values.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use crate::{Family, Labels, Name, Pods, Policy, PolicyKey, Protocol, Selector};

/// The label that every namespace carries, with its own name as value (SEMANTICS A13).
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Namespace and name of a namespaced object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The namespace.
    pub namespace: Name,
    /// The name.
    pub name: Name,
}

impl ObjectKey {
    /// A key of these two.
    pub fn new(namespace: impl Into<Name>, name: impl Into<Name>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: Name,
    /// Its labels; whoever makes one adds [`NAMESPACE_NAME_LABEL`], as the API server does.
    pub labels: Labels,
}

impl Namespace {
    /// A namespace with `labels` and the name label.
    #[must_use]
    pub fn new(name: impl Into<Name>, labels: &Labels) -> Self {
        let name = name.into();
        Self { labels: labels.with(NAMESPACE_NAME_LABEL, &name), name }
    }
}

/// The life-cycle phase of a pod (SEMANTICS A48, G-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Phase {
    /// Accepted, perhaps not started. Counts as soon as it has an address.
    Pending,
    /// Running.
    #[default]
    Running,
    /// Finished well: owns its address no longer.
    Succeeded,
    /// Finished badly: owns its address no longer.
    Failed,
    /// Its node doesn't answer. Counts.
    Unknown,
}

/// A named or unnamed port that a container declares (SEMANTICS A27–A30, G-9).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerPort {
    /// The name, if it has one.
    pub name: Option<Name>,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port number.
    pub port: u16,
}

/// The object that a pod belongs to: a Deployment, a StatefulSet … or the pod itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    /// The kind in the API's spelling, such as `Deployment`.
    pub kind: Name,
    /// Its name; the namespace is the pod's.
    pub name: Name,
}

/// A pod, reduced to what a decision needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Its labels.
    pub labels: Labels,
    /// At most one address per family (SEMANTICS A50). Empty: it matches no traffic yet (A51).
    pub addresses: Vec<IpAddr>,
    /// The node that it is bound to, if any.
    pub node: Option<Name>,
    /// Whether it shares its node's network (G-4).
    pub host_network: bool,
    /// Where in its life it is.
    pub phase: Phase,
    /// The declared ports of containers and of restartable init containers (G-9).
    pub ports: std::sync::Arc<[ContainerPort]>,
    /// When it was created, as seconds since the epoch; 0 if unknown. Decides who owns an address twice given (G-10).
    pub created: i64,
    /// What it belongs to.
    pub workload: Option<Workload>,
}

impl Pod {
    /// Whether it is a live pod: has an address, is not host-network, and has not finished (SEMANTICS 0.3).
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.addresses.is_empty()
            && !self.host_network
            && !matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Its address in this family.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|a| Family::of(*a) == family)
    }

    /// The numbers that a port name stands for on this pod with this protocol; `None` asks for any protocol.
    pub fn named_ports<'a>(
        &'a self,
        name: &'a str,
        protocol: Option<Protocol>,
    ) -> impl Iterator<Item = (Protocol, u16)> + 'a {
        self.ports
            .iter()
            .filter(move |p| p.name.as_deref() == Some(name) && protocol.is_none_or(|q| p.protocol == q))
            .map(|p| (p.protocol, p.port))
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: Name,
    /// Its labels.
    pub labels: Labels,
    /// Every address in `status.addresses` that parses as one (G-18).
    pub addresses: Vec<IpAddr>,
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, if it has one.
    pub name: Option<Name>,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port on the service address.
    pub port: u16,
    /// The port on the pod: a number or a container port name.
    pub target: TargetPort,
}

/// Where a service port leads on the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// A port number.
    Number(u16),
    /// A container port name, looked up on each pod.
    Name(Name),
}

/// A service. Policies never see it: they judge what is behind it (SEMANTICS A.12, G-1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Its cluster addresses; empty for a headless service.
    pub addresses: Vec<IpAddr>,
    /// The pods behind it, in its own namespace; `None` for a service without selector.
    pub selector: Option<Selector>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// What is known of the world. A value: comparing two compares the worlds.
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
}

/// One edit of a [`Cluster`]. Setting replaces what has the same key; removing what isn't there does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A namespace appeared or has other labels.
    SetNamespace(Namespace),
    /// A namespace is gone.
    RemoveNamespace(Name),
    /// A pod appeared or changed.
    SetPod(Pod),
    /// A pod is gone.
    RemovePod(ObjectKey),
    /// A node appeared or changed.
    SetNode(Node),
    /// A node is gone.
    RemoveNode(Name),
    /// A service appeared or changed.
    SetService(Service),
    /// A service is gone.
    RemoveService(ObjectKey),
    /// A policy appeared or changed.
    SetPolicy(std::sync::Arc<Policy>),
    /// A policy is gone.
    RemovePolicy(PolicyKey),
}

impl Cluster {
    /// Performs one edit.
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
        }
    }

    /// The edits that make this cluster from an empty one, moving its objects: namespaces, nodes, pods, services,
    /// policies.
    pub fn into_changes(self) -> impl Iterator<Item = Change> {
        let namespaces = self.namespaces.into_values().map(Change::SetNamespace);
        let nodes = self.nodes.into_values().map(Change::SetNode);
        let pods = self.pods.into_values().map(Change::SetPod);
        let services = self.services.into_values().map(Change::SetService);
        let policies = self.policies.into_values().map(Change::SetPolicy);
        namespaces.chain(nodes).chain(pods).chain(services).chain(policies)
    }

    /// The edits that lead from `self` to `to`: what vanished first, then what is new or different.
    /// `O(objects)`; for sources that deliver whole snapshots (a directory), not for watches.
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
        out
    }

    /// The live pod that owns an address; where two report it, the Running one, then the newest, then the first by
    /// name (G-10). `O(pods)`: for questions, not for packets.
    #[must_use]
    pub fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        self.pods
            .values()
            .filter(|p| p.is_live() && p.addresses.contains(&address))
            .min_by(|a, b| Pod::precedence(a, b))
    }

    /// Who has this address: the live pod that owns it, else the node, else nobody in the cluster.
    /// `O(pods + nodes)`.
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

    /// The node with this address. `O(nodes)`.
    #[must_use]
    pub fn node_at(&self, address: IpAddr) -> Option<&Node> {
        self.nodes.values().find(|n| n.addresses.contains(&address))
    }
}

impl Pod {
    /// Orders two pods that report one address: the first owns it (G-10: Running, then newest; ties by name).
    #[must_use]
    pub fn precedence(a: &Self, b: &Self) -> std::cmp::Ordering {
        let rank = |p: &Self| (p.phase != Phase::Running, std::cmp::Reverse(p.created));
        rank(a).cmp(&rank(b)).then_with(|| a.key.cmp(&b.key))
    }
}

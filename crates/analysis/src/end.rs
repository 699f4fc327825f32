//! The ends of connections, as answers name them.

use std::{fmt, net::IpAddr};

use palisade_policy::{Family, IpRange, Name, ObjectKey};

/// One end. The order is that of answers: workloads by namespace, then nodes, then the outside, then
/// what forwards from there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionEnd {
    /// A workload, or the part of one whose pods are treated alike.
    Workload(WorkloadPods),
    /// One pod.
    Pod {
        /// Which.
        key: ObjectKey,
        /// The kind of what it belongs to; `Pod` for a bare pod.
        workload_kind: Name,
        /// The name of what it belongs to.
        workload_name: Name,
    },
    /// All pods of a namespace together.
    Namespace(Name),
    /// Pods, of any workloads, that are treated alike in every respect; sorted.
    Class(Vec<WorkloadPods>),
    /// The node that a pod runs on, seen from that pod: one of these, sorted. Only ever a source, and only of
    /// connections to its own pods, which NetworkPolicies can't forbid (SEMANTICS A39).
    OwnNode(Vec<NodeAddresses>),
    /// Nodes that no policy tells apart; sorted. As a source: towards pods that run elsewhere. Host-network pods count
    /// as their node (SEMANTICS G-4).
    Nodes(Vec<NodeAddresses>),
    /// Addresses that belong to no live pod and no node.
    External(ExternalRanges),
    /// What forwards connections into the cluster as Ingresses and routes ask for. Only ever a source. The pods that it
    /// is; none: that isn't known (see [`crate::entrances`]).
    IngressController(Vec<WorkloadPods>),
}

/// Pods of one workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadPods {
    /// The namespace.
    pub namespace: Name,
    /// The workload's name.
    pub name: Name,
    /// The kind in the API's spelling; `Pod` for a bare pod.
    pub kind: Name,
    /// The names of the pods that are meant; sorted, at least one.
    pub pods: Vec<Name>,
    /// Whether these are all live pods of the workload.
    pub whole: bool,
}

/// A node and the addresses of it that are meant: at most one of each family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeAddresses {
    /// The node.
    pub name: Name,
    /// Its addresses; sorted.
    pub addresses: Vec<IpAddr>,
}

/// Addresses of one family that no policy tells apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalRanges {
    /// The family.
    pub family: Family,
    /// The addresses: sorted, disjoint, not adjacent.
    pub ranges: Vec<IpRange>,
}

impl ExternalRanges {
    /// Whether it is the whole address space of its family: no policy in force tells outside addresses apart.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        let all = palisade_policy::address::max_number(self.family);
        let number = palisade_policy::address::to_number;
        matches!(self.ranges[..], [r] if number(r.first) == 0 && number(r.last) == all)
    }
}

impl ConnectionEnd {
    /// The namespace, if it lies within one.
    #[must_use]
    pub fn namespace(&self) -> Option<&Name> {
        match self {
            Self::Workload(w) => Some(&w.namespace),
            Self::Pod { key, .. } => Some(&key.namespace),
            Self::Namespace(name) => Some(name),
            Self::Class(_)
            | Self::OwnNode(_)
            | Self::Nodes(_)
            | Self::External(_)
            | Self::IngressController(_) => None,
        }
    }

    /// Whether policies can act on it: it stands for pods.
    #[must_use]
    pub fn is_pods(&self) -> bool {
        matches!(self, Self::Workload(_) | Self::Pod { .. } | Self::Namespace(_) | Self::Class(_))
    }

    /// Whether it stands for this pod, or for a set of pods that has it. A namespace stands for all of its pods.
    #[must_use]
    pub fn holds_pod(&self, pod: &ObjectKey) -> bool {
        let in_workload = |w: &WorkloadPods| w.namespace == pod.namespace && w.pods.contains(&pod.name);
        match self {
            Self::Workload(w) => in_workload(w),
            Self::Pod { key, .. } => key == pod,
            Self::Namespace(name) => *name == pod.namespace,
            Self::Class(all) => all.iter().any(in_workload),
            Self::OwnNode(_) | Self::Nodes(_) | Self::External(_) | Self::IngressController(_) => false,
        }
    }

    /// Whether it stands for this address of this node.
    #[must_use]
    pub fn holds_node(&self, node: &str, address: IpAddr) -> bool {
        match self {
            Self::OwnNode(nodes) | Self::Nodes(nodes) => {
                nodes.iter().any(|n| *n.name == *node && n.addresses.contains(&address))
            }
            _ => false,
        }
    }

    /// Whether it stands for this outside address.
    #[must_use]
    pub fn holds_external(&self, address: IpAddr) -> bool {
        matches!(self, Self::External(e) if e.ranges.iter().any(|r| r.contains(address)))
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, all: &[T]) -> fmt::Result {
    for (i, one) in all.iter().enumerate() {
        write!(f, "{}{one}", if i > 0 { ", " } else { "" })?;
    }
    Ok(())
}

impl fmt::Display for WorkloadPods {
    /// `shop/deployment/web`, with the pods where they aren't all.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.kind.to_lowercase(), self.name)?;
        if self.whole {
            return Ok(());
        }
        f.write_str(" (pods ")?;
        list(f, &self.pods)?;
        f.write_str(")")
    }
}

impl fmt::Display for ConnectionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(w) => write!(f, "{w}"),
            Self::Pod { key, .. } => write!(f, "{}/pod/{}", key.namespace, key.name),
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::Class(all) => list(f, all),
            Self::OwnNode(_) => f.write_str("own node"),
            Self::Nodes(nodes) => {
                f.write_str("node ")?;
                list(f, &nodes.iter().map(|n| &n.name).collect::<Vec<_>>())
            }
            Self::External(e) => list(f, &e.ranges),
            Self::IngressController(_) => f.write_str("{ingress-controller}"),
        }
    }
}

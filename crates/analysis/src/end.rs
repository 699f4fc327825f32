//! The ends of connections in answers.

use std::{fmt, net::IpAddr};

use palisade_policy::{Family, IpRange, Name, ObjectKey};

/// One end of a connection. They are sorted like answers: workloads by namespace, nodes, external addresses, and the
/// ingress controller.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionEnd {
    /// A workload, or those of its pods that are equivalent.
    Workload(WorkloadPods),
    /// A pod.
    Pod {
        /// The pod.
        key: ObjectKey,
        /// The kind of its workload; `Pod` for a bare pod.
        workload_kind: Name,
        /// The name of its workload.
        workload_name: Name,
    },
    /// All pods of a namespace.
    Namespace(Name),
    /// Equivalent pods of any workloads, sorted.
    Class(Vec<WorkloadPods>),
    /// The node that a pod runs on, as seen from the pod. Contains all such nodes, sorted. It is only a source, of
    /// connections to its own pods, which NetworkPolicies can't deny (SEMANTICS A39).
    OwnNode(Vec<NodeAddresses>),
    /// Nodes that no policy distinguishes, sorted. As a source, they connect to pods on other nodes. Host-network pods
    /// count as their node (SEMANTICS G-4).
    Nodes(Vec<NodeAddresses>),
    /// Addresses of no running pod and no node.
    External(ExternalRanges),
    /// The ingress controller, which forwards connections into the cluster. It is only a source. Contains its pods, or
    /// none if they are unknown (see [`crate::ControllerRoutes`]).
    IngressController(Vec<WorkloadPods>),
}

/// Pods of one workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadPods {
    /// The namespace.
    pub namespace: Name,
    /// The workload's name.
    pub name: Name,
    /// The kind, as the API spells it; `Pod` for a bare pod.
    pub kind: Name,
    /// The names of the pods, sorted. There is at least one.
    pub pods: Vec<Name>,
    /// Whether these are all running pods of the workload.
    pub whole: bool,
}

/// A node and some of its addresses: at most one of each family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeAddresses {
    /// The node.
    pub name: Name,
    /// Its addresses; sorted.
    pub addresses: Vec<IpAddr>,
    /// Whether the end contains all addresses of the node.
    pub whole: bool,
}

/// External addresses of one family that no policy distinguishes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalRanges {
    /// The family.
    pub family: Family,
    /// The ranges, without any address of a pod or node and without the ranges from which pods get their addresses:
    /// sorted, disjoint, not adjacent. There may be as many as pods.
    pub ranges: Vec<IpRange>,
    /// The same with these addresses, for people: what policies distinguish.
    pub spanned: Vec<IpRange>,
}

impl ExternalRanges {
    /// Returns whether these are all external addresses of the family, because no policy distinguishes any.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        let all = palisade_policy::address::max_number(self.family);
        let number = palisade_policy::address::to_number;
        matches!(self.spanned[..], [r] if number(r.first) == 0 && number(r.last) == all)
    }
}

impl ConnectionEnd {
    /// Returns the namespace, if the end is in a single one.
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

    /// Returns whether the end consists of pods, so that policies can select it.
    #[must_use]
    pub fn is_pods(&self) -> bool {
        matches!(self, Self::Workload(_) | Self::Pod { .. } | Self::Namespace(_) | Self::Class(_))
    }

    /// Returns whether the end has addresses of the public internet.
    #[must_use]
    pub fn is_internet(&self) -> bool {
        matches!(self, Self::External(e) if e.ranges.iter().any(crate::public::has_public_address))
    }

    /// Returns whether the end contains this pod. A namespace contains all of its pods.
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

    /// Returns whether the end contains this address of this node.
    #[must_use]
    pub fn holds_node(&self, node: &str, address: IpAddr) -> bool {
        match self {
            Self::OwnNode(nodes) | Self::Nodes(nodes) => {
                nodes.iter().any(|n| *n.name == *node && n.addresses.contains(&address))
            }
            _ => false,
        }
    }

    /// Returns whether the end contains this external address.
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
    /// `shop/deployment/web`, with the names of the pods if they are not all of the workload's.
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
            Self::External(e) => list(f, &e.spanned),
            Self::IngressController(_) => f.write_str("{ingress-controller}"),
        }
    }
}

//! Recorded connections, and why one can't be judged.

use std::net::IpAddr;

use palisade_policy::{Labels, Name, ObjectKey, Protocol, Workload};

/// A connection that was recorded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordedFlow {
    /// The client.
    pub source: RecordedEnd,
    /// The server. An address of a service is translated to the pods behind it.
    pub destination: RecordedEnd,
    /// The protocol.
    pub protocol: Protocol,
    /// The destination port; 0 for protocols without ports.
    pub port: u16,
}

/// One end of a recorded connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordedEnd {
    /// The address.
    pub address: IpAddr,
    /// What had it.
    pub owner: RecordedOwner,
}

/// What had an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordedOwner {
    /// Not recorded: whatever has the address in the cluster.
    Unknown,
    /// A pod.
    Pod(RecordedPod),
    /// A node, with its name if that is known.
    Node(Option<Name>),
    /// The node of the pod at the other end.
    OwnNode,
    /// Nothing in the cluster.
    Outside,
}

/// A pod as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordedPod {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The workload.
    pub workload: Option<Workload>,
    /// The labels; `None` if they were not recorded.
    pub labels: Option<Labels>,
}

/// Why a recorded connection can't be judged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotJudged {
    /// The pod and its workload are gone, and its labels were not recorded.
    PodGone(ObjectKey),
    /// The namespace is not in the cluster, and policies select namespaces by other labels than the name.
    NamespaceGone(Name),
    /// The address is one of a pod, and no pod has it.
    AddressGone(IpAddr),
    /// The address lies between those of services, and no service has it.
    ServiceGone(IpAddr),
    /// The address is one of a pod or outside: the addresses of pods are not known.
    AddressUnknown(IpAddr),
    /// Neither address belongs to a pod or a node of the cluster.
    NoPod(IpAddr, IpAddr),
    /// The node is not in the cluster, and policies select nodes.
    NodeGone(IpAddr),
    /// A rule names a port, and the ports of the pod, which is gone, are not known.
    PortName(ObjectKey),
    /// The verdict depends on addresses of the pods behind the service, which are not known.
    BackendAddresses(ObjectKey),
    /// The verdicts of the pods behind the service differ.
    BackendsDiffer(ObjectKey),
    /// The service has no pods on this port.
    NoBackend(ObjectKey),
}

//! A pod, and what decisions depend on in it.

use std::{
    cmp::{Ordering, Reverse},
    net::IpAddr,
    sync::Arc,
};

use crate::{AnnotatedSources, Family, Labels, Name, ObjectKey, Protocol, Uid};

/// The phase of a pod (SEMANTICS A48, G-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Phase {
    /// Accepted, possibly not started. Policies apply as soon as the pod has an address.
    Pending,
    /// Running.
    #[default]
    Running,
    /// Completed. The pod no longer owns its address.
    Succeeded,
    /// Failed. The pod no longer owns its address.
    Failed,
    /// The node doesn't respond. Policies still apply.
    Unknown,
}

/// A port that a container declares (SEMANTICS A27–A30, G-9).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerPort {
    /// The name, if it has one.
    pub name: Option<Name>,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port number.
    pub port: u16,
    /// The port of the pod's node whose connections the CNI translates to this one, if there is one. No policy depends on
    /// it.
    pub host_port: Option<u16>,
}

/// The workload of a pod: a Deployment, a StatefulSet … or the pod itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    /// The kind in the API's spelling, such as `Deployment`.
    pub kind: Name,
    /// The name. The namespace is the pod's.
    pub name: Name,
}

/// A pod: the fields that decisions depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The labels.
    pub labels: Labels,
    /// The addresses, at most one per family (SEMANTICS A50). A pod without addresses has no traffic yet (A51).
    pub addresses: Vec<IpAddr>,
    /// The node to which it is bound, if any.
    pub node: Option<Name>,
    /// Whether it shares the network of its node (G-4).
    pub host_network: bool,
    /// The phase.
    pub phase: Phase,
    /// The ports that containers and restartable init containers declare (G-9).
    pub ports: Arc<[ContainerPort]>,
    /// The creation time in seconds since the epoch; 0 if unknown. It determines the owner of an address that several
    /// pods report (G-10).
    pub created: i64,
    /// Tells the pod from one that had the same name before it. No decision depends on it.
    pub uid: Uid,
    /// The workload.
    pub workload: Option<Workload>,
    /// Which sources it asks for beside its addresses, by [`crate::ALLOW_SOURCE_KEY`]. No decision depends on it.
    pub allow_source: AnnotatedSources,
}

impl Pod {
    /// Makes a running pod on the cluster network of which nothing else is known.
    #[must_use]
    pub fn new(key: ObjectKey, labels: Labels, addresses: Vec<IpAddr>) -> Self {
        Self {
            key,
            labels,
            addresses,
            node: None,
            host_network: false,
            phase: Phase::Running,
            ports: [].into(),
            created: 0,
            uid: Uid::UNKNOWN,
            workload: None,
            allow_source: AnnotatedSources::default(),
        }
    }

    /// Returns whether policies apply to the pod: it has an address, isn't host-network, and hasn't finished (SEMANTICS
    /// 0.3).
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.addresses.is_empty()
            && !self.host_network
            && !matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Returns its address of this family.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|a| Family::of(*a) == family)
    }

    /// Returns the ports with this name and protocol; `None` stands for any protocol.
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

    /// Orders two pods that report the same address: the first owns it (G-10: Running, then newest, then by name).
    #[must_use]
    pub fn precedence(a: &Self, b: &Self) -> Ordering {
        let rank = |p: &Self| (p.phase != Phase::Running, Reverse(p.created));
        rank(a).cmp(&rank(b)).then_with(|| a.key.cmp(&b.key))
    }
}

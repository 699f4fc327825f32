//! What one object of a manifest declares: the results of the decoders, before they become one cluster.

mod routes;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use palisade_policy::{
    ContainerPort, Direction, Family, Labels, Name, Namespace, Node, ObjectKey, Origin, Pod, Policy, Rule,
    Service, ServiceEndpoints, Workload,
};

pub(crate) use routes::{
    AllowedNamespaces, DeclaredBackend, DeclaredRoute, Gateway, Listener, ParentKind, ParentRef,
    ReferenceGrant,
};

/// One decoded object.
#[derive(Clone, Debug)]
pub(crate) enum Declaration {
    Namespace(Namespace),
    Node(DeclaredNode),
    Pod(DeclaredPod),
    Service(DeclaredService),
    Endpoints(DeclaredEndpoints),
    Workload(Box<DeclaredWorkload>),
    /// A policy, and the rules that it has for directions to which it doesn't apply.
    Policy(Box<Policy>, Vec<(Direction, Vec<Rule>)>),
    Route(DeclaredRoute),
    Gateway(Gateway),
    ReferenceGrant(ReferenceGrant),
}

/// A Node.
#[derive(Clone, Debug)]
pub(crate) struct DeclaredNode {
    pub(crate) node: Node,
    /// The ranges from which the pods on it get their addresses.
    pub(crate) pod_cidrs: Vec<IpNet>,
}

/// The part of a pod or a pod template that matters to policies.
#[derive(Clone, Debug)]
pub(crate) struct PodTemplate {
    pub(crate) labels: Labels,
    pub(crate) ports: Arc<[ContainerPort]>,
    pub(crate) host_network: bool,
    pub(crate) node: Option<Name>,
    /// The name servers of its own, if it doesn't ask the DNS of the cluster.
    pub(crate) own_dns: Option<Vec<IpAddr>>,
    /// The node selector, which decides on which nodes a DaemonSet runs.
    pub(crate) node_selector: Labels,
    /// Where the template, its metadata and its labels begin.
    pub(crate) places: TemplatePlaces,
}

/// Where a pod template, its metadata and its labels begin, as far as they are declared.
#[derive(Clone, Debug, Default)]
pub(crate) struct TemplatePlaces {
    pub(crate) template: Option<Origin>,
    pub(crate) metadata: Option<Origin>,
    pub(crate) labels: Option<Origin>,
}

/// A Pod.
#[derive(Clone, Debug)]
pub(crate) struct DeclaredPod {
    pub(crate) pod: Pod,
    /// As in [`PodTemplate`].
    pub(crate) own_dns: Option<Vec<IpAddr>>,
    /// The status says that the pod has no address yet, so none is generated (SEMANTICS A51).
    pub(crate) awaits_address: bool,
    /// An API server sent it.
    pub(crate) from_cluster: bool,
}

/// A Service.
#[derive(Clone, Debug)]
pub(crate) struct DeclaredService {
    pub(crate) service: Service,
    /// Whether the cluster will give it an address: it has none, isn't headless and isn't an ExternalName.
    pub(crate) needs_address: bool,
    /// The families that it requires the cluster to have.
    pub(crate) families: BTreeSet<Family>,
}

/// An EndpointSlice or an Endpoints object.
#[derive(Clone, Debug)]
pub(crate) struct DeclaredEndpoints {
    /// The service. Its name is empty for an EndpointSlice of none.
    pub(crate) service: ObjectKey,
    pub(crate) endpoints: Vec<ServiceEndpoints>,
}

/// How many pods a workload makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replicas {
    /// This many, numbered from `first`.
    Count { first: u32, count: u32 },
    /// One for each node that matches the template's node selector; one if no node is known.
    PerNode,
}

/// A Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob or a workload of another project.
#[derive(Clone, Debug)]
pub(crate) struct DeclaredWorkload {
    pub(crate) kind: Name,
    pub(crate) key: ObjectKey,
    pub(crate) owner: Option<Workload>,
    pub(crate) replicas: Replicas,
    /// The labels of the object itself, which no policy matches.
    pub(crate) labels: Labels,
    /// The labels of the Jobs that a CronJob makes, which no policy matches either.
    pub(crate) job_labels: Labels,
    /// `spec.selector.matchLabels`, or the selector of a ReplicationController.
    pub(crate) selector: Labels,
    pub(crate) template: PodTemplate,
    pub(crate) created: i64,
    pub(crate) origin: Origin,
    /// A Job whose pods carry their completion index as a label.
    pub(crate) indexed: bool,
    /// The workload whose template it uses, if not its own.
    pub(crate) template_of: Option<Workload>,
    /// An API server sent it, so its pods are in the cluster and none is generated.
    pub(crate) from_cluster: bool,
}

impl DeclaredWorkload {
    /// The workload as its pods refer to it.
    pub(crate) fn identity(&self) -> Workload {
        Workload { kind: self.kind.clone(), name: self.key.name.clone() }
    }
}

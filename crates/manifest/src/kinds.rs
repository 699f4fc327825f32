//! The kinds that make up a cluster, and the decoder of each.
//!
//! To add a kind:
//! 1. Write its decoder in a file of its own. [`crate::node`] is a short example. A decoder reports errors and warnings
//!    to the [`Context`], and returns what the object declares.
//! 2. Add a row to [`KINDS`].
//!
//! What becomes of the kinds of other projects is in [`foreign`], and of misspelled ones in [`spelling`].
//!
//! A kind that declares something new, rather than another policy, workload or route, also needs a variant of
//! [`Declaration`], a place in [`crate::gather::Gathered`] and a step in [`crate::assemble`].

use std::fmt;

use crate::{
    cluster_wide::{self, cluster_wide_policy},
    custom_workload,
    declared::Declaration,
    decode::Context,
    endpoints,
    meta::Object,
    network_policy::network_policy,
    node, pod,
    routes::{self, GATEWAY_GROUP},
    service::service,
    workload,
};

mod built_in;
pub(crate) mod foreign;
mod spelling;

/// All kinds. The module documentation says how to add one.
const KINDS: &[ResourceKind] = &[
    ResourceKind { fields: &["subsets"], ..namespaced("", &["v1"], "Endpoints", endpoints::endpoints) },
    cluster_scoped("", &["v1"], "Namespace", node::namespace),
    cluster_scoped("", &["v1"], "Node", node::node),
    namespaced("", &["v1"], "Pod", pod::pod),
    namespaced("", &["v1"], "ReplicationController", workload::replica_set),
    namespaced("", &["v1"], "Service", service),
    namespaced("apps", &["v1"], "DaemonSet", workload::daemon_set),
    namespaced("apps", &["v1"], "Deployment", workload::deployment),
    namespaced("apps", &["v1"], "ReplicaSet", workload::replica_set),
    namespaced("apps", &["v1"], "StatefulSet", workload::stateful_set),
    namespaced("batch", &["v1"], "CronJob", workload::cron_job),
    namespaced("batch", &["v1"], "Job", workload::job),
    ResourceKind {
        fields: &["addressType", "endpoints", "ports"],
        ..namespaced("discovery.k8s.io", &["v1", "v1beta1"], "EndpointSlice", endpoints::endpoint_slice)
    },
    namespaced("networking.k8s.io", &["v1"], NETWORK_POLICY, network_policy),
    cluster_scoped(cluster_wide::GROUP, &["v1alpha1"], "AdminNetworkPolicy", cluster_wide_policy),
    cluster_scoped(cluster_wide::GROUP, &["v1alpha1"], "BaselineAdminNetworkPolicy", cluster_wide_policy),
    cluster_scoped(
        cluster_wide::GROUP,
        &["v1alpha2", "v1beta1"],
        "ClusterNetworkPolicy",
        cluster_wide_policy,
    ),
    namespaced("argoproj.io", &["v1alpha1"], "Rollout", custom_workload::rollout),
    namespaced("apps.openshift.io", &["v1"], "DeploymentConfig", custom_workload::deployment_config),
    namespaced("apps.kruise.io", KRUISE, "AdvancedCronJob", custom_workload::advanced_cron_job),
    namespaced("apps.kruise.io", KRUISE, "BroadcastJob", custom_workload::per_node),
    namespaced("apps.kruise.io", KRUISE, "CloneSet", custom_workload::replicated),
    namespaced("apps.kruise.io", KRUISE, "DaemonSet", custom_workload::per_node),
    namespaced("apps.kruise.io", KRUISE, "StatefulSet", custom_workload::replicated),
    namespaced("kubevirt.io", KUBEVIRT, "VirtualMachine", custom_workload::virtual_machine),
    namespaced("kubevirt.io", KUBEVIRT, "VirtualMachineInstance", custom_workload::virtual_machine_instance),
    namespaced(
        "kubevirt.io",
        KUBEVIRT,
        "VirtualMachineInstanceReplicaSet",
        custom_workload::virtual_machines,
    ),
    namespaced(
        "pool.kubevirt.io",
        &["v1beta1", "v1alpha1"],
        "VirtualMachinePool",
        custom_workload::virtual_machines,
    ),
    ResourceKind {
        called: "KnativeService",
        ..namespaced("serving.knative.dev", &["v1"], "Service", custom_workload::knative_service)
    },
    route("networking.k8s.io", &["v1"], "Ingress", routes::ingress),
    route("route.openshift.io", &["v1"], "Route", routes::openshift_route),
    route(GATEWAY_GROUP, &["v1", "v1beta1", "v1alpha2"], "Gateway", routes::gateway),
    route(GATEWAY_GROUP, &["v1", "v1beta1", "v1alpha2"], "ReferenceGrant", routes::reference_grant),
    route(GATEWAY_GROUP, &["v1", "v1beta1", "v1alpha2"], "HTTPRoute", routes::gateway_route),
    route(GATEWAY_GROUP, &["v1", "v1alpha2"], "GRPCRoute", routes::gateway_route),
    route(GATEWAY_GROUP, &["v1", "v1alpha3", "v1alpha2"], "TLSRoute", routes::gateway_route),
    route(GATEWAY_GROUP, &["v1", "v1alpha2"], "TCPRoute", routes::gateway_route),
    route(GATEWAY_GROUP, &["v1", "v1alpha2"], "UDPRoute", routes::gateway_route),
];

/// The versions of OpenKruise's kinds.
const KRUISE: &[&str] = &["v1alpha1", "v1beta1"];
/// The versions of KubeVirt's kinds.
const KUBEVIRT: &[&str] = &["v1", "v1alpha3"];

/// The kind whose policies isolate the pods that they select.
pub(crate) const NETWORK_POLICY: &str = "NetworkPolicy";

/// The group that Kubernetes 1.16 removed, and the groups to which its kinds moved.
const EXTENSIONS: (&str, &[&str]) =
    ("extensions", &["apps", "batch", "networking.k8s.io", cluster_wide::GROUP]);

/// Decodes an object. `None`, or errors reported: the object is rejected.
pub(crate) type Decode = fn(&mut Context<'_>, &Object<'_>) -> Option<Declaration>;

/// A row of [`KINDS`].
pub(crate) struct ResourceKind {
    /// The API group; empty for the core group.
    group: &'static str,
    /// The versions that the decoder reads. The first one is recommended to users.
    versions: &'static [&'static str],
    /// The name of the kind, as in `kind: Pod`.
    pub(crate) name: &'static str,
    /// Its name in messages and to users, which differs from [`Self::name`] if Kubernetes has a kind of this name.
    pub(crate) called: &'static str,
    pub(crate) namespaced: bool,
    /// The fields of its objects that others don't have.
    pub(crate) fields: &'static [&'static str],
    pub(crate) other_versions: OtherVersions,
    pub(crate) decode: Decode,
}

/// What becomes of an object in a version that the decoder doesn't read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtherVersions {
    /// It is an error: verdicts depend on the object.
    Rejected,
    /// It is skipped with a warning: no verdict depends on the object.
    Skipped,
}

const fn cluster_scoped(
    group: &'static str,
    versions: &'static [&'static str],
    name: &'static str,
    decode: Decode,
) -> ResourceKind {
    ResourceKind { namespaced: false, ..namespaced(group, versions, name, decode) }
}

const fn namespaced(
    group: &'static str,
    versions: &'static [&'static str],
    name: &'static str,
    decode: Decode,
) -> ResourceKind {
    ResourceKind {
        group,
        versions,
        name,
        called: name,
        namespaced: true,
        fields: &[],
        other_versions: OtherVersions::Rejected,
        decode,
    }
}

const fn route(
    group: &'static str,
    versions: &'static [&'static str],
    name: &'static str,
    decode: Decode,
) -> ResourceKind {
    ResourceKind { other_versions: OtherVersions::Skipped, ..namespaced(group, versions, name, decode) }
}

impl ResourceKind {
    /// Returns whether objects of this kind are policies.
    pub(crate) fn is_policy(&self) -> bool {
        self.name == NETWORK_POLICY || self.group == cluster_wide::GROUP
    }

    /// Returns whether the kind is one of Kubernetes and its network policies, not of another project.
    fn is_of_kubernetes(&self) -> bool {
        built_in::is_reserved(self.group)
    }

    /// The `apiVersion` to use instead of `version`: with this version if there is one, else with the first.
    fn api_version(&self, version: &str) -> String {
        let version = self.versions.iter().find(|v| **v == version).unwrap_or(&self.versions[0]);
        if self.group.is_empty() { (*version).to_owned() } else { format!("{}/{version}", self.group) }
    }
}

impl fmt::Display for ResourceKind {
    /// Formats the recommended version and the name, such as `apps/v1 Deployment`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.api_version(""), self.name)
    }
}

/// What [`find`] found.
pub(crate) enum Found {
    /// The kind, in a version that its decoder reads.
    Kind(&'static ResourceKind),
    /// The kind, and the `apiVersion` to use instead of the given one.
    OtherVersion(&'static ResourceKind, String),
    /// A kind that doesn't exist, and the one that is meant.
    Misspelled(&'static ResourceKind),
    /// A kind that doesn't exist, and may be meant as a policy.
    Nonexistent,
    /// A kind of which nothing is read.
    Other,
}

/// Finds a kind by the group and version of an `apiVersion`, and its name.
pub(crate) fn find(group: &str, version: &str, name: &str) -> Found {
    let (old, successors) = EXTENSIONS;
    let fits = |kind: &&ResourceKind| {
        kind.name == name && (kind.group == group || (group == old && successors.contains(&kind.group)))
    };
    match KINDS.iter().find(fits) {
        Some(kind) if kind.group == group && kind.versions.contains(&version) => Found::Kind(kind),
        Some(kind) => Found::OtherVersion(kind, kind.api_version(version)),
        None => match spelling::meant(group, name) {
            Some(kind) => Found::Misspelled(kind),
            None if spelling::may_be_a_policy(group, version, name) => Found::Nonexistent,
            None => Found::Other,
        },
    }
}

/// Returns the kind that has this name, or that is meant by it.
pub(crate) fn meant(api_version: &str, name: &str) -> Option<&'static ResourceKind> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    match find(group, version, name) {
        Found::Kind(kind) | Found::OtherVersion(kind, _) | Found::Misspelled(kind) => Some(kind),
        Found::Nonexistent | Found::Other => None,
    }
}

/// Returns whether objects of a kind are read, or are an error because of their version.
pub(crate) fn is_read(api_version: &str, name: &str) -> bool {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    matches!(find(group, version, name), Found::Kind(_) | Found::OtherVersion(..))
}

/// Finds a kind by its name alone.
pub(crate) fn named(name: &str) -> Option<&'static ResourceKind> {
    KINDS.iter().find(|kind| kind.name == name)
}

//! The catalog of the kinds that Palisade reads, watches or reports on. A new kind is one entry in it.

use std::fmt;

/// What an answer needs a kind for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeededFor {
    /// Verdicts. Without the kind they may be wrong.
    Verdicts,
    /// Traffic from outside the cluster, which lists of connections show.
    ExternalTraffic,
    /// The names of workloads, and nothing else.
    WorkloadNames,
}

/// One entry of the catalog.
struct Resource {
    /// The kind, such as `NetworkPolicy`.
    name: &'static str,
    /// The plural, as in paths and RBAC rules.
    plural: &'static str,
    /// The API group; empty for the core group.
    group: &'static str,
    /// The versions that can be decoded, the preferred one first.
    versions: &'static [&'static str],
    /// Whether the objects belong to namespaces.
    namespaced: bool,
    /// Whether every agent watches the kind.
    watched: bool,
    /// What answers need it for.
    needed_for: NeededFor,
    /// The fields that are kept of an object that is read once, as paths. Lists are passed through.
    #[cfg_attr(not(feature = "client"), expect(dead_code, reason = "only what was read is reduced to them"))]
    fields: &'static [&'static str],
    /// What it means for an answer that the kind could not be read.
    if_missing: &'static str,
}

const POLICY: &str = "policy.networking.k8s.io";
const GATEWAY: &str = "gateway.networking.k8s.io";
const OPENSHIFT: &str = "route.openshift.io";

impl Resource {
    /// A namespaced, built-in kind in version v1 that the agent does not watch.
    const fn new(plural: &'static str, group: &'static str, needed_for: NeededFor) -> Self {
        Self {
            name: "",
            plural,
            group,
            versions: &["v1"],
            namespaced: true,
            watched: false,
            needed_for,
            fields: &[],
            if_missing: "",
        }
    }

    /// A kind that the agent watches.
    const fn watched(plural: &'static str, group: &'static str) -> Self {
        Self { watched: true, ..Self::new(plural, group, NeededFor::Verdicts) }
    }

    /// A cluster-wide policy.
    const fn cluster_wide_policy(plural: &'static str, versions: &'static [&'static str]) -> Self {
        Self { namespaced: false, ..Self::watched(plural, POLICY) }.versions(versions).fields(POLICY_FIELDS)
    }

    /// A kind between a pod and its workload.
    const fn owner(plural: &'static str, group: &'static str) -> Self {
        Self::new(plural, group, NeededFor::WorkloadNames).fields(OWNER_FIELDS).if_missing(
            "some workloads are shown under the names of their pods' owners; verdicts do not depend on it",
        )
    }

    /// A kind that lets traffic into the cluster.
    const fn external(plural: &'static str, group: &'static str) -> Self {
        Self::new(plural, group, NeededFor::ExternalTraffic)
            .if_missing("traffic that enters the cluster through them is not shown")
    }

    /// A route of the Gateway API.
    const fn route(plural: &'static str, versions: &'static [&'static str]) -> Self {
        Self::external(plural, GATEWAY).versions(versions).fields(ROUTE_FIELDS)
    }

    const fn cluster_scoped(self) -> Self {
        Self { namespaced: false, ..self }
    }

    const fn versions(self, versions: &'static [&'static str]) -> Self {
        Self { versions, ..self }
    }

    const fn fields(self, fields: &'static [&'static str]) -> Self {
        Self { fields, ..self }
    }

    const fn if_missing(self, if_missing: &'static str) -> Self {
        Self { if_missing, ..self }
    }

    const fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }
}

const POLICY_FIELDS: &[&str] = &["metadata.labels", MODE_ANNOTATION, "metadata.creationTimestamp", "spec"];

/// The only annotation of policies that is kept: it sets the mode of a policy ([`palisade_policy::MODE_KEY`]).
const MODE_ANNOTATION: &str = "metadata.annotations.palisade.dev/mode";

/// The annotations of namespaces that are kept: what happens to what policies deny ([`palisade_policy::DENY_KEY`]), and within which networks
/// pods may set sources ([`palisade_policy::ALLOW_SOURCE_WITHIN_KEY`]).
const DENY_ANNOTATION: &str = "metadata.annotations.palisade.dev/deny";
const ALLOW_SOURCE_WITHIN_ANNOTATION: &str = "metadata.annotations.palisade.dev/allow-source-within";

/// The only annotation of pods that is kept: the sources that it asks for ([`palisade_policy::ALLOW_SOURCE_KEY`]).
const ALLOW_SOURCE_ANNOTATION: &str = "metadata.annotations.palisade.dev/allow-source";

/// All annotations that are kept.
#[cfg(all(test, feature = "client"))]
const ANNOTATIONS: [&str; 4] =
    [MODE_ANNOTATION, DENY_ANNOTATION, ALLOW_SOURCE_ANNOTATION, ALLOW_SOURCE_WITHIN_ANNOTATION];

const OWNER_FIELDS: &[&str] = &[
    "metadata.ownerReferences.apiVersion",
    "metadata.ownerReferences.kind",
    "metadata.ownerReferences.name",
    "metadata.ownerReferences.controller",
];

/// Of the filters of a route only the back end of a mirror is kept; other filters may add headers with secrets.
const ROUTE_FIELDS: &[&str] = &[
    "metadata.labels",
    "spec.parentRefs",
    "spec.hostnames",
    "spec.rules.name",
    "spec.rules.matches.path",
    "spec.rules.backendRefs.group",
    "spec.rules.backendRefs.kind",
    "spec.rules.backendRefs.name",
    "spec.rules.backendRefs.namespace",
    "spec.rules.backendRefs.port",
    "spec.rules.backendRefs.weight",
    "spec.rules.backendRefs.filters.requestMirror.backendRef",
    "spec.rules.filters.requestMirror.backendRef",
];

/// Declares [`ResourceKind`] and the entry of each kind from one list.
macro_rules! catalogue {
    ($($(#[$doc:meta])+ $kind:ident = $resource:expr;)+) => {
        /// A kind of object as the Kubernetes API serves it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ResourceKind {
            $($(#[$doc])+ $kind,)+
        }

        const KINDS: &[ResourceKind] = &[$(ResourceKind::$kind),+];

        /// The entries, in the order of [`KINDS`].
        static RESOURCES: &[Resource] = &[$($resource.named(stringify!($kind))),+];
    };
}

// Secrets, ConfigMaps and the like are not read. Of the kinds that are, only what decisions and names need is kept: no environment
// variables, arguments, annotations but those of Palisade itself, keys, or headers that a route adds.
catalogue! {
    /// Namespaces: their labels.
    Namespace = Resource::watched("namespaces", "").cluster_scoped().fields(&["metadata.labels", DENY_ANNOTATION, ALLOW_SOURCE_WITHIN_ANNOTATION]).if_missing(
        "labels of namespaces are unknown: rules that select namespaces may match more or fewer than shown",
    );
    /// Pods: addresses, labels, node, declared ports, and those of the node that stand for them.
    Pod = Resource::watched("pods", "")
        .fields(&[
            "metadata.labels",
            ALLOW_SOURCE_ANNOTATION,
            "metadata.creationTimestamp",
            "metadata.ownerReferences.apiVersion",
            "metadata.ownerReferences.kind",
            "metadata.ownerReferences.name",
            "metadata.ownerReferences.controller",
            "spec.nodeName",
            "spec.hostNetwork",
            "spec.containers.ports.name",
            "spec.containers.ports.containerPort",
            "spec.containers.ports.protocol",
            "spec.containers.ports.hostPort",
            "spec.containers.ports.hostIP",
            "spec.initContainers.restartPolicy",
            "spec.initContainers.ports.name",
            "spec.initContainers.ports.containerPort",
            "spec.initContainers.ports.protocol",
            "spec.initContainers.ports.hostPort",
            "spec.initContainers.ports.hostIP",
            "status.phase",
            "status.podIP",
            "status.podIPs",
        ])
        .if_missing(
            "pods are unknown: connections from and to them are not shown, and their addresses count as outside",
        );
    /// Nodes: their labels and addresses.
    Node = Resource::watched("nodes", "")
        .cluster_scoped()
        .fields(&["metadata.labels", "spec.podCIDR", "spec.podCIDRs", "status.addresses"])
        .if_missing(
            "nodes are unknown: their addresses count as addresses outside the cluster, and rules for nodes match none",
        );
    /// Services. Agents watch them only if [`WatchOptions::services`](crate::WatchOptions) says so.
    Service = Resource::new("services", "", NeededFor::Verdicts)
        .fields(&["metadata.labels", "spec", "status.loadBalancer"])
        .if_missing("services are unknown: their cluster IPs cannot be resolved to pods");
    /// networking.k8s.io/v1.
    NetworkPolicy = Resource::watched("networkpolicies", "networking.k8s.io")
        .fields(POLICY_FIELDS)
        .if_missing("connections shown as allowed may be denied by one, and connections shown as denied may be allowed");
    /// policy.networking.k8s.io, v1alpha2 or v1beta1.
    ClusterNetworkPolicy = Resource::cluster_wide_policy("clusternetworkpolicies", &["v1beta1", "v1alpha2"])
        .if_missing(BEFORE_NETWORK_POLICIES);
    /// policy.networking.k8s.io/v1alpha1.
    AdminNetworkPolicy = Resource::cluster_wide_policy("adminnetworkpolicies", &["v1alpha1"])
        .if_missing(BEFORE_NETWORK_POLICIES);
    /// policy.networking.k8s.io/v1alpha1.
    BaselineAdminNetworkPolicy = Resource::cluster_wide_policy("baselineadminnetworkpolicies", &["v1alpha1"])
        .if_missing("connections shown as allowed may be denied by one where no NetworkPolicy isolates the pod");
    /// The owner of the pods of a Deployment.
    ReplicaSet = Resource::owner("replicasets", "apps");
    /// The owner of the pods of a CronJob.
    Job = Resource::owner("jobs", "batch");
    /// networking.k8s.io/v1.
    Ingress = Resource::external("ingresses", "networking.k8s.io").fields(&[
        "metadata.labels",
        "spec.ingressClassName",
        "spec.defaultBackend",
        "spec.rules",
        "spec.tls.hosts",
        "status.loadBalancer",
    ]);
    /// gateway.networking.k8s.io.
    Gateway = Resource::external("gateways", GATEWAY).versions(&["v1", "v1beta1"]).fields(&[
        "metadata.labels",
        "spec.gatewayClassName",
        "spec.listeners.name",
        "spec.listeners.hostname",
        "spec.listeners.port",
        "spec.listeners.protocol",
        "spec.listeners.allowedRoutes",
        "status.addresses",
    ]);
    /// gateway.networking.k8s.io.
    HTTPRoute = Resource::route("httproutes", &["v1", "v1beta1"]);
    /// gateway.networking.k8s.io.
    GRPCRoute = Resource::route("grpcroutes", &["v1", "v1alpha2"]);
    /// gateway.networking.k8s.io.
    TLSRoute = Resource::route("tlsroutes", &["v1", "v1alpha3", "v1alpha2"]);
    /// gateway.networking.k8s.io.
    TCPRoute = Resource::route("tcproutes", &["v1", "v1alpha2"]);
    /// gateway.networking.k8s.io.
    UDPRoute = Resource::route("udproutes", &["v1", "v1alpha2"]);
    /// gateway.networking.k8s.io.
    ReferenceGrant = Resource::external("referencegrants", GATEWAY).versions(&["v1", "v1beta1"]).fields(&["spec"]);
    /// route.openshift.io/v1.
    Route = Resource::external("routes", OPENSHIFT).fields(&[
        "metadata.labels",
        "spec.host",
        "spec.path",
        "spec.to",
        "spec.alternateBackends",
        "spec.port",
        "spec.tls.termination",
        "spec.wildcardPolicy",
    ]);
}

const BEFORE_NETWORK_POLICIES: &str = "connections shown as allowed may be denied by one, and connections shown as denied may be allowed: \
    they take precedence over NetworkPolicies";

impl ResourceKind {
    /// All kinds, in a fixed order.
    pub fn all() -> impl Iterator<Item = Self> {
        KINDS.iter().copied()
    }

    /// The kinds that decide verdicts.
    pub fn for_verdicts() -> impl Iterator<Item = Self> {
        Self::all().filter(|kind| kind.needed_for() == NeededFor::Verdicts)
    }

    /// The kinds that every agent watches.
    pub fn watched() -> impl Iterator<Item = Self> {
        Self::all().filter(|kind| kind.entry().watched)
    }

    /// The kinds of `policy.networking.k8s.io`. Their CustomResourceDefinitions come and go.
    pub fn cluster_wide_policies() -> impl Iterator<Item = Self> {
        Self::all().filter(|kind| kind.is_cluster_wide_policy())
    }

    /// The kind with this name, such as `NetworkPolicy`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|kind| kind.as_str() == name)
    }

    /// The API's spelling, such as `NetworkPolicy`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.entry().name
    }

    /// The plural in paths, RBAC rules and `kubectl get`, such as `networkpolicies`.
    #[must_use]
    pub fn plural(self) -> &'static str {
        self.entry().plural
    }

    /// The API group; empty for the core group.
    #[must_use]
    pub fn group(self) -> &'static str {
        self.entry().group
    }

    /// The versions that can be decoded, the preferred one first.
    #[must_use]
    pub fn versions(self) -> &'static [&'static str] {
        self.entry().versions
    }

    /// `v1`, `networking.k8s.io/v1`.
    #[must_use]
    pub fn api_version(self, version: &str) -> String {
        match self.group() {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        }
    }

    /// `pods`, `networkpolicies.networking.k8s.io`.
    #[must_use]
    pub fn qualified_plural(self) -> String {
        match self.group() {
            "" => self.plural().to_owned(),
            group => format!("{}.{group}", self.plural()),
        }
    }

    /// Whether the objects belong to namespaces.
    #[must_use]
    pub fn is_namespaced(self) -> bool {
        self.entry().namespaced
    }

    /// Whether a cluster may not serve the kind: it is defined by a CustomResourceDefinition or by an aggregated API server.
    #[must_use]
    pub fn is_optional(self) -> bool {
        [POLICY, GATEWAY, OPENSHIFT].contains(&self.group())
    }

    /// Whether the kind is one of `policy.networking.k8s.io`, whose objects carry a status that we write.
    #[must_use]
    pub fn is_cluster_wide_policy(self) -> bool {
        self.group() == POLICY
    }

    /// What answers need the kind for.
    #[must_use]
    pub fn needed_for(self) -> NeededFor {
        self.entry().needed_for
    }

    /// What it means for an answer that the kind could not be read.
    #[must_use]
    pub fn if_missing(self) -> &'static str {
        self.entry().if_missing
    }

    /// The fields that are kept of an object that is read once, as paths.
    #[cfg(feature = "client")]
    pub(crate) fn fields(self) -> &'static [&'static str] {
        self.entry().fields
    }

    /// Whether the metadata of its objects is all that is kept.
    #[cfg(feature = "client")]
    pub(crate) fn is_metadata_only(self) -> bool {
        self.fields().iter().all(|field| field.starts_with("metadata."))
    }

    fn entry(self) -> &'static Resource {
        &RESOURCES[self as usize]
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(all(test, feature = "client"))]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_read_or_kept() {
        for never in ["Secret", "ConfigMap", "ServiceAccount", "Event"] {
            assert_eq!(ResourceKind::from_name(never), None);
        }
        for kind in ResourceKind::all() {
            for path in kind.fields().iter().filter(|path| !ANNOTATIONS.contains(*path)) {
                let secret = ["annotations", "managedFields", "env", "args", "command", "key", "volumes"];
                assert!(path.split('.').all(|step| !secret.contains(&step)), "{kind} {path}");
            }
        }
    }

    #[test]
    fn entries_are_complete() {
        for kind in ResourceKind::all() {
            assert_eq!(format!("{kind:?}"), kind.as_str());
            assert!(!kind.fields().is_empty() && !kind.if_missing().is_empty(), "{kind}");
        }
        let metadata_only: Vec<_> = ResourceKind::all().filter(|kind| kind.is_metadata_only()).collect();
        assert_eq!(metadata_only, [ResourceKind::Namespace, ResourceKind::ReplicaSet, ResourceKind::Job]);
    }
}

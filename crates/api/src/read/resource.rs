//! The kinds of objects that are read once.

/// What an answer owes to a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearing {
    /// Verdicts: without it, they may be wrong.
    Verdicts,
    /// What reaches the cluster from outside, which lists of connections show.
    Outside,
    /// The names of workloads alone.
    Names,
}

/// A kind of object as the API serves it.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// Such as `NetworkPolicy`.
    pub kind: &'static str,
    /// As in paths and RBAC rules, such as `networkpolicies`.
    pub plural: &'static str,
    /// Empty for the core group.
    pub group: &'static str,
    /// The versions that can be read, the best first.
    pub versions: &'static [&'static str],
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What answers owe to it.
    pub bearing: Bearing,
    /// What is kept of an object: paths of fields, lists being passed through.
    pub(crate) keeps: &'static [&'static str],
}

const POLICY: &str = "policy.networking.k8s.io";
const GATEWAY: &str = "gateway.networking.k8s.io";

const fn core(
    kind: &'static str,
    plural: &'static str,
    namespaced: bool,
    keeps: &'static [&'static str],
) -> Resource {
    Resource { kind, plural, group: "", versions: &["v1"], namespaced, bearing: Bearing::Verdicts, keeps }
}

const fn policies(kind: &'static str, plural: &'static str, versions: &'static [&'static str]) -> Resource {
    let keeps = &["metadata.labels", "metadata.creationTimestamp", "spec"];
    Resource { kind, plural, group: POLICY, versions, namespaced: false, bearing: Bearing::Verdicts, keeps }
}

const fn owner(kind: &'static str, plural: &'static str, group: &'static str) -> Resource {
    let keeps = OWNERS;
    Resource { kind, plural, group, versions: &["v1"], namespaced: true, bearing: Bearing::Names, keeps }
}

const fn outside(
    kind: &'static str,
    plural: &'static str,
    group: &'static str,
    versions: &'static [&'static str],
    keeps: &'static [&'static str],
) -> Resource {
    Resource { kind, plural, group, versions, namespaced: true, bearing: Bearing::Outside, keeps }
}

/// A route of the Gateway API.
const fn route(kind: &'static str, plural: &'static str, versions: &'static [&'static str]) -> Resource {
    outside(kind, plural, GATEWAY, versions, ROUTE)
}

/// What is kept of the Gateway API's routes: of filters only whom a mirror copies to, since others add headers.
const ROUTE: &[&str] = &[
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

const OWNERS: &[&str] = &[
    "metadata.ownerReferences.apiVersion",
    "metadata.ownerReferences.kind",
    "metadata.ownerReferences.name",
    "metadata.ownerReferences.controller",
];

/// Every kind that is read. Secrets, ConfigMaps and the like are not among them. Of what is read, only what decisions and
/// names need is kept: no environment, no arguments, no annotations, no headers that a route adds, no keys.
pub static RESOURCES: &[Resource] = &[
    core("Namespace", "namespaces", false, &["metadata.labels"]),
    core("Node", "nodes", false, &["metadata.labels", "status.addresses"]),
    core(
        "Pod",
        "pods",
        true,
        &[
            "metadata.labels",
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
            "spec.initContainers.restartPolicy",
            "spec.initContainers.ports.name",
            "spec.initContainers.ports.containerPort",
            "spec.initContainers.ports.protocol",
            "status.phase",
            "status.podIP",
            "status.podIPs",
        ],
    ),
    core("Service", "services", true, &["metadata.labels", "spec"]),
    Resource {
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        group: "networking.k8s.io",
        versions: &["v1"],
        namespaced: true,
        bearing: Bearing::Verdicts,
        keeps: &["metadata.labels", "metadata.creationTimestamp", "spec"],
    },
    policies("ClusterNetworkPolicy", "clusternetworkpolicies", &["v1beta1", "v1alpha2"]),
    policies("AdminNetworkPolicy", "adminnetworkpolicies", &["v1alpha1"]),
    policies("BaselineAdminNetworkPolicy", "baselineadminnetworkpolicies", &["v1alpha1"]),
    owner("ReplicaSet", "replicasets", "apps"),
    owner("Job", "jobs", "batch"),
    outside(
        "Ingress",
        "ingresses",
        "networking.k8s.io",
        &["v1"],
        &[
            "metadata.labels",
            "spec.ingressClassName",
            "spec.defaultBackend",
            "spec.rules",
            "spec.tls.hosts",
            "status.loadBalancer",
        ],
    ),
    outside(
        "Gateway",
        "gateways",
        GATEWAY,
        &["v1", "v1beta1"],
        &[
            "metadata.labels",
            "spec.gatewayClassName",
            "spec.listeners.name",
            "spec.listeners.hostname",
            "spec.listeners.port",
            "spec.listeners.protocol",
            "spec.listeners.allowedRoutes",
            "status.addresses",
        ],
    ),
    route("HTTPRoute", "httproutes", &["v1", "v1beta1"]),
    route("GRPCRoute", "grpcroutes", &["v1", "v1alpha2"]),
    route("TLSRoute", "tlsroutes", &["v1", "v1alpha3", "v1alpha2"]),
    route("TCPRoute", "tcproutes", &["v1", "v1alpha2"]),
    route("UDPRoute", "udproutes", &["v1", "v1alpha2"]),
    outside("ReferenceGrant", "referencegrants", GATEWAY, &["v1", "v1beta1"], &["spec"]),
    outside(
        "Route",
        "routes",
        "route.openshift.io",
        &["v1"],
        &[
            "metadata.labels",
            "spec.host",
            "spec.path",
            "spec.to",
            "spec.alternateBackends",
            "spec.port",
            "spec.tls.termination",
            "spec.wildcardPolicy",
        ],
    ),
];

impl Resource {
    /// Whether a cluster may lack it: it is defined by a CustomResourceDefinition or another API server.
    #[must_use]
    pub fn is_optional(&self) -> bool {
        [POLICY, GATEWAY, "route.openshift.io"].contains(&self.group)
    }

    /// `v1`, `networking.k8s.io/v1`.
    #[must_use]
    pub fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }

    /// What it means for an answer that it could not be read.
    #[must_use]
    pub fn meaning(&self) -> &'static str {
        match self.kind {
            "Namespace" => {
                "labels of namespaces are unknown: rules that select namespaces may match more or fewer than shown"
            }
            "Node" => {
                "nodes are unknown: their addresses count as addresses outside the cluster, and rules for nodes match none"
            }
            "Pod" => {
                "pods are unknown: connections from and to them are not shown, and their addresses count as outside"
            }
            "Service" => "services are unknown: nothing is known of who stands behind them",
            "NetworkPolicy" => "an allowed may be denied by one, and a denied allowed",
            "ClusterNetworkPolicy" | "AdminNetworkPolicy" => {
                "an allowed may be denied by one, and a denied allowed: they come before NetworkPolicies"
            }
            "BaselineAdminNetworkPolicy" => {
                "an allowed may be denied by one where no NetworkPolicy isolates the pod"
            }
            "ReplicaSet" | "Job" => {
                "some workloads go by the names of their pods' owners; verdicts do not depend on it"
            }
            _ => "what comes in from outside through them is not shown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_asked_for_or_kept() {
        let kinds: Vec<&str> = RESOURCES.iter().map(|r| r.kind).collect();
        for never in ["Secret", "ConfigMap", "ServiceAccount", "Event"] {
            assert!(!kinds.contains(&never));
        }
        for resource in RESOURCES {
            for path in resource.keeps {
                let secret = ["annotations", "managedFields", "env", "args", "command", "key", "volumes"];
                assert!(path.split('.').all(|step| !secret.contains(&step)), "{} {path}", resource.kind);
            }
        }
    }
}

//! The kinds and groups of the Kubernetes API itself, as far as they tell a misspelled kind from one that no verdict
//! depends on.
//!
//! The names are those of Kubernetes 1.35, and of removed versions that old manifests still use.

/// Groups in which every kind is known, with the kinds of which nothing is read.
const CLOSED: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "Binding",
            "ComponentStatus",
            // Not an object of the API: a kubeconfig file.
            "Config",
            "ConfigMap",
            "Endpoints",
            "Event",
            "Eviction",
            "LimitRange",
            "PersistentVolume",
            "PersistentVolumeClaim",
            "PodTemplate",
            "ResourceQuota",
            "Scale",
            "Secret",
            "ServiceAccount",
            "Status",
            // OpenShift 3 served these in the core group.
            "BuildConfig",
            "ImageStream",
            "Template",
        ],
    ),
    ("apps", &["ControllerRevision", "Scale"]),
    ("batch", &[]),
    ("networking.k8s.io", &["ClusterCIDR", "IPAddress", "IngressClass", "ServiceCIDR"]),
];

/// The other groups that belong to Kubernetes or its projects, in which no kind has the name of one that is read.
const OTHER_GROUPS: &[&str] = &[
    "admission.k8s.io",
    "admissionregistration.k8s.io",
    "apidiscovery.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "audit.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "autoscaling.k8s.io",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "extensions",
    "flowcontrol.apiserver.k8s.io",
    "imagepolicy.k8s.io",
    "internal.apiserver.k8s.io",
    "kubeadm.k8s.io",
    "kubelet.config.k8s.io",
    "kubeproxy.config.k8s.io",
    "kubescheduler.config.k8s.io",
    "kustomize.config.k8s.io",
    "metrics.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "settings.k8s.io",
    "snapshot.storage.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// Returns whether Kubernetes has the kind in this group, and no verdict depends on it.
pub(super) fn is_neutral(group: &str, kind: &str) -> bool {
    CLOSED.iter().any(|(g, kinds)| *g == group && kinds.contains(&kind))
}

/// Returns whether all kinds of a group are known.
pub(super) fn is_closed(group: &str) -> bool {
    CLOSED.iter().any(|(g, _)| *g == group)
}

/// Returns whether Kubernetes or one of its projects has the group.
pub(super) fn has_group(group: &str) -> bool {
    is_closed(group) || OTHER_GROUPS.contains(&group)
}

/// Returns whether only Kubernetes can have the group. The API server accepts no CustomResourceDefinition in a group
/// without a dot, and asks for an approval in the groups of the two domains.
pub(super) fn is_reserved(group: &str) -> bool {
    !group.contains('.') || group.ends_with(".k8s.io") || group.ends_with(".kubernetes.io")
}

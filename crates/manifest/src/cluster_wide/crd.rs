//! The CustomResourceDefinitions of cluster-wide policies: the differences between fields, versions and channels.

use palisade_policy::Direction;

use crate::options::{Admission, Channel};

/// A kind of cluster-wide policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClusterWideKind {
    Cluster,
    Admin,
    Baseline,
}

/// A CustomResourceDefinition in one version and channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crd {
    pub(super) kind: ClusterWideKind,
    pub(super) v1beta1: bool,
    pub(super) experimental: bool,
}

impl Crd {
    /// Returns the definition of a cluster-wide policy's kind. The caller has checked the version.
    pub(super) fn of(kind: &str, version: &str, channel: Channel, admission: Admission) -> Option<Self> {
        let kind = match kind {
            "ClusterNetworkPolicy" => ClusterWideKind::Cluster,
            "AdminNetworkPolicy" => ClusterWideKind::Admin,
            "BaselineAdminNetworkPolicy" => ClusterWideKind::Baseline,
            _ => return None,
        };
        // An object from an API server conforms to the cluster's channel, which is unknown here.
        let experimental = channel == Channel::Experimental || admission == Admission::Passed;
        Some(Self { kind, v1beta1: version == "v1beta1", experimental })
    }

    pub(super) fn spec_fields(&self) -> &'static [&'static str] {
        match self.kind {
            ClusterWideKind::Cluster => &["tier", "priority", "subject", "ingress", "egress"],
            ClusterWideKind::Admin => &["priority", "subject", "ingress", "egress"],
            ClusterWideKind::Baseline => &["subject", "ingress", "egress"],
        }
    }

    pub(super) fn rule_fields(&self, direction: Direction) -> [&'static str; 4] {
        ["name", "action", self.peers_field(direction), self.ports_field()]
    }

    pub(super) fn actions(&self) -> &'static [&'static str] {
        match self.kind {
            ClusterWideKind::Cluster => &["Accept", "Deny", "Pass"],
            ClusterWideKind::Admin => &["Allow", "Deny", "Pass"],
            ClusterWideKind::Baseline => &["Allow", "Deny"],
        }
    }

    pub(super) fn peers_field(&self, direction: Direction) -> &'static str {
        if direction == Direction::Ingress { "from" } else { "to" }
    }

    /// The fields of a peer. Exactly one must be set.
    pub(super) fn peers(&self, direction: Direction) -> &'static [&'static str] {
        match (direction, self.experimental, self.kind) {
            (Direction::Ingress, ..) => &["namespaces", "pods"],
            (_, false, _) => &["namespaces", "pods", "networks"],
            (_, true, ClusterWideKind::Baseline) => &["namespaces", "pods", "networks", "nodes"],
            (_, true, _) => &["namespaces", "pods", "networks", "nodes", "domainNames"],
        }
    }

    pub(super) fn ports_field(&self) -> &'static str {
        if self.kind == ClusterWideKind::Cluster { "protocols" } else { "ports" }
    }

    pub(super) fn named_port_field(&self) -> &'static str {
        if self.kind == ClusterWideKind::Cluster { "destinationNamedPort" } else { "namedPort" }
    }

    /// The fields of an element of `protocols` or `ports`. Exactly one must be set.
    pub(super) fn ports(&self) -> &'static [&'static str] {
        match (self.kind, self.experimental) {
            (ClusterWideKind::Cluster, false) if self.v1beta1 => &["tcp", "udp", "sctp"],
            (ClusterWideKind::Cluster, _) => &["tcp", "udp", "sctp", "destinationNamedPort"],
            (_, true) => &["portNumber", "portRange", "namedPort"],
            (_, false) => &["portNumber", "portRange"],
        }
    }

    /// The fields that only the experimental channel has.
    pub(super) fn only_experimental(
        &self,
        fields: impl Fn(&Self) -> &'static [&'static str],
    ) -> Vec<&'static str> {
        let own = fields(self);
        let experimental = Self { experimental: true, ..*self };
        fields(&experimental).iter().copied().filter(|kind| !own.contains(kind)).collect()
    }

    /// The maximum length of lists of rules, peers and ports.
    pub(super) fn max_list_length(&self) -> usize {
        if self.kind == ClusterWideKind::Cluster { 25 } else { 100 }
    }

    /// Whether `pods` may omit `namespaceSelector`, which then matches every namespace.
    pub(super) fn namespace_selector_is_optional(&self) -> bool {
        self.kind == ClusterWideKind::Cluster
    }
}

impl ClusterWideKind {
    /// The name of the kind in the API.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cluster => "ClusterNetworkPolicy",
            Self::Admin => "AdminNetworkPolicy",
            Self::Baseline => "BaselineAdminNetworkPolicy",
        }
    }
}

//! The cluster-wide policies of `policy.networking.k8s.io`: ClusterNetworkPolicy (v1alpha2, v1beta1; SEMANTICS C) and its
//! predecessors AdminNetworkPolicy and BaselineAdminNetworkPolicy (v1alpha1; SEMANTICS B).
//!
//! They are read in two steps, as in a cluster:
//! * `admission` does what the API server does with the CustomResourceDefinition: what it rejects is an error. `schema`
//!   has the single checks.
//! * `normal_form` does what an implementation does with an admitted object, of which the definitions leave a lot
//!   unchecked: what can't be used fails closed (SEMANTICS C23, C24, G-15 to G-17) and is a warning.
//!
//! Objects from an API server have been admitted, perhaps by a newer definition than ours, so the first step can be left
//! out ([`crate::Admission::Passed`]); the second then meets fields that it doesn't know.

use palisade_policy::{Direction, Policy};

use crate::{
    decode::{Context, Fields},
    meta::Meta,
};

mod admission;
mod domain_name;
mod normal_form;
mod peers;
mod ports;
mod schema;
mod side_by_side;
mod unusable;

pub(crate) use side_by_side::side_by_side;

/// The API group.
pub(crate) const GROUP: &str = "policy.networking.k8s.io";

/// Which of the project's two release channels the cluster's CustomResourceDefinitions come from (SEMANTICS 0.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Channel {
    /// All fields: also `nodes` and `domainNames`, `namedPort` of v1alpha1 and `destinationNamedPort` of v1beta1.
    #[default]
    Experimental,
    /// Without these: the API server drops them like any unknown field before it validates.
    Standard,
}

/// Whether cluster-wide policies have passed the API server's checks already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// They have not: a file. What the API server would reject is an error, and not taken in.
    #[default]
    Check,
    /// They have: an API server sent them. Nothing is checked, and fields that we don't know come from a newer version
    /// of the API: a rule with such a field fails closed.
    Passed,
}

/// A kind of cluster-wide policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cluster,
    Admin,
    Baseline,
}

/// One version of a kind's CustomResourceDefinition in one channel: what differs between them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crd {
    kind: Kind,
    v1beta1: bool,
    experimental: bool,
}

impl Crd {
    /// The definition of a kind, if it is a cluster-wide policy. Whether the version is served has been seen to.
    pub(crate) fn of(kind: &str, version: &str, channel: Channel, admission: Admission) -> Option<Self> {
        let kind = match kind {
            "ClusterNetworkPolicy" => Kind::Cluster,
            "AdminNetworkPolicy" => Kind::Admin,
            "BaselineAdminNetworkPolicy" => Kind::Baseline,
            _ => return None,
        };
        // What an API server has sent is in its channel, whichever that is.
        let experimental = channel == Channel::Experimental || admission == Admission::Passed;
        Some(Self { kind, v1beta1: version == "v1beta1", experimental })
    }

    fn spec_fields(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::Cluster => &["tier", "priority", "subject", "ingress", "egress"],
            Kind::Admin => &["priority", "subject", "ingress", "egress"],
            Kind::Baseline => &["subject", "ingress", "egress"],
        }
    }

    fn rule_fields(&self, direction: Direction) -> [&'static str; 4] {
        ["name", "action", self.peers_field(direction), self.ports_field()]
    }

    fn actions(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::Cluster => &["Accept", "Deny", "Pass"],
            Kind::Admin => &["Allow", "Deny", "Pass"],
            Kind::Baseline => &["Allow", "Deny"],
        }
    }

    fn peers_field(&self, direction: Direction) -> &'static str {
        if direction == Direction::Ingress { "from" } else { "to" }
    }

    /// The kinds of peers, one of which a peer names.
    fn peers(&self, direction: Direction) -> &'static [&'static str] {
        match (direction, self.experimental, self.kind) {
            (Direction::Ingress, ..) => &["namespaces", "pods"],
            (_, false, _) => &["namespaces", "pods", "networks"],
            (_, true, Kind::Baseline) => &["namespaces", "pods", "networks", "nodes"],
            (_, true, _) => &["namespaces", "pods", "networks", "nodes", "domainNames"],
        }
    }

    fn ports_field(&self) -> &'static str {
        if self.kind == Kind::Cluster { "protocols" } else { "ports" }
    }

    fn named_port_field(&self) -> &'static str {
        if self.kind == Kind::Cluster { "destinationNamedPort" } else { "namedPort" }
    }

    /// The kinds of ports, one of which an element of `protocols` or `ports` names.
    fn ports(&self) -> &'static [&'static str] {
        match (self.kind, self.experimental) {
            (Kind::Cluster, false) if self.v1beta1 => &["tcp", "udp", "sctp"],
            (Kind::Cluster, _) => &["tcp", "udp", "sctp", "destinationNamedPort"],
            (_, true) => &["portNumber", "portRange", "namedPort"],
            (_, false) => &["portNumber", "portRange"],
        }
    }

    /// The kinds of something that this definition lacks and its sister in the experimental channel has.
    fn elsewhere(&self, kinds: impl Fn(&Self) -> &'static [&'static str]) -> Vec<&'static str> {
        let own = kinds(self);
        let sister = Self { experimental: true, ..*self };
        kinds(&sister).iter().copied().filter(|kind| !own.contains(kind)).collect()
    }

    /// How many rules, peers and ports there may be in a list.
    fn longest_list(&self) -> usize {
        if self.kind == Kind::Cluster { 25 } else { 100 }
    }

    /// Whether a `pods` choice may leave out its `namespaceSelector`, which then is every namespace.
    fn namespace_selector_is_optional(&self) -> bool {
        self.kind == Kind::Cluster
    }
}

/// Reads a cluster-wide policy. `None`, or errors reported: it is not taken in.
pub(crate) fn cluster_wide_policy(
    cx: &mut Context<'_>,
    object: &Fields<'_>,
    crd: Crd,
    meta: &Meta,
) -> Option<Policy> {
    if cx.admission == Admission::Check {
        admission::admit(cx, object, crd, meta);
        if cx.errors > 0 {
            return None;
        }
    }
    normal_form::policy(cx, object, crd, meta)
}

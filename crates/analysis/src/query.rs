//! Options of questions about the connections of a cluster.

use std::collections::BTreeSet;

use palisade_policy::{Family, IpRange, Name, ObjectKey, Traffic, address::union};

use crate::controller::ControllerRoutes;

/// What an end stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum GroupBy {
    /// Workloads. A workload whose pods are not equivalent has several ends. The answer is exact.
    #[default]
    Workload,
    /// Pods. The answer is exact, and its length is quadratic in the number of pods, so use a filter.
    Pod,
    /// Namespaces. An edge has the traffic that any of its pairs of pods may use. [`crate::Edge::exact`] tells whether
    /// all pairs may.
    Namespace,
    /// Equivalent pods of any workloads. This is the shortest exact answer.
    Class,
}

/// Options of [`crate::Connections`].
#[derive(Clone, Debug, Default)]
pub struct ConnectionsOptions {
    /// What an end stands for.
    pub group_by: GroupBy,
    /// Only connections from these ends.
    pub from: Option<EndFilter>,
    /// Only connections to these ends.
    pub to: Option<EndFilter>,
    /// Only this traffic.
    pub traffic: Option<Traffic>,
    /// Denied connections instead of allowed ones.
    pub only_denied: bool,
    /// Whether to include nodes.
    pub nodes: bool,
    /// The routes into the cluster.
    pub controller_routes: ControllerRoutes,
}

/// Selects the ends that match any of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndFilter {
    /// Ends with one of these pods.
    pub pods: BTreeSet<ObjectKey>,
    /// Ends in these namespaces, and classes with a pod in them.
    pub namespaces: BTreeSet<Name>,
    /// Ends with one of these nodes.
    pub nodes: BTreeSet<Name>,
    /// The ingress controller.
    pub controller: bool,
    /// External addresses in these ranges. External ends are divided at their boundaries.
    pub ranges: Vec<IpRange>,
}

impl EndFilter {
    /// Returns the ranges, merged for each family.
    pub(crate) fn filter_ranges(&self) -> impl Iterator<Item = Vec<IpRange>> {
        let of =
            |family| self.ranges.iter().copied().filter(move |r| Family::of(r.first) == family).collect();
        Family::BOTH.map(of).into_iter().map(union).filter(|ranges| !ranges.is_empty())
    }
}
